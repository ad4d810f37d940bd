"""Tokens given back by who got them (RFC 7009)."""

from datetime import UTC, datetime

from auth.oauth.errors import OAuthError
from auth.oauth.grants import find_refresh_token
from auth.oauth.machines import authenticate
from auth.oauth.models import OAuthClient
from auth.people.models import SignInSession
from auth.people.service import end_session
from auth.tokens.errors import TokenRefused
from auth.tokens.service import TokenVerifier, claims_of
from core.database import Database
from core.ids import UUID
from tenants.directory.cache import TenantRecord
from tenants.directory.service import revoke_sessions


async def withdraw(
    database: Database,
    tokens: TokenVerifier,
    tenant: TenantRecord,
    origin: str,
    *,
    token: str,
    client_id: str,
    secret: str,
) -> None:
    """End the sign-in session of a refresh or access token; of a machine client's own token, that token alone.

    A token that does not hold is as good as withdrawn. Raises `OAuthError` for one of another client, and
    `InvalidClient` for a machine client that does not prove itself.
    """
    async with database.tenant(tenant.scope) as session:
        machine = (await authenticate(session, client_id, secret))[0].id if secret else None
        line = await find_refresh_token(session, token)
    if line is not None:
        session_id, subject = line.session_id, None
    else:
        try:
            principal = await tokens.verify(token, tenant, origin)
        except TokenRefused:
            return
        session_id, subject = principal.session, principal.subject
    if machine is not None and subject == machine:
        expires_at = datetime.fromtimestamp(claims_of(token)["exp"], UTC)
        async with database.control() as control:
            await revoke_sessions(control, tenant.scope.key, {session_id: expires_at})
        return
    await _check_client(database, tenant, session_id, client_id, machine)
    await end_session(database, tenant.scope, session_id, None, "token-revoked")


async def _check_client(
    database: Database, tenant: TenantRecord, session_id: UUID, client_id: str, machine: UUID | None
) -> None:
    """Raise `OAuthError` unless the session is one of this client's."""
    async with database.tenant(tenant.scope) as session:
        found = await session.get(SignInSession, session_id)
        owner = await session.get_one(OAuthClient, found.client_id) if found else None
    if owner is None or owner.client_id != client_id or (owner.kind == "machine") != (machine is not None):
        raise OAuthError("unauthorized_client", "This token was given to another client.")
