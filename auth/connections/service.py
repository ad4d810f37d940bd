"""Signing in through a tenant's identity providers: how it begins and ends, whatever the protocol.

A protocol's own service begins with `remember` and ends with `spend_request` and `enter`, inside
`refusals_recorded`.
"""

import hmac
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self
from uuid import UUID

from sqlalchemy import select

from auth.connections.domains import domain_of
from auth.connections.errors import NoConnection, SignInRefused, UnknownRequest
from auth.connections.keeping import Said, keep
from auth.connections.models import Connection
from auth.connections.refusals import REFUSED
from auth.keys.service import DataKey
from auth.oauth.models import LoginRequest
from auth.oauth.service import LOGIN_LIFE, answer_url, hash_secret, make_code
from auth.people.service import admit, sign_in
from core.clock import utcnow
from core.database import Database, TenantScope
from tenants.audit.service import audit
from tenants.directory.models import Tenant
from tenants.plans.service import limit_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SignIn:
    """The tenant a sign-in is for, with its home origin: never the Host header's."""

    tenant: TenantScope
    origin: str


@dataclass(frozen=True)
class Asked:
    """What a client app asked for: its row's id, and where and how to answer it. Or, of no app, an invitation that is
    to be accepted."""

    client_id: UUID | None
    redirect_uri: str
    code_challenge: str
    state: str | None
    scope: str
    invitation_id: UUID | None = None

    @classmethod
    def by_invitation(cls, invitation_id: UUID) -> Self:
        return cls(None, "", "", None, "", invitation_id)


@dataclass(frozen=True)
class Asserted:
    """Whom an identity provider vouches for. `external_id` is what it always calls them; `session` is its own name for
    this sign-in, if any, by which it will say that it has ended. `email` is None unless the provider vouches for it.
    `said` is what the provider said, as the protocol can read it again."""

    external_id: str
    email: str | None
    display_name: str | None
    groups: Sequence[str]
    said: Said = field(repr=False)
    session: str | None = None


async def enabled_connections(database: Database, tenant: TenantScope) -> Sequence[Connection]:
    """The tenant's connections that are in use, by name."""
    async with database.control() as session:
        query = (
            select(Connection)
            .join(Tenant, Tenant.id == Connection.tenant_id)
            .where(Tenant.key == tenant.key, Connection.enabled)
        )
        return (await session.scalars(query.order_by(Connection.name))).all()


def open_to(connections: Sequence[Connection], email: str) -> list[Connection]:
    """The connection of the address's domain, or else all that are of no domain."""
    domain = domain_of(email)
    own = [each for each in connections if domain in each.email_domains]
    return own or [each for each in connections if not each.email_domains]


def choose(connections: Sequence[Connection], name: str, login_hint: str) -> Connection | None:
    """The connection called `name`, or of the e-mail domain of `login_hint`, or the only one; None where that leaves
    a choice. Raises `NoConnection`."""
    if not connections:
        raise NoConnection(
            "Single sign-on is not set up yet; an administrator runs `dermadetect sso saml set` or `sso oidc set`."
        )
    if name:
        connections = [each for each in connections if each.name == name]
        if not connections:
            raise NoConnection("No connection of this name is in use here.")
    elif hinted := [each for each in connections if domain_of(login_hint) in each.email_domains]:
        connections = hinted
    return connections[0] if len(connections) == 1 else None


async def remember(
    database: Database,
    where: SignIn,
    connection: Connection,
    asked: Asked,
    *,
    relay_secret: str,
    browser_secret: str,
    request_id: str = "",
) -> None:
    """Keep a sign-in that the browser now takes to the identity provider. The provider will return `relay_secret`,
    and the browser's cookie `browser_secret`; both are kept as hashes."""
    async with database.tenant(where.tenant) as session:
        session.add(
            LoginRequest(
                connection_id=connection.id,
                client_id=asked.client_id,
                invitation_id=asked.invitation_id,
                redirect_uri=asked.redirect_uri,
                code_challenge=asked.code_challenge,
                state=asked.state,
                scope=asked.scope,
                relay_hash=hash_secret(relay_secret),
                browser_hash=hash_secret(browser_secret),
                request_id=request_id,
                expires_at=utcnow() + LOGIN_LIFE,
            )
        )


