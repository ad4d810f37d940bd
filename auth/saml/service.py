"""Signing in through a tenant's SAML identity provider."""

import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, ParamSpec, TypeVar

from sqlalchemy import ColumnElement, delete, select
from sqlalchemy.dialects.postgresql import insert

from auth.connections.errors import BadConnection
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
from auth.connections.settings import find_connection, new_connection, put_connection
from auth.keys.service import KeyRing
from auth.saml.errors import SamlRefused
from auth.saml.idp_metadata import check_address
from auth.saml.models import SamlConnection, SamlName, UsedAssertion
from auth.saml.parties import IdentityProvider, ServiceProvider
from auth.saml.request import authn_request_url
from auth.saml.validation import AssertedIdentity, validate_response
from core.clock import utcnow
from core.database import ControlSession, Database, TenantScope, TenantSession
from core.ids import UUID, new_id
from core.jail import Jail, JailCrash, JailTimeout
from tenants.directory.models import Tenant
from tenants.directory.service import find_tenant

P = ParamSpec("P")
T = TypeVar("T")

VALIDATION_LIMIT_S = 3.0
CLOCK_SKEW = timedelta(minutes=5)  # what python3-saml allows; a used assertion is remembered that much longer


POLICIES = (
    *("require_encryption", "allow_cbc", "refuse_expired_certificates"),
    *("allow_idp_initiated", "idp_initiated_client"),
)
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


async def set_connection(
    session: ControlSession,
    slug: str,
    *,
    name: str = "main",
    idp_entity_id: str,
    sso_url: str,
    certificates: list[str],
    role_mapping: dict[str, str] | None = None,
    common: Mapping[str, Any] = {},
    **particulars: Any,
) -> Connection:
    """Name a tenant's identity provider and what its groups may do; `common` are columns of `Connection` and
    `particulars` of `SamlConnection` beyond. What is not named stays as it was. Raises `BadConnection`.

    Another provider under the same name is another connection to the people: what it calls them means nothing of
    whom the former one called so.
    """
    if not certificates:
        raise BadConnection("Give at least one signing certificate of the identity provider.")
    tenant = await find_tenant(session, slug, lock=True)
    connection = await find_connection(session, tenant, name, "saml")
    if connection is None:
        connection = new_connection(
            tenant, name, "saml", groups="groups", email="email", full_name="displayName"
        )
    row = await session.get(SamlConnection, (tenant.id, connection.id))
    if row is not None and row.idp_entity_id != idp_entity_id:
        particulars = {policy: getattr(row, policy) for policy in POLICIES} | particulars
        await session.delete(row)
        await session.flush()
        row, connection.id = None, new_id()
    await put_connection(session, tenant, connection, **{"role_mapping": role_mapping, **common})
    if row is None:
        row = SamlConnection(tenant_id=tenant.id, id=connection.id)
        session.add(row)
    particulars |= {"idp_entity_id": idp_entity_id, "sso_url": sso_url, "certificates": certificates}
    _set_particulars(row, particulars)
    await session.flush()
    return connection


async def change_connection(
    session: ControlSession,
    slug: str,
    name: str,
    *,
    common: Mapping[str, Any],
    particulars: Mapping[str, Any],
) -> Connection:
    """Change what is named of a connection that is there, and leave its identity provider. Raises `BadConnection`."""
    tenant = await find_tenant(session, slug, lock=True)
    found = await find_saml(session, tenant, name)
    if found is None:
        raise BadConnection("There is no such connection yet: give the identity provider's metadata.")
    connection, row = found
    await put_connection(session, tenant, connection, **common)
    _set_particulars(row, particulars)
    await session.flush()
    return connection


def _set_particulars(row: SamlConnection, particulars: Mapping[str, Any]) -> None:
    for column, value in particulars.items():
        setattr(row, column, value)
    for url in (row.sso_url, row.logout_url, row.logout_response_url):
        check_address(url)
    if row.allow_idp_initiated and not row.idp_initiated_client:
        raise BadConnection("Say in which client app a sign-in ends that begins at the identity provider.")


async def find_saml(
    session: ControlSession, tenant: Tenant, name: str
) -> tuple[Connection, SamlConnection] | None:
    """The tenant's SAML connection of this name, if there is one. Raises `BadConnection`."""
    connection = await find_connection(session, tenant, name, "saml")
    if connection is None:
        return None
    return connection, await session.get_one(SamlConnection, (tenant.id, connection.id))


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
    database: Database, tenant: TenantScope, connection_id: UUID
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
        login = await spend_request(database, where.tenant, relay_state, browser_secret)
        connection, row = await _connection(database, where.tenant, login.connection_id)
        identity = await _validate(jail, keys, where, saml_response, row, login.request_id)
        person = _person(connection, identity)
        await use_assertion(database, where.tenant, identity)
        if row.logout_url:
            await _remember_name(database, where.tenant, connection, identity)
        return await enter(database, where, connection, login, person)


async def _validate(
    jail: SignInJail, keys: KeyRing, where: SignIn, response: str, row: SamlConnection, request_id: str
) -> AssertedIdentity:
    key = await keys.saml_key(where.tenant)
    sp = service_provider(
        where.origin,
        key.private_pem,
        key.certificate_pem,
        other_keys=key.others,
        require_encryption=row.require_encryption,
    )
    return await jail.check(validate_response, response, sp, identity_provider(row), request_id)


def _person(connection: Connection, identity: AssertedIdentity) -> Asserted:
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
