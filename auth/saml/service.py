"""Signing in through a tenant's SAML identity provider."""

import secrets
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import ParamSpec, TypeVar
from urllib.parse import urlencode

from sqlalchemy import ColumnElement, delete, select
from sqlalchemy.dialects.postgresql import insert

from auth.connections.errors import UnknownRequest
from auth.connections.keeping import Said
from auth.connections.models import Connection
from auth.connections.service import (
    Asked,
    Asserted,
    SignIn,
    enter,
    refusals_recorded,
    remember,
    spend_request,
)
from auth.keys.service import KeyRing
from auth.saml.errors import SamlRefused
from auth.saml.models import SamlConnection, SamlName, UsedAssertion
from auth.saml.parties import IdentityProvider, ServiceProvider
from auth.saml.request import authn_request_url
from auth.saml.validation import AssertedIdentity, validate_response
from core.clock import utcnow
from core.database import Database, TenantScope, TenantSession
from core.ids import UUID, new_id
from core.jail import Jail, JailCrash, JailTimeout
from tenants.audit.service import audit
from tenants.directory.models import Tenant

P = ParamSpec("P")
T = TypeVar("T")

VALIDATION_LIMIT_S = 3.0
CLOCK_SKEW = timedelta(minutes=5)  # what python3-saml allows; a used assertion is remembered that much longer


TRANSIENT = "urn:oasis:names:tc:SAML:2.0:nameid-format:transient"  # SAML Core 2.0, 8.3.8