async def spend_request(
    database: Database, tenant: TenantScope, relay_secret: str, browser_secret: str
) -> LoginRequest:
    """Use up the sign-in that this browser started. One that somebody else tries to finish is not used up. Raises
    `SignInRefused`."""
    async with database.tenant(tenant) as session:
        login = await session.scalar(
            select(LoginRequest).where(LoginRequest.relay_hash == hash_secret(relay_secret)).with_for_update()
        )
        if login is None:
            raise UnknownRequest("login.unknown-request", "no sign-in of this tenant waits for this response")
        if not hmac.compare_digest(login.browser_hash, hash_secret(browser_secret)):
            raise SignInRefused("login.other-browser", "another browser started this sign-in")
        if login.used_at is not None:
            raise SignInRefused("login.used-request", "this sign-in has had its response")
        if login.expires_at <= utcnow():
            raise SignInRefused("login.expired", "the sign-in took longer than ten minutes")
        login.used_at = utcnow()
    return login


@asynccontextmanager
async def refusals_recorded(database: Database, tenant: TenantScope) -> AsyncIterator[None]:
    """Write a refused sign-in's check to the operator's log and to the tenant's audit log."""
    try:
        yield
    except SignInRefused as refusal:
        log.warning("sign-in refused", extra={"check": refusal.check_id})
        # Anybody can send what nobody waits for; it must not fill a log that only grows.
        if not isinstance(refusal, UnknownRequest):
            async with database.tenant(tenant) as session:
                audit(session, None, REFUSED, check=refusal.check_id)
        raise


def mapped_roles(connection: Connection, groups: Sequence[str]) -> list[str]:
    """The roles that a connection gives to somebody in `groups`, sorted."""
    mapped = {connection.role_mapping[group] for group in groups if group in connection.role_mapping}
    return sorted(mapped.union(connection.default_roles))


async def enter(
    database: Database,
    where: SignIn,
    connection: Connection,
    login: LoginRequest,
    person: Asserted,
    data_key: DataKey,
) -> str:
    """Sign in whom the identity provider vouches for, and keep what it said under the tenant's `data_key`; where to send
    the browser with its code, or once an invitation is accepted. Raises `SignInRefused`."""
    async with database.control() as control:
        seat_limit = await limit_of(control, where.tenant, "seats")
    known_as: dict[str, Any] = {
        "connection": connection,
        "external_id": person.external_id,
        "email": await _believed(database, where.tenant, connection, person.email),
        "display_name": person.display_name,
        "roles": mapped_roles(connection, person.groups),
        "seat_limit": seat_limit,
    }
    async with database.tenant(where.tenant) as session:
        if login.client_id is None:
            user = await admit(session, invitation_id=login.invitation_id, **known_as)
            audit(session, user.id, "user.accepted", user.id, connection=connection.name)
            return f"{where.origin}/auth/invitation"
        started = await sign_in(
            session, client_id=login.client_id, provider_session=person.session, **known_as
        )
        audit(session, started.user_id, "sign-in", started.id, connection=connection.name)
        await keep(session, data_key, connection, started.user_id, person.said)
        code = await make_code(session, login, started)
    return answer_url(login.redirect_uri, login.state, where.origin, code=code)


async def _believed(
    database: Database, tenant: TenantScope, connection: Connection, email: str | None
) -> str | None:
    """The address, unless another connection speaks for its domain: else any provider of a tenant's could sign in whom
    it likes as somebody who was invited."""
    if email is None:
        return None
    others = (
        select(Connection.id)
        .join(Tenant, Tenant.id == Connection.tenant_id)
        .where(
            Tenant.key == tenant.key,
            Connection.id != connection.id,
            Connection.email_domains.contains([domain_of(email)]),
        )
    )
    async with database.control() as session:
        return email if await session.scalar(others.limit(1)) is None else None
