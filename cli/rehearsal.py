"""Sign-ins at a tenant that never happened: the product's own code on its own database, all of it rolled back.

What is real: the tenant's keys, addresses, connection and policies, the jail, every check. What is not: the identity
provider's key, whose certificate takes the place of the customer's inside a transaction that never ends well.
"""

import asyncio
import base64
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from lxml import etree
from sqlalchemy import delete, select, update

from auth.connections.checks import explain
from auth.connections.errors import NoConnection, SignInRefused
from auth.connections.models import Connection
from auth.connections.service import Asked, SignIn, remember, spend_request
from auth.keys.masters import MasterKeys
from auth.keys.service import KeyRing
from auth.oauth.models import LoginRequest, OAuthClient
from auth.oauth.service import hash_secret, register_client
from auth.people.models import User
from auth.saml.models import SamlConnection, UsedAssertion
from auth.saml.request import sp_metadata
from auth.saml.service import (
    SignInJail,
    begin,
    complete,
    identity_provider,
    service_provider,
    use_assertion,
)
from auth.saml.settings import find_saml
from auth.saml.validation import AssertedIdentity, open_response
from cli.sign_in import encoded
from core.clock import utcnow
from core.database import AdminDatabase, ControlSession, Database, TenantScope, TenantSession
from core.ids import UUID
from core.problems import Invalid
from core.settings import Settings
from reference.attacks.scene import DS, Edit, Scene, every
from reference.idp import config as idp_side
from reference.idp.messages import AuthnRequest, read_request, read_sp_metadata
from reference.idp.response import Answer, unsigned_response
from tenants.directory.cache import Directory
from tenants.directory.service import find_tenant

NOWHERE = "https://attack-test.invalid/"


class BadCapture(Invalid):
    slug, title = "bad-capture", "Not a captured response"


class Unsaved(Database):
    """A database whose transactions are savepoints in two that are never committed."""

    def __init__(self, tenant: TenantSession, control: ControlSession) -> None:
        self._tenant, self._shared, self.bells = tenant, control, set()

    @asynccontextmanager
    async def tenant(self, tenant: TenantScope) -> AsyncIterator[TenantSession]:
        assert tenant == self._tenant.tenant
        async with self._tenant.begin_nested():
            yield self._tenant

    @asynccontextmanager
    async def control(self, cell: str = "") -> AsyncIterator[ControlSession]:
        async with self._shared.begin_nested():
            yield self._shared


@dataclass(frozen=True)
class Begun:
    """A sign-in that waits for its response: what the identity provider has read, and the browser's secret."""

    request: AuthnRequest
    browser_secret: str


@dataclass(frozen=True)
class Rehearsal:
    """A tenant to sign in at. `scene` holds the honest response; its request is replaced for each sign-in."""

    database: Unsaved
    keys: KeyRing
    jail: SignInJail
    where: SignIn
    connection: Connection
    idp: SamlConnection
    sp: idp_side.ServiceProvider
    client_id: UUID
    scene: Scene

    async def begin(self) -> Begun:
        """Begin a sign-in, and read its request as the identity provider would: signature, issuer and addresses."""
        secret = secrets.token_urlsafe(32)
        asked = Asked(self.client_id, NOWHERE, "", None, "")
        url = await begin(self.database, self.keys, self.where, self.connection, asked, browser_secret=secret)
        known = {self.sp.entity_id: self.sp}
        return Begun(read_request(urlsplit(url).query, known, self.idp.sso_url), secret)

    def scene_of(self, begun: Begun) -> Scene:
        assert begun.request.id is not None
        return replace(self.scene, request_id=begun.request.id)

    def honest(self, begun: Begun, edit: Edit | None = None) -> bytes:
        """The response of the identity provider, as every policy wants it: encrypted."""
        return self.scene_of(begun).honest(encrypt=True, edit=edit)

    def unknown(self) -> Begun:
        """A sign-in that nobody began."""
        return Begun(AuthnRequest(self.sp, "_unknown", "made up"), "")

    async def let_requests_expire(self) -> None:
        async with self.database.tenant(self.where.tenant) as session:
            await session.execute(update(LoginRequest).values(expires_at=utcnow()))

    async def finish(self, begun: Begun, response: bytes, *, browser_secret: str = "") -> str | None:
        """Send a response; the check that refused it, or None where it signed somebody in."""
        try:
            await complete(
                self.database,
                self.keys,
                self.jail,
                self.where,
                saml_response=base64.b64encode(response).decode(),
                relay_state=begun.request.relay_state or "",
                browser_secret=browser_secret or begun.browser_secret,
            )
        except SignInRefused as refusal:
            return refusal.check_id
        return None

    @asynccontextmanager
    async def forgotten(self) -> AsyncIterator[None]:
        """Everything in the block is undone at its end."""
        async with self.database.tenant(self.where.tenant) as session:
            savepoint = await session.begin_nested()
            try:
                yield
            finally:
                await savepoint.rollback()