class SignInJail(Jail):
    """Workers for identity providers' responses alone: anybody can send one, and must not hold up the clinic."""

    async def check(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of a function that reads a SAML message. Raises `SamlRefused`."""
        try:
            return await self.run(VALIDATION_LIMIT_S, function, *args, **kwargs)
        except JailTimeout:
            raise SamlRefused("saml.too-slow", "checking the message took too long") from None
        except JailCrash:
            raise SamlRefused("saml.crashed", "checking the message failed") from None


def entity_id(origin: str) -> str:
    """The service provider's name, which is also where its metadata is."""
    return f"{origin}/auth/saml/metadata"


def service_provider(
    origin: str,
    private_pem: str,
    certificate_pem: str,
    *,
    other_keys: tuple[tuple[str, str], ...] = (),
    require_encryption: bool = False,
) -> ServiceProvider:
    return ServiceProvider(
        entity_id=entity_id(origin),
        acs_url=f"{origin}/auth/saml/acs",
        logout_url=f"{origin}/auth/saml/logout",
        private_key_pem=private_pem,
        certificate_pem=certificate_pem,
        other_keys=other_keys,
        require_encryption=require_encryption,
    )


async def saml_connections(
    database: Database, tenant: TenantScope, *which: ColumnElement[bool]
) -> Sequence[tuple[Connection, SamlConnection]]:
    """The tenant's SAML connections that are in use, all or `which`, by name."""
    query = (
        select(Connection, SamlConnection)
        .join(
            SamlConnection,
            (SamlConnection.tenant_id == Connection.tenant_id) & (SamlConnection.id == Connection.id),
        )
        .join(Tenant, Tenant.id == Connection.tenant_id)
        .where(Tenant.key == tenant.key, Connection.enabled, *which)
        .order_by(Connection.name)
    )
    async with database.control() as session:
        return [(connection, row) for connection, row in await session.execute(query)]


async def _connection(
    database: Database, tenant: TenantScope, connection_id: UUID | None
) -> tuple[Connection, SamlConnection]:
    """The connection that a sign-in began with, unless it has been removed or switched off since."""
    found = await saml_connections(database, tenant, Connection.id == connection_id)
    if not found:
        raise SamlRefused("login.connection-removed", "the connection is not in use any more")
    return found[0]


def identity_provider(row: SamlConnection) -> IdentityProvider:
    return IdentityProvider(
        entity_id=row.idp_entity_id,
        sso_url=row.sso_url,
        certificates=tuple(row.certificates),
        logout_url=row.logout_url,
        logout_response_url=row.logout_response_url,
        allow_idp_initiated=row.allow_idp_initiated,
        refuse_expired_certificates=row.refuse_expired_certificates,
        allow_cbc=row.allow_cbc,
    )


async def begin(
    database: Database,
    keys: KeyRing,
    where: SignIn,
    connection: Connection,
    asked: Asked,
    *,
    browser_secret: str,
) -> str:
    """Remember a sign-in and return the identity provider's URL to send the browser to."""
    _, row = await _connection(database, where.tenant, connection.id)
    key = await keys.saml_key(where.tenant)
    relay_state = secrets.token_urlsafe(32)
    sp = service_provider(where.origin, key.private_pem, key.certificate_pem)
    url, request_id = authn_request_url(sp, identity_provider(row), relay_state)
    await remember(
        database,
        where,
        connection,
        asked,
        relay_secret=relay_state,
        browser_secret=browser_secret,
        request_id=request_id,
    )
    return url


async def complete(
    database: Database,
    keys: KeyRing,
    jail: SignInJail,
    where: SignIn,
    *,
    saml_response: str,
    relay_state: str,
    browser_secret: str,
) -> str:
    """Check the identity provider's response and return where to send the browser with its code.

    Raises `SignInRefused`, after writing the failed check to the tenant's audit log.
    """
    async with refusals_recorded(database, where.tenant):
        try:
            login = await spend_request(database, where.tenant, relay_state, browser_secret)
        except UnknownRequest:
            return await _welcome(database, keys, jail, where, saml_response)
        connection, row = await _connection(database, where.tenant, login.connection_id)
        identity = await _validate(jail, keys, where, saml_response, row, login.request_id)
        person = _person(connection, identity, saml_response, login.request_id)
        await use_assertion(database, where.tenant, identity)
        if row.logout_url:
            await _remember_name(database, where.tenant, connection, identity)
        return await enter(database, where, connection, login, person, await keys.data_key(where.tenant))


async def recall(
    jail: SignInJail,
    keys: KeyRing,
    where: SignIn,
    connection: Connection,
    row: SamlConnection,
    said: Said,
    at: datetime,
) -> Asserted:
    """Who it is by a response that was accepted before (`Asserted.said`), checked as of `at` by the connection as it is
    given. Raises `SignInRefused`."""
    response, request_id = said["response"], said["request_id"]
    identity = await _validate(jail, keys, where, response, row, request_id, at)
    return _person(connection, identity, response, request_id)


async def _welcome(
    database: Database, keys: KeyRing, jail: SignInJail, where: SignIn, saml_response: str
) -> str:
    """Where to send somebody who comes from the identity provider unasked, where the tenant allows it: to the client
    app, which then asks, as always. The response signs nobody in. Whoever slips a browser a response of his own would
    else have it work under his name; so it only tells whom the browser's own session at the provider is.

    Raises `UnknownRequest`, whatever the check, since anybody can send such a response.
    """
    refusal = UnknownRequest("login.unknown-request", "no sign-in of this tenant waits for this response")
    allowed = SamlConnection.allow_idp_initiated.is_(True)
    for connection, row in await saml_connections(database, where.tenant, allowed):
        try:
            identity = await _validate(jail, keys, where, saml_response, row, None)
            await use_assertion(database, where.tenant, identity)
        except SamlRefused as refused:
            refusal = UnknownRequest(refused.check_id, refused.explanation)
            continue
        assert row.start_url is not None  # `settings.py` sees to it
        async with database.tenant(where.tenant) as session:
            audit(session, None, "sign-in.from-provider", connection=connection.name)
        separator = "&" if "?" in row.start_url else "?"
        return f"{row.start_url}{separator}{urlencode({'iss': where.origin, 'connection': connection.name})}"
    raise refusal


async def _validate(
    jail: SignInJail,
    keys: KeyRing,
    where: SignIn,
    response: str,
    row: SamlConnection,
    request_id: str | None,
    at: datetime | None = None,
) -> AssertedIdentity:
    key = await keys.saml_key(where.tenant)
    sp = service_provider(
        where.origin,
        key.private_pem,
        key.certificate_pem,
        other_keys=key.others,
        require_encryption=row.require_encryption,
    )
    return await jail.check(validate_response, response, sp, identity_provider(row), request_id, at)


def _person(connection: Connection, identity: AssertedIdentity, response: str, request_id: str) -> Asserted:
    if identity.name_id_format == TRANSIENT:
        # A name that is new at every sign-in would make a new person each time.
        raise SamlRefused("login.transient-name-id", "the identity provider must send a persistent NameID")

    def first(attribute: str) -> str | None:
        return next(iter(identity.attributes.get(attribute, [])), None)

    return Asserted(
        external_id=identity.name_id,
        email=first(connection.email_attribute),
        display_name=first(connection.name_attribute),
        groups=identity.attributes.get(connection.groups_attribute, []),
        session=identity.session_index,
        said={"response": response, "request_id": request_id},
    )


async def use_assertion(database: Database, tenant: TenantScope, identity: AssertedIdentity) -> None:
    """Remember an assertion. Raises `SamlRefused` where it was used before."""
    if not await use_id(database, tenant, identity.assertion_id, identity.not_on_or_after + 2 * CLOCK_SKEW):
        raise SamlRefused("saml.replay", "this assertion has signed somebody in before")


async def use_id(database: Database, tenant: TenantScope, message_id: str, expires_at: datetime) -> bool:
    """Remember a message's id, in a transaction of its own: a refusal that follows does not make it new again. Returns
    whether this is its first use."""
    made = insert(UsedAssertion).values(id=new_id(), assertion_id=message_id, expires_at=expires_at)
    async with database.tenant(tenant) as session:
        first = made.on_conflict_do_nothing().returning(UsedAssertion.id)
        return await session.scalar(first) is not None


async def _remember_name(
    database: Database, tenant: TenantScope, connection: Connection, identity: AssertedIdentity
) -> None:
    """Keep how the provider writes the name, for signing out there."""
    written = {
        "format": identity.name_id_format,
        "qualifier": identity.name_qualifier,
        "sp_qualifier": identity.sp_name_qualifier,
    }
    made = insert(SamlName).values(
        id=new_id(), connection_id=connection.id, name_id=identity.name_id, **written
    )
    async with database.tenant(tenant) as session:
        await session.execute(
            made.on_conflict_do_update(index_elements=["connection_id", "name_id"], set_=written)
        )


async def forget_expired_assertions(session: TenantSession) -> None:
    """Delete assertion ids that could not be used again anyway."""
    await session.execute(delete(UsedAssertion).where(UsedAssertion.expires_at < utcnow()))
