"""Where the rooms' parts are put together, for the gateway, the worker and the command line alike."""

import base64
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, aclosing
from datetime import timedelta
from functools import partial

from pydantic import SecretStr

from auth.connections.fetching import Fetcher
from auth.connections.keeping import forget_kept
from auth.invitations.errors import AlreadyKnown
from auth.invitations.service import Wish, invitation_url, invite
from auth.keys.masters import MasterKeys, OpenControl, Vault
from auth.keys.service import KeyRing, complete_keys, delete_keys
from auth.local.credentials import PasswordCheck
from auth.oauth.service import forget_finished
from auth.oidc.provider import Providers
from auth.people.administration import tell_of_ended_sessions
from auth.people.service import GONE
from auth.saml.logout import forget_logouts
from auth.saml.refresh import SAML_METADATA, refresh_metadata
from auth.saml.service import SignInJail, forget_expired_assertions
from auth.tokens.service import TokenVerifier
from clinic.ai.client import AiClient
from clinic.ai.pipeline import run_pipeline
from clinic.ai.service import Asking
from clinic.cases.lifecycle import release_abandoned
from clinic.images.sweeper import settle_reservations, sweep_images
from core.blobs import BlobStore, BlobStores, open_blob_store
from core.cells import HOME, find
from core.crypto import MasterKey
from core.database import AdminDatabase, Database, TenantScope
from core.idempotency import forget_old_keys
from core.jail import Jail
from core.limits import RateLimits
from core.parts import Parts
from core.problems import Problem
from core.settings import VAULT, Cell, Settings
from core.spool import Spool
from migrations.runner import create_schema, drop_schema
from tenants.audit.service import SEAL, seal
from tenants.background.bells import Bells, ring
from tenants.background.worker import Handler, Worker
from tenants.directory.cache import Directory
from tenants.directory.models import Tenant
from tenants.plans.counter import UsageCounter
from tenants.plans.service import limit_of
from tenants.platform.service import PlatformAccess
from tenants.provisioning.service import ADMINISTRATOR, Step

RECURRING = {
    SEAL: timedelta(hours=1),  # for what was rung by a process that then crashed
    "sweep-images": timedelta(hours=1),
    "reconcile-images": timedelta(days=1),
    "tidy": timedelta(days=1),
    SAML_METADATA: timedelta(hours=1),  # most of the times nothing is due
    "ai-pipeline": timedelta(hours=1),  # for what was submitted before an AI Service was configured
}


class NotConfigured(Problem):
    """A setting that this command needs is missing; the detail names it."""

    slug, title = "not-configured", "A setting is missing"


def database_url(settings: Settings, cell: str = HOME) -> str:
    """Where the gateway's login finds a cell's database. Raises `NotConfigured`, `CellUnknown`."""
    if settings.database_url is None:
        raise NotConfigured(
            "Set DERMADETECT_DATABASE_URL to the gateway's login (docs/configuration.md), "
            "or use `dermadetect serve --dev`, which brings a PostgreSQL of its own."
        )
    cells = {name: each.database_url for name, each in settings.cells.items()}
    return find({HOME: settings.database_url} | cells, cell).get_secret_value()


def open_database(settings: Settings) -> Database:
    """The gateway's pools. Raises `NotConfigured`."""
    return Database(
        database_url(settings),
        cells={name: cell.database_url.get_secret_value() for name, cell in settings.cells.items()},
        pool_size=settings.database_pool_size,
        pooler=settings.database_pooler,
        statement_timeout_ms=settings.statement_timeout_ms,
    )


def open_admin_database(settings: Settings) -> AdminDatabase:
    """The operator's login. Raises `NotConfigured`."""
    if settings.admin_database_url is None:
        raise NotConfigured(
            "Set DERMADETECT_ADMIN_DATABASE_URL to the operator's login (docs/configuration.md)."
        )
    lacking = [name for name, cell in settings.cells.items() if cell.admin_database_url is None]
    if lacking:
        raise NotConfigured(f"DERMADETECT_CELLS names no admin_database_url for {', '.join(lacking)}.")
    return AdminDatabase(
        settings.admin_database_url.get_secret_value(),
        {
            name: cell.admin_database_url.get_secret_value()
            for name, cell in settings.cells.items()
            if cell.admin_database_url
        },
    )


