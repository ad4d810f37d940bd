"""Signing in through a tenant's SAML identity provider."""

import hmac
import logging
import secrets
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert

from auth.keys.service import KeyRing
from auth.oauth.models import LoginRequest
from auth.oauth.service import LOGIN_LIFE, answer_url, hash_secret, make_code
from auth.people.service import sign_in
from auth.roles import ROLES
from auth.saml.errors import NoConnection, SamlRefused, UnknownRequest
from auth.saml.models import SamlConnection, UsedAssertion
from auth.saml.parties import IdentityProvider, ServiceProvider
from auth.saml.request import authn_request_url
from auth.saml.validation import AssertedIdentity, validate_response
from core.clock import utcnow
from core.database import ControlSession, Database, TenantScope, TenantSession
from core.ids import UUID, new_id
from core.jail import Jail, JailCrash, JailTimeout
from core.problems import Invalid
from tenants.audit.service import audit, record
from tenants.directory.models import Tenant
from tenants.directory.service import find_tenant, next_epoch

log = logging.getLogger(__name__)

VALIDATION_LIMIT_S = 3.0
CLOCK_SKEW = timedelta(minutes=5)  # what python3-saml allows; a used assertion is remembered that much longer


TRANSIENT = "urn:oasis:names:tc:SAML:2.0:nameid-format:transient"  # SAML Core 2.0, 8.3.8


class BadConnection(Invalid):
    slug, title = "bad-connection", "Not a usable identity provider"


class SignInJail(Jail):
    """Workers for identity providers' responses alone: anybody can send one, and must not hold up the clinic."""


@dataclass(frozen=True)
class SignIn:
    """The tenant a sign-in is for, with its home origin: never the Host header's."""

    tenant: TenantScope
    origin: str


def entity_id(origin: str) -> str:
    """The service provider's name, which is also where its metadata is."""
    return f"{origin}/auth/saml/metadata"


def service_provider(origin: str, private_pem: str, certificate_pem: str) -> ServiceProvider:
    return ServiceProvider(
        entity_id=entity_id(origin),
        acs_url=f"{origin}/auth/saml/acs",
        private_key_pem=private_pem,
        certificate_pem=certificate_pem,
    )


async def set_connection(
    session: ControlSession,
    slug: str,
    *,
    idp_entity_id: str,
    sso_url: str,
    certificates: list[str],
    role_mapping: dict[str, str],
) -> SamlConnection:
    """Name a tenant's identity provider and what its groups may do. Raises `BadConnection`."""
    unknown = sorted(set(role_mapping.values()) - set(ROLES))
    if unknown:
        raise BadConnection(f"No role is called {', '.join(unknown)}; there are {', '.join(ROLES)}.")
    if not certificates:
        raise BadConnection("Give at least one signing certificate of the identity provider.")
    if not sso_url.startswith(("https://", "http://127.0.0.1", "http://localhost")):
        raise BadConnection("The sign-in address must be https (http only on loopback).")
    tenant = await find_tenant(session, slug, lock=True)
    connection = await find_connection(session, tenant)
    if connection is None:
        connection = SamlConnection(tenant_id=tenant.id)
        session.add(connection)
    connection.idp_entity_id, connection.sso_url = idp_entity_id, sso_url
    connection.certificates, connection.role_mapping = certificates, dict(role_mapping)
    connection.email_attribute, connection.name_attribute = "email", "displayName"
    connection.groups_attribute = "groups"
    tenant.epoch = await next_epoch(session)
    record(session, tenant, "sso.saml.set", idp=idp_entity_id)
    await session.flush()
    return connection


async def find_connection(session: ControlSession, tenant: Tenant) -> SamlConnection | None:
    """The tenant's identity provider, if one is named."""
    connection: SamlConnection | None = await session.scalar(
        select(SamlConnection).where(SamlConnection.tenant_id == tenant.id)
    )
    return connection


async def _connection(database: Database, tenant: TenantScope) -> SamlConnection:
    async with database.control() as session:
        connection = await session.scalar(
            select(SamlConnection)
            .join(Tenant, Tenant.id == SamlConnection.tenant_id)
            .where(Tenant.key == tenant.key)
        )
    if connection is None:
        raise NoConnection(
            "Single sign-on is not set up yet; an administrator runs `dermadetect sso saml set`."
        )
    return connection


def _identity_provider(connection: SamlConnection) -> IdentityProvider:
    return IdentityProvider(connection.idp_entity_id, connection.sso_url, tuple(connection.certificates))