@asynccontextmanager
async def rehearsing(
    settings: Settings,
    admin: AdminDatabase,
    database: Database,
    masters: MasterKeys,
    jail: SignInJail,
    slug: str,
    name: str,
    captured: bytes | None = None,
) -> AsyncIterator[Rehearsal]:
    """A rehearsal at the tenant's connection `name`, with a response made for it or a `captured` one (base64 or XML).

    Raises `NoConnection`, `BadCapture`.
    """
    key = idp_side.SigningKey.generate()
    async with admin.control() as control:
        tenant = await find_tenant(control, slug)
        found = await find_saml(control, tenant, name)
        if found is None:
            raise NoConnection(f"The tenant has no SAML connection called {name!r}.")
        connection, idp = found
        where = SignIn(tenant.scope, settings.origin_of(tenant.home_host))
        async with database.tenant(where.tenant) as session:
            unsaved = Unsaved(session, control)
            keys = KeyRing(unsaved, masters, Directory(unsaved))
            saml_key = await keys.saml_key(where.tenant)
            ours = service_provider(
                where.origin, saml_key.private_pem, saml_key.certificate_pem, other_keys=saml_key.others
            )
            sp = read_sp_metadata(sp_metadata(ours))
            if captured is None:
                response = _made(connection, idp, sp)
            else:
                try:
                    response = await jail.check(
                        open_response, encoded(captured), ours, identity_provider(idp)
                    )
                except SignInRefused as refusal:
                    raise BadCapture(f"The response could not be read: {explain(refusal.check_id)}") from None
            scene = _scene(response, sp, key)
            try:
                idp.certificates = [key.certificate_pem.decode()]
                client = await register_client(session, "attack-test", "Attack test", [NOWHERE])
                if connection.provision == "invited":
                    session.add(_invited(scene, connection))
                await session.flush()
                yield Rehearsal(unsaved, keys, jail, where, connection, idp, sp, client.id, scene)
            finally:
                await session.rollback()
                await control.rollback()


def _made(connection: Connection, idp: SamlConnection, sp: idp_side.ServiceProvider) -> bytes:
    """An honest response as this connection expects it: of somebody in a group that has a role."""
    domain = next(iter(connection.email_domains), "attack-test.invalid")
    user = idp_side.User(
        "attack-test", f"attack-test@{domain}", "Attack Test", tuple(list(connection.role_mapping)[:1])
    )
    root = unsigned_response(Answer(idp.idp_entity_id, sp, user, None))
    names = (connection.email_attribute, connection.name_attribute, connection.groups_attribute)
    for attribute, attribute_name in zip(root.iter("{*}Attribute"), names, strict=True):
        attribute.set("Name", attribute_name)
    return etree.tostring(root)


def _scene(response: bytes, sp: idp_side.ServiceProvider, key: idp_side.SigningKey) -> Scene:
    """The response without its signatures, to be signed in the same places by another key."""
    root = etree.fromstring(response)
    signed = set()
    for signature in every(root, DS + "Signature"):
        parent = signature.getparent()
        assert parent is not None
        signed.add("response" if parent is root else "assertion")
        parent.remove(signature)
    sign: idp_side.Signed = "assertion"
    if "response" in signed:
        sign = "both" if "assertion" in signed else "response"
    assert sp.certificate_pem is not None
    foreign = idp_side.SigningKey.generate()
    return Scene(etree.tostring(root), "", sp.certificate_pem, key, foreign, sign)


def _invited(scene: Scene, connection: Connection) -> User:
    """Whom the honest response names must be known where the connection makes nobody known."""
    root = etree.fromstring(scene.template)
    name = root.findtext(".//{*}NameID") or ""
    return User(connection_id=connection.id, external_id=name, display_name="Attack Test")


async def race_for_request(database: Database, rehearsal: Rehearsal, at_once: int) -> list[str | None]:
    """What each of several at once is told that finish the same sign-in, on a row of our own that is deleted again;
    nothing where the tenant has no client app to sign in for."""
    tenant, relay, browser = rehearsal.where.tenant, secrets.token_urlsafe(32), secrets.token_urlsafe(32)
    async with database.tenant(tenant) as session:
        client_id = await session.scalar(select(OAuthClient.id).limit(1))
    if client_id is None:
        return []
    asked = Asked(client_id, "", "", None, "")
    await remember(
        database,
        rehearsal.where,
        rehearsal.connection,
        asked,
        relay_secret=relay,
        browser_secret=browser,
    )
    try:
        return await _race(lambda: spend_request(database, tenant, relay, browser), at_once)
    finally:
        async with database.tenant(tenant) as session:
            mine = LoginRequest.relay_hash == hash_secret(relay)
            await session.execute(delete(LoginRequest).where(mine))


async def race_for_assertion(database: Database, rehearsal: Rehearsal, at_once: int) -> list[str | None]:
    """The same for those that use one assertion, each in another sign-in."""
    tenant, assertion_id = rehearsal.where.tenant, f"_attack-test-{secrets.token_hex(16)}"
    identity = AssertedIdentity("", None, None, assertion_id, utcnow(), {}, rehearsal.idp.idp_entity_id)
    try:
        return await _race(lambda: use_assertion(database, tenant, identity), at_once)
    finally:
        async with database.tenant(tenant) as session:
            mine = UsedAssertion.assertion_id == assertion_id
            await session.execute(delete(UsedAssertion).where(mine))


async def _race(attempt: Callable[[], Awaitable[object]], at_once: int) -> list[str | None]:
    async def outcome() -> str | None:
        try:
            await attempt()
        except SignInRefused as refusal:
            return refusal.check_id
        return None

    return await asyncio.gather(*(outcome() for _ in range(at_once)))