def master_secrets(settings: Settings) -> list[SecretStr]:
    """The master keys as they are configured, the current one first. Raises `NotConfigured`."""
    if settings.master_key is None:
        raise NotConfigured("Set DERMADETECT_MASTER_KEY; `openssl rand -base64 32` makes one. Keep it safe.")
    previous = settings.master_key_previous
    return [settings.master_key, previous] if previous else [settings.master_key]


def master_keys(settings: Settings, control: OpenControl) -> MasterKeys:
    """What wraps all other keys; nothing has connected yet. Raises `NotConfigured`."""

    def source(given: str) -> MasterKey | Vault:
        if not given.startswith(VAULT):
            return MasterKey(base64.b64decode(given))
        from core.azure_keys import VaultKey  # slow to import

        return VaultKey(given.removeprefix(VAULT))

    return MasterKeys([source(each.get_secret_value()) for each in master_secrets(settings)], control)


def blob_stores(settings: Settings) -> BlobStores:
    """Each cell's store: Azure where it is configured, else a directory. Raises `NotConfigured`."""
    if not (settings.blob_directory or settings.azure_connection_string or settings.azure_account_url):
        raise NotConfigured(
            "Say where photographs are kept: DERMADETECT_AZURE_ACCOUNT_URL, "
            "DERMADETECT_AZURE_CONNECTION_STRING, or DERMADETECT_BLOB_DIRECTORY."
        )

    def opened(where: Settings | Cell) -> BlobStore:
        secret = where.azure_connection_string
        return open_blob_store(
            directory=where.blob_directory,
            azure_connection_string=secret.get_secret_value() if secret else None,
            azure_account_url=str(where.azure_account_url) if where.azure_account_url else None,
            azure_api_version=settings.azure_api_version,
        )

    return BlobStores(
        {HOME: opened(settings)} | {name: opened(cell) for name, cell in settings.cells.items()}
    )


