"""Signing out at both sides (SAML 2.0 profiles 4.4): the person's own sign-out is told to the identity provider, and the
provider's ends the person's sessions here."""

from sqlalchemy import delete, select

from auth.connections.models import Connection
from auth.connections.service import SignIn
from auth.keys.service import KeyRing
from auth.people.models import SignInSession, User
from auth.people.service import end_provider_sessions
from auth.saml.errors import SamlRefused
from auth.saml.logout_messages import (
    LIFE,
    Arrived,
    LogoutRequest,
    Name,
    logout_request_url,
    logout_response_url,
    read_logout_request,
    read_logout_response,
    relay_state_of,
)
from auth.saml.models import SamlLogout, SamlName
from auth.saml.service import (
    SignInJail,
    identity_provider,
    saml_connections,
    service_provider,
    use_id,
)
from core.clock import utcnow
from core.database import Database, TenantSession
from core.ids import UUID


async def begin_logout(database: Database, keys: KeyRing, where: SignIn, session_id: UUID) -> str | None:
    """Where to send the browser of somebody whose session has ended here, so that it ends at the identity provider, too;
    None where that is not wanted, or the session began otherwise."""
    query = (
        select(SignInSession.connection_id, SignInSession.provider_session, SamlName)
        .join(User, User.id == SignInSession.user_id)
        .join(
            SamlName,
            (SamlName.connection_id == SignInSession.connection_id) & (SamlName.name_id == User.external_id),
        )
        .where(SignInSession.id == session_id)
    )
    async with database.tenant(where.tenant) as session:
        row = (await session.execute(query)).one_or_none()
    if row is None:
        return None
    connection_id, session_index, name = row
    found = await saml_connections(database, where.tenant, Connection.id == connection_id)
    if not found or not found[0][1].logout_url:
        return None
    key = await keys.saml_key(where.tenant)
    url, request_id = logout_request_url(
        service_provider(where.origin, key.private_pem, key.certificate_pem),
        identity_provider(found[0][1]),
        Name(name.name_id, name.format, name.qualifier, name.sp_qualifier),
        session_index,
    )
    async with database.tenant(where.tenant) as session:
        session.add(SamlLogout(request_id=request_id, expires_at=utcnow() + LIFE))
    return url


async def answer_logout(
    database: Database, keys: KeyRing, jail: SignInJail, where: SignIn, arrived: Arrived, relay_state: str
) -> str | None:
    """Do an identity provider's LogoutRequest: the sessions end here, in every process within a second. Returns where
    to tell it so, if it says where. Raises `SamlRefused`."""
    key = await keys.saml_key(where.tenant)
    sp = service_provider(where.origin, key.private_pem, key.certificate_pem)
    connections = await saml_connections(database, where.tenant)
    idps = tuple(identity_provider(row) for _, row in connections)
    asked: LogoutRequest = await jail.check(read_logout_request, arrived, sp, idps)
    if not await use_id(database, where.tenant, asked.id, asked.expires_at):
        raise SamlRefused("saml.replay", "this LogoutRequest was done before")
    trusted = [(connection, row) for connection, row in connections if row.idp_entity_id == asked.issuer]
    await end_provider_sessions(
        database,
        where.tenant,
        [connection.id for connection, _ in trusted],
        asked.name_id,
        asked.session_indexes,
        "the identity provider signed the person out",
    )
    url = next((row.logout_response_url or row.logout_url for _, row in trusted), None)
    if arrived.query is not None:
        relay_state = relay_state_of(arrived.query)
    return logout_response_url(sp, url, asked.id, relay_state) if url else None


async def finish_logout(
    database: Database, keys: KeyRing, jail: SignInJail, where: SignIn, arrived: Arrived
) -> bool:
    """Whether the identity provider, in answer to our LogoutRequest, says that the person is signed out there. Raises
    `SamlRefused`."""
    key = await keys.saml_key(where.tenant)
    sp = service_provider(where.origin, key.private_pem, key.certificate_pem)
    idps = tuple(identity_provider(row) for _, row in await saml_connections(database, where.tenant))
    request_id, everywhere = await jail.check(read_logout_response, arrived, sp, idps)
    async with database.tenant(where.tenant) as session:
        waiting = (
            delete(SamlLogout)
            .where(SamlLogout.request_id == request_id, SamlLogout.expires_at > utcnow())
            .returning(SamlLogout.id)
        )
        if await session.scalar(waiting) is None:
            raise SamlRefused("login.unknown-request", "no sign-out of this tenant waits for this response")
    return everywhere


async def forget_logouts(session: TenantSession) -> None:
    """Delete sign-outs that the identity provider never answered."""
    await session.execute(delete(SamlLogout).where(SamlLogout.expires_at < utcnow()))
