"""A tenant carried away, brought back, moved and destroyed: the verbs of `tenants`, with what the rooms above it keep of
one."""

import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from functools import partial
from pathlib import Path

from sqlalchemy import delete

from auth.connections.models import Connection
from auth.connections.transport import gather_connections, scatter_connections
from auth.keys import platform
from auth.keys.errors import KeysLocked, MasterKeyUnknown
from auth.keys.masters import MasterKeys
from auth.keys.models import TenantKey
from auth.keys.transport import check_keys, gather_keys, read_data_keys, scatter_keys
from clinic.patients.resealing import reseal_patients
from core.blobs import BlobStores
from core.database import AdminDatabase, ControlSession, TenantScope
from core.settings import Settings
from gateway.assembly import database_url, make_keys, master_keys, open_database
from migrations.rendering import head, history
from migrations.runner import create_schema, upgrade_schema
from tenants.directory.models import Tenant
from tenants.lifecycle.purge import CERTIFICATE_TYPE, purge
from tenants.moving.service import move
from tenants.portability.bundle import Control, Manifest, Scrypt, passphrase_key, read_control, verify
from tenants.portability.errors import BundleRefused
from tenants.portability.export import Progress, export, gather_control
from tenants.portability.restore import restore_steps
from tenants.provisioning.service import provision

# Sign-ins, a directory's tokens, and answers kept for repeated requests: they end with the tenant that they belong to.
LEFT_OUT = frozenset(
    {
        "sessions",
        "refresh_tokens",
        "login_requests",
        "saml_logouts",
        "authorization_codes",
        "scim_tokens",
        "idempotency_keys",
        "kept_sign_ins",
        *("invitations", "local_administrators"),  # ways in, that a copy elsewhere must not have
    }
)

# The names of the blobs that rows name, as `clinic.images` and `clinic.reports` make them.
BLOB_NAMES = """
    SELECT 'cases/' || case_id || '/' || id || '/' || variant
    FROM images CROSS JOIN unnest(ARRAY['original', 'display', 'thumbnail']) AS variant
    WHERE status = 'stored' AND (variant <> 'display' OR display_sha256 <> sha256)
    UNION ALL SELECT 'cases/' || case_id || '/reports/' || id || '.pdf' FROM reports WHERE status = 'stored'
"""


@asynccontextmanager
async def _opened_masters(settings: Settings, admin: AdminDatabase) -> AsyncIterator[MasterKeys]:
    async with aclosing(master_keys(settings, admin.control)) as masters:
        await masters.open_all()
        yield masters


async def export_tenant(
    settings: Settings,
    admin: AdminDatabase,
    stores: BlobStores,
    slug: str,
    target: Path,
    *,
    passphrase: str | None,
    progress: Progress = lambda what, done: None,
) -> Manifest:
    """`tenants.portability.export` with what the rooms above it keep of a tenant. Its keys stay wrapped by the master
    key, or are wrapped by a passphrase."""
    async with _opened_masters(settings, admin) as masters:
        master = await masters.current()
        scrypt = Scrypt(salt=secrets.token_hex(16)) if passphrase else None
        wrapping = passphrase_key(passphrase, scrypt) if passphrase and scrypt else master

        async def gather(session: ControlSession, tenant: Tenant) -> Control:
            return await gather_control(
                session,
                tenant,
                await gather_connections(session, tenant),
                await gather_keys(session, tenant, masters, wrapping),
            )

        return await export(
            admin,
            stores,
            slug,
            target,
            gather=gather,
            wrapped_by=scrypt or master.kek_id,
            leave_out=LEFT_OUT,
            blob_names=BLOB_NAMES,
            progress=progress,
        )