async def begin(
    database: Database,
    keys: KeyRing,
    where: SignIn,
    *,
    client_id: UUID,
    redirect_uri: str,
    code_challenge: str,
    state: str | None,
    scope: str,
    browser_secret: str,
) -> str:
    """Remember a sign-in and return the identity provider's URL to send the browser to. Raises `NoConnection`."""
    connection = await _connection(database, where.tenant)
    key = await keys.saml_key(where.tenant)
    relay_state = secrets.token_urlsafe(32)
    url, request_id = authn_request_url(
        service_provider(where.origin, key.private_pem, key.certificate_pem),
        _identity_provider(connection),
        relay_state,
    )
    async with database.tenant(where.tenant) as session:
        session.add(
            LoginRequest(
                client_id=client_id,
                redirect_uri=redirect_uri,
                code_challenge=code_challenge,
                state=state,
                scope=scope,
                relay_hash=hash_secret(relay_state),
                browser_hash=hash_secret(browser_secret),
                saml_request_id=request_id,
                expires_at=utcnow() + LOGIN_LIFE,
            )
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

    Raises `SamlRefused`, after writing the failed check to the tenant's audit log.
    """
    try:
        login = await _spend_request(database, where.tenant, relay_state, browser_secret)
        connection = await _connection(database, where.tenant)
        key = await keys.saml_key(where.tenant)
        identity = await _validate(
            jail,
            saml_response,
            service_provider(where.origin, key.private_pem, key.certificate_pem),
            _identity_provider(connection),
            login.saml_request_id,
        )
        return await _enter(database, where, connection, login, identity)
    except UnknownRequest as refusal:
        # Anybody can send one; it must not fill a log that only grows.
        log.warning("sign-in refused", extra={"check": refusal.check_id})
        raise
    except SamlRefused as refusal:
        log.warning("sign-in refused", extra={"check": refusal.check_id})
        async with database.tenant(where.tenant) as session:
            audit(session, None, "sign-in.refused", check=refusal.check_id)
        raise


async def _spend_request(
    database: Database, tenant: TenantScope, relay_state: str, browser_secret: str
) -> LoginRequest:
    """Use up the sign-in that this browser started. One that somebody else tries to finish is not used up."""
    async with database.tenant(tenant) as session:
        login = await session.scalar(
            select(LoginRequest).where(LoginRequest.relay_hash == hash_secret(relay_state)).with_for_update()
        )
        if login is None:
            raise UnknownRequest("login.unknown-request", "no sign-in of this tenant waits for this response")
        if not hmac.compare_digest(login.browser_hash, hash_secret(browser_secret)):
            raise SamlRefused("login.other-browser", "another browser started this sign-in")
        if login.used_at is not None:
            raise SamlRefused("login.used-request", "this sign-in has had its response")
        if login.expires_at <= utcnow():
            raise SamlRefused("login.expired", "the sign-in took longer than ten minutes")
        login.used_at = utcnow()
    return login


async def _validate(
    jail: SignInJail, response: str, sp: ServiceProvider, idp: IdentityProvider, request_id: str
) -> AssertedIdentity:
    try:
        return await jail.run(VALIDATION_LIMIT_S, validate_response, response, sp, idp, request_id)
    except JailTimeout:
        raise SamlRefused("saml.too-slow", "checking the response took too long") from None
    except JailCrash:
        raise SamlRefused("saml.crashed", "checking the response failed") from None


async def _enter(
    database: Database,
    where: SignIn,
    connection: SamlConnection,
    login: LoginRequest,
    identity: AssertedIdentity,
) -> str:
    if identity.name_id_format == TRANSIENT:
        # A name that is new at every sign-in would make a new person each time.
        raise SamlRefused("login.transient-name-id", "the identity provider must send a persistent NameID")
    groups = identity.attributes.get(connection.groups_attribute, [])
    roles = sorted({connection.role_mapping[group] for group in groups if group in connection.role_mapping})
    if not roles:
        raise SamlRefused("login.no-role", "none of the person's groups is mapped to a role")
    email = next(iter(identity.attributes.get(connection.email_attribute, [])), None)
    name = next(iter(identity.attributes.get(connection.name_attribute, [])), None)
    await _use_assertion(database, where.tenant, identity)
    async with database.tenant(where.tenant) as session:
        started = await sign_in(
            session,
            connection=identity.issuer,
            external_id=identity.name_id,
            email=email,
            display_name=name or email or identity.name_id,
            roles=roles,
            client_id=login.client_id,
        )
        if started is None:
            raise SamlRefused("login.deactivated", "the person was deactivated here")
        audit(session, started.user_id, "sign-in", started.id)
        code = await make_code(session, login, started)
    return answer_url(login.redirect_uri, login.state, where.origin, code=code)


async def _use_assertion(database: Database, tenant: TenantScope, identity: AssertedIdentity) -> None:
    """Remember an assertion, in a transaction of its own: a refusal that follows does not make it new again."""
    async with database.tenant(tenant) as session:
        first_use = await session.scalar(
            insert(UsedAssertion)
            .values(
                id=new_id(),
                assertion_id=identity.assertion_id,
                expires_at=identity.not_on_or_after + 2 * CLOCK_SKEW,
            )
            .on_conflict_do_nothing()
            .returning(UsedAssertion.id)
        )
    if first_use is None:
        raise SamlRefused("saml.replay", "this assertion has signed somebody in before")


async def forget_expired_assertions(session: TenantSession) -> None:
    """Delete assertion ids that could not be used again anyway."""
    await session.execute(delete(UsedAssertion).where(UsedAssertion.expires_at < utcnow()))
