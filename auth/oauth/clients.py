"""The life of registered clients: secrets that change without an interruption, and an end that holds everywhere.

Whatever ends takes the tokens that were issued for it along, in every process within a second.
"""

import secrets
from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import delete, select

from auth.oauth.errors import ClientNotFound
from auth.oauth.models import AuthorizationCode, ClientSecret, LoginRequest, OAuthClient, RefreshToken
from auth.oauth.service import hash_secret, put_client
from auth.people.models import SignInSession
from auth.people.service import end_sessions_through
from auth.roles import SERVICE_SCOPES
from core.clock import utcnow
from core.database import Database, TenantScope, TenantSession
from core.ids import new_id
from core.problems import Conflict, Invalid
from tenants.audit.service import audit, operator
from tenants.directory.service import revoke_sessions

PREFIX = "ddc_"  # by which scanners for leaked secrets know it
SECRETS_AT_ONCE = 2
LONGEST_TOKEN = timedelta(hours=1)  # what DERMADETECT_ACCESS_TOKEN_S allows


class NotAMachine(Conflict):
    slug, title = "not-a-machine-client", "Apps have no secret"


async def register_machine(
    session: TenantSession, client_id: str, name: str, scopes: Sequence[str], *, for_patients: bool = False
) -> tuple[OAuthClient, str | None]:
    """Register a machine client, or replace its name and rights. Returns its secret as well if it has just got one,
    which is told this once. Raises `Invalid`."""
    unknown = sorted(set(scopes) - SERVICE_SCOPES)
    if unknown or not scopes:
        raise Invalid(
            f"Scopes of machine clients are {', '.join(sorted(SERVICE_SCOPES))}; "
            f"{', '.join(unknown) or 'none'} will not do."
        )
    client = await put_client(session, client_id, "machine")
    client.name, client.scopes, client.for_patients = name, sorted(set(scopes)), for_patients
    await session.flush()
    has_one = client.disabled_at is not None or await list_secrets(session, client)
    return client, (None if has_one else await _add_secret(session, client))


async def get_client(session: TenantSession, client_id: str) -> OAuthClient:
    """Raises `ClientNotFound`."""
    client = await session.scalar(
        select(OAuthClient).where(OAuthClient.client_id == client_id).with_for_update()
    )
    if client is None:
        raise ClientNotFound(f"No client is called {client_id!r}; `dermadetect clients list` shows them.")
    return client


async def list_secrets(session: TenantSession, client: OAuthClient) -> Sequence[ClientSecret]:
    """A client's secrets, the oldest first."""
    query = select(ClientSecret).where(ClientSecret.client_id == client.id).order_by(ClientSecret.id)
    return (await session.scalars(query)).all()


async def rotate(database: Database, tenant: TenantScope, client_id: str, *, at_once: bool) -> str:
    """A new secret of a machine client, told this once. The one before holds until the next rotation, or `at_once`
    no more. Raises `ClientNotFound`, `NotAMachine`."""
    async with database.tenant(tenant) as session:
        client = await get_client(session, client_id)
        if client.kind != "machine":
            raise NotAMachine(f"{client_id!r} is an app, which proves itself by PKCE.")
        secret = await _add_secret(session, client)
        kept = await list_secrets(session, client)
        audit(session, None, "client.rotated", client.id, at_once=at_once, operator=operator())
    await _withdraw(database, tenant, kept[: -1 if at_once else -SECRETS_AT_ONCE])
    return secret


async def disable(database: Database, tenant: TenantScope, client_id: str) -> None:
    """Refuse a client and whatever was issued for it. Its secrets are forgotten. Idempotent, and finishes what was
    interrupted. Raises `ClientNotFound`."""
    async with database.tenant(tenant) as session:
        client = await get_client(session, client_id)
        dropped = await list_secrets(session, client)
        if client.disabled_at is None:
            client.disabled_at = utcnow()
            audit(session, None, "client.disabled", client.id, operator=operator())
    await _withdraw(database, tenant, dropped)
    await end_sessions_through(database, tenant, client.id, operator(), "client-disabled")


async def enable(database: Database, tenant: TenantScope, client_id: str) -> str | None:
    """Admit a disabled client again. Returns the new secret of a machine, told this once. Idempotent. Raises
    `ClientNotFound`."""
    async with database.tenant(tenant) as session:
        client = await get_client(session, client_id)
        if client.disabled_at is None:
            return None
        client.disabled_at = None
        audit(session, None, "client.enabled", client.id, operator=operator())
        return await _add_secret(session, client) if client.kind == "machine" else None


async def remove(database: Database, tenant: TenantScope, client_id: str) -> None:
    """Disable a client and forget it, with the sign-ins through it. Raises `ClientNotFound`."""
    await disable(database, tenant, client_id)
    async with database.tenant(tenant) as session:
        client = await get_client(session, client_id)
        sessions = select(SignInSession.id).where(SignInSession.client_id == client.id)
        await session.execute(delete(RefreshToken).where(RefreshToken.session_id.in_(sessions)))
        for table in (AuthorizationCode, LoginRequest, SignInSession):
            await session.execute(delete(table).where(table.client_id == client.id))
        await session.delete(client)
        audit(session, None, "client.removed", client.id, client_id=client_id, operator=operator())


async def _add_secret(session: TenantSession, client: OAuthClient) -> str:
    secret = PREFIX + secrets.token_urlsafe(32)
    session.add(ClientSecret(id=new_id(), client_id=client.id, secret_hash=hash_secret(secret)))
    await session.flush()
    return secret


async def _withdraw(database: Database, tenant: TenantScope, dropped: Sequence[ClientSecret]) -> None:
    """Refuse the tokens that were issued for these secrets, then forget them: if interrupted, they are still found."""
    if not dropped:
        return
    async with database.control() as control:
        until = utcnow() + LONGEST_TOKEN
        await revoke_sessions(control, tenant.key, {each.id: until for each in dropped})
    async with database.tenant(tenant) as session:
        await session.execute(delete(ClientSecret).where(ClientSecret.id.in_([each.id for each in dropped])))