async def restore_tenant(
    settings: Settings,
    admin: AdminDatabase,
    stores: BlobStores,
    bundle: Path,
    *,
    slug: str | None,
    passphrase: str | None,
    progress: Callable[[str], None] = lambda step: None,
) -> Tenant:
    """A tenant made of a bundle, or finished. Raises `BundleRefused`, `KeysLocked`, and what `provision` raises."""
    manifest, digest = verify(bundle)
    progress("verified")
    if manifest.schema_revision not in {revision.id for revision in history("tenant")}:
        raise BundleRefused(
            f"Its schema is at revision {manifest.schema_revision}, which this release does not know: restore it with "
            "the release that exported it, or a newer one."
        )
    wrapped_by, former = manifest.wrapped_by, TenantScope(manifest.tenant.key)
    async with _opened_masters(settings, admin) as masters:
        master = await masters.make()
        if not isinstance(wrapped_by, Scrypt):
            try:
                wrapping = await masters.named(wrapped_by)
            except MasterKeyUnknown:
                raise KeysLocked(
                    "Its keys were wrapped by another master key than DERMADETECT_MASTER_KEY."
                ) from None
        elif passphrase:
            wrapping = passphrase_key(passphrase, wrapped_by)
        else:
            raise KeysLocked("Its keys were wrapped by a passphrase; give it.")
        check_keys(read_control(bundle).keys, former, wrapping)
    database = open_database(settings)

    async def make_schema(tenant: Tenant) -> None:
        url = database_url(settings, tenant.cell)
        await create_schema(admin, tenant.scope, url, manifest.schema_revision)

    async def upgrade(tenant: Tenant) -> None:
        await upgrade_schema(admin, tenant.scope)

    async def scatter(session: ControlSession, tenant: Tenant, kept: Control) -> None:
        await scatter_connections(session, tenant, kept.connections)
        same_home = tenant.home_host == manifest.tenant.home_host
        scatter_keys(session, tenant, kept.keys, former, wrapping, master, same_home=same_home)

    async def reseal(tenant: Tenant) -> None:
        async with _opened_masters(settings, admin) as masters, admin.control() as session:
            data_keys = await read_data_keys(session, tenant, masters)
        await reseal_patients(database, tenant.scope, former, data_keys)

    try:
        return await provision(
            admin,
            restore_steps(
                admin,
                stores,
                bundle,
                manifest,
                digest,
                make_schema=make_schema,
                upgrade=upgrade,
                make_keys=partial(make_keys, settings, admin),
                scatter=scatter,
                reseal=reseal,
                leave_out=LEFT_OUT,
            ),
            slug=slug or manifest.tenant.slug,
            name=manifest.tenant.name,
            plan=manifest.tenant.plan,
            base_domain=settings.base_domain,
            schema_revision=head("tenant"),
            successor_of=manifest.tenant.key,
            progress=progress,
        )
    finally:
        await database.close()


async def move_tenant(
    settings: Settings,
    admin: AdminDatabase,
    stores: BlobStores,
    slug: str,
    to: str,
    *,
    progress: Callable[[str], None] = lambda step: None,
) -> Tenant:
    """`tenants.moving` with the schema that `migrations` makes."""

    async def make_schema(scope: TenantScope) -> None:
        await create_schema(admin, scope, database_url(settings, scope.cell))

    return await move(
        admin, stores, slug, to, make_schema=make_schema, schema_revision=head("tenant"), progress=progress
    )


async def purge_tenant(
    settings: Settings,
    admin: AdminDatabase,
    stores: BlobStores,
    slug: str,
    *,
    now: bool,
    progress: Callable[[str], None] = lambda step: None,
) -> str:
    """`tenants.lifecycle.purge` with what the rooms above it keep of a tenant."""

    async def forget(session: ControlSession, tenant: Tenant) -> None:
        for kept in (TenantKey, Connection):
            await session.execute(delete(kept).where(kept.tenant_id == tenant.id))

    async with _opened_masters(settings, admin) as masters:
        await masters.make()

        async def sign(session: ControlSession, told: bytes) -> str:
            return await platform.sign(session, masters, told, CERTIFICATE_TYPE)

        return await purge(admin, stores, slug, forget=forget, sign=sign, now=now, progress=progress)