def assemble(settings: Settings) -> Parts:
    """Everything a running gateway needs; nothing has connected yet. Raises `NotConfigured`."""
    database = open_database(settings)
    directory = Directory(database)
    masters = master_keys(settings, database.control)
    fetcher = Fetcher(settings.sso_fetch_allow)
    return Parts(
        settings,
        database,
        directory,
        KeyRing(database, masters, directory),
        masters,
        TokenVerifier(database, directory),
        RateLimits(settings.limits_storage.get_secret_value()),
        UsageCounter(database),
        Bells(database),
        PlatformAccess(open_admin_database(settings) if settings.platform_api else None),
        Jail(
            settings.jail_workers,
            preload=(
                "clinic.images.inspection",
                "clinic.images.entropy_coded",
                "clinic.reports.rendering",
            ),
        ),
        Spool(settings.upload_directory, settings.upload_space_bytes),
        PasswordCheck(),
        SignInJail(max(1, settings.jail_workers // 2), preload=("auth.saml.validation",)),
        fetcher,
        Providers(fetcher),
        AiClient(
            base_url=str(settings.ai_url) if settings.ai_url else None,
            token=settings.ai_token.get_secret_value() if settings.ai_token else None,
            deadline_s=settings.ai_deadline_s,
        ),
        blob_stores(settings),
    )


async def disassemble(parts: Parts) -> None:
    """Close what `assemble` opened, the last first, so that each still has what it needs."""
    async with AsyncExitStack() as stack:  # one that fails must not keep the others open
        stack.push_async_callback(parts[Database].close)
        stack.push_async_callback(parts[PlatformAccess].close)
        stack.push_async_callback(parts[BlobStores].close)
        stack.push_async_callback(parts[MasterKeys].aclose)
        for jail in (parts[Jail], parts[SignInJail]):
            stack.callback(jail.close)
        stack.callback(parts[PasswordCheck].close)
        stack.push_async_callback(parts[AiClient].aclose)
        stack.push_async_callback(parts[RateLimits].close)
        stack.push_async_callback(parts[UsageCounter].close)
        stack.push_async_callback(parts[Bells].stop)
        stack.push_async_callback(parts[Directory].stop)


def provisioning_steps(settings: Settings, admin: AdminDatabase, stores: BlobStores) -> list[Step]:
    """What makes a tenant: schema and role, container, keys."""
    master_secrets(settings)  # missed now rather than in the last step

    async def unmake_keys(tenant: Tenant) -> None:
        async with admin.control() as session:
            await delete_keys(session, tenant)

    return [
        Step(
            "schema",
            run=lambda tenant: create_schema(admin, tenant.scope, database_url(settings, tenant.cell)),
            undo=lambda tenant: drop_schema(admin, tenant.scope),
            always=True,
        ),
        Step(
            "container",
            run=lambda tenant: stores.at(tenant.cell).create_container(tenant.scope.container),
            undo=lambda tenant: stores.at(tenant.cell).delete_container(tenant.scope.container),
        ),
        Step("keys", run=partial(make_keys, settings, admin), undo=unmake_keys),
    ]


def administrator_step(settings: Settings, wish: Wish, tell: Callable[[str | None], None]) -> Step:
    """Invites a tenant's first administrator; `tell` hears the address they follow, which only whoever is told knows,
    or None where they are known already. Doing it again voids the former address."""

    async def run(tenant: Tenant) -> None:
        database = open_database(settings)
        try:
            async with database.control() as control:
                seats = await limit_of(control, tenant.scope, "seats")
            life = timedelta(days=settings.invitation_days)
            async with database.tenant(tenant.scope) as session:
                _, token = await invite(session, None, wish, life=life, seat_limit=seats)
            await ring(database)
        except AlreadyKnown:
            tell(None)
        else:
            tell(invitation_url(settings.origin_of(tenant.home_host), token))
        finally:
            await database.close()

    return Step(ADMINISTRATOR, run=run, always=True)


async def make_keys(settings: Settings, admin: AdminDatabase, tenant: Tenant) -> None:
    """Give a tenant an active key for each purpose that it has none for."""
    async with aclosing(master_keys(settings, admin.control)) as masters:
        master = await masters.make()
        async with admin.control() as session:
            await complete_keys(session, tenant, master)


async def tidy(database: Database, tenant: TenantScope) -> None:
    """Delete a tenant's rows that have served their purpose: the handler of the doorbell kind `tidy`."""
    async with database.control() as control, database.tenant(tenant) as session:
        await forget_kept(control, session)
        await forget_old_keys(session)
        await forget_finished(session)
        await forget_expired_assertions(session)
        await forget_logouts(session)


async def follow_up(database: Database, tenant: TenantScope) -> None:
    """What comes of somebody's deactivation: the handler of the doorbell kind `user-deactivated`."""
    await tell_of_ended_sessions(database, tenant)
    await release_abandoned(database, tenant)


async def ask_about_cases(parts: Parts, tenant: TenantScope) -> None:
    """The handler of the doorbell kind `ai-pipeline`."""
    await run_pipeline(Asking.of(parts, tenant))


def background_worker(parts: Parts) -> Worker:
    """The worker with every room's handlers."""
    stores = parts[BlobStores]
    handlers: Mapping[str, Handler] = {
        SEAL: partial(seal, parts[Database]),
        "sweep-images": partial(settle_reservations, parts[Database], stores),
        "reconcile-images": partial(sweep_images, parts[Database], stores),
        GONE: partial(follow_up, parts[Database]),
        "tidy": partial(tidy, parts[Database]),
        SAML_METADATA: partial(refresh_metadata, parts[Database], parts[Fetcher], parts[SignInJail]),
        "ai-pipeline": partial(ask_about_cases, parts),
    }
    return Worker(
        parts[Database],
        handlers,
        recurring=RECURRING,
        prompt={SEAL},
    )
