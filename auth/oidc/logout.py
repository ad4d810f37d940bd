"""Signing out at both sides: the person's own sign-out goes on to the provider (OpenID Connect RP-Initiated Logout 1.0), and
the provider's ends the person's sessions here (Back-Channel Logout 1.0)."""

from datetime import timedelta
from urllib.parse import urlencode, urlsplit
from uuid import UUID

from sqlalchemy import select

from auth.connections.models import Connection
from auth.oidc.errors import OidcRefused
from auth.oidc.models import OidcConnection
from auth.oidc.provider import Providers
from auth.oidc.service import trusted
from auth.oidc.tokens import read_logout_token
from auth.people.models import SignInSession, User
from auth.people.service import end_provider_sessions
from auth.saml.service import use_id
from core.clock import utcnow
from core.database import Database, TenantScope
from core.problems import Problem
from tenants.directory.models import Tenant

REMEMBERED = timedelta(days=1)  # longer than a logout token is taken


async def end_session_url(
    database: Database, providers: Providers, tenant: TenantScope, session_id: UUID
) -> str | None:
    """Where to send the browser of somebody whose session has ended here, so that it ends at the OpenID provider, too;
    None where the provider offers nothing of the kind or cannot be asked, or the session began otherwise."""
    async with database.tenant(tenant) as session:
        connection_id = await session.scalar(
            select(SignInSession.connection_id).where(SignInSession.id == session_id)
        )
    query = (
        select(OidcConnection)
        .join(Tenant, Tenant.id == OidcConnection.tenant_id)
        .where(Tenant.key == tenant.key, OidcConnection.id == connection_id)
    )
    async with database.control() as control:
        particulars = await control.scalar(query)
    if particulars is None:
        return None
    try:
        endpoint = (await providers.find(particulars.issuer)).end_session_endpoint
    except Problem:  # here the session has ended all the same
        return None
    if endpoint is None:
        return None
    separator = "&" if urlsplit(endpoint).query else "?"
    return f"{endpoint}{separator}{urlencode({'client_id': particulars.client_id})}"


async def end_by_provider(
    database: Database, providers: Providers, tenant: TenantScope, name: str, token: str
) -> int:
    """End the sessions that a logout token of the provider of the connection `name` tells of; returns how many. Raises
    `OidcRefused`, which is logged and not audited: anybody can send one."""
    connection, particulars = await trusted(database, tenant, Connection.name == name)
    provider = await providers.find(particulars.issuer)
    claims = await read_logout_token(providers, provider, token, client_id=particulars.client_id)
    if not await use_id(database, tenant, f"oidc:{connection.id}:{claims['jti']}", utcnow() + REMEMBERED):
        raise OidcRefused("oidc.logout-replay", "the logout token has been used")
    people = (
        select(User.external_id)
        .join(SignInSession, SignInSession.user_id == User.id)
        .where(User.connection_id == connection.id, SignInSession.connection_id == connection.id)
        .distinct()
    )
    if "sub" in claims:
        people = people.where(User.external_id == claims["sub"])
    if "sid" in claims:
        people = people.where(SignInSession.provider_session == claims["sid"])
    async with database.tenant(tenant) as session:
        found = [each for each in await session.scalars(people) if each is not None]
    sessions = [claims["sid"]] if "sid" in claims else []
    return sum(
        [
            await end_provider_sessions(
                database, tenant, [connection.id], each, sessions, "ended at the identity provider"
            )
            for each in found
        ]
    )
