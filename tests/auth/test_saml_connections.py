"""What a tenant may say of its SAML connection, and its provider's metadata read again."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
import xmlsec
from lxml import etree
from sqlalchemy import update
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from xmlsec import constants as xs

from auth.connections.errors import BadConnection
from auth.connections.fetching import Fetcher
from auth.saml.idp_metadata import read_idp_metadata
from auth.saml.models import SamlConnection
from auth.saml.refresh import SAML_METADATA, due_at, refresh_metadata, warnings_of
from auth.saml.service import SignInJail
from auth.saml.settings import set_connection
from core.clock import utcnow
from gateway.assembly import RECURRING, background_worker
from reference.idp.config import IdpConfig, SigningKey
from reference.idp.messages import idp_metadata
from reference.idp.response import SAML, encrypt_assertion, resign
from tests.fixtures.browser import Browser, SignIn
from tests.fixtures.paper_idp import PaperIdp
from tests.fixtures.saml import Parties
from tests.fixtures.servers import serving
from tests.fixtures.world import World

SLUG = "samlco"
IDP = IdpConfig("https://idp.samlco.example")


@pytest.fixture(scope="module")
async def idp(world: World) -> PaperIdp:
    return await PaperIdp.open(world, SLUG, IDP)


@pytest.fixture
async def sign_in(idp: PaperIdp) -> AsyncIterator[SignIn]:
    async with Browser(idp.world.app) as browser:
        yield SignIn(browser, idp.origin)


def with_cbc(assertion: etree._Element, certificate: bytes) -> None:
    """What Entra ID and AD FS send: AES-256-CBC."""
    encrypted = etree.Element(f"{{{SAML}}}EncryptedAssertion")
    assertion.addprevious(encrypted)
    encrypted.append(assertion)
    data = xmlsec.template.encrypted_data_create(
        encrypted, xs.TransformAes256Cbc, type=xs.TypeEncElement, ns="xenc"
    )
    xmlsec.template.encrypted_data_ensure_cipher_value(data)
    key_info = xmlsec.template.encrypted_data_ensure_key_info(data, ns="ds")
    key = xmlsec.template.add_encrypted_key(key_info, xs.TransformRsaOaep)
    xmlsec.template.encrypted_data_ensure_cipher_value(key)
    manager = xmlsec.KeysManager()
    manager.add_key(xmlsec.Key.from_memory(certificate, xs.KeyDataFormatCertPem, None))
    context = xmlsec.EncryptionContext(manager)
    context.key = xmlsec.Key.generate(xs.KeyDataAes, 256, xs.KeyDataTypeSession)
    context.encrypt_xml(data, assertion)


async def test_encryption_can_be_required(idp: PaperIdp, sign_in: SignIn) -> None:
    assert (await sign_in.answer(await idp.answer(sign_in))).status_code == 303
    await idp.set_policy(require_encryption=True)
    try:
        assert (await idp.refused(sign_in, await idp.answer(sign_in))).startswith("saml.")
        assert (await sign_in.answer(await idp.answer(sign_in, encrypt_assertion))).status_code == 303
    finally:
        await idp.set_policy(require_encryption=False)


async def test_cbc_is_refused_unless_the_tenant_allows_it(idp: PaperIdp, sign_in: SignIn) -> None:
    assert await idp.refused(sign_in, await idp.answer(sign_in, with_cbc)) == "saml.encryption-algorithm"
    await idp.set_policy(allow_cbc=True)
    try:
        assert (await sign_in.answer(await idp.answer(sign_in, with_cbc))).status_code == 303
    finally:
        await idp.set_policy(allow_cbc=False)


async def test_either_of_two_certificates_signs_in(idp: PaperIdp, sign_in: SignIn) -> None:
    new = SigningKey.generate()
    await idp.connect(certificates=[new.certificate_pem.decode(), IDP.key.certificate_pem.decode()])
    try:
        for key in (IDP.key, new):
            assert (await sign_in.answer(await idp.answer(sign_in, key=key))).status_code == 303
    finally:
        await idp.connect()
    assert await idp.refused(sign_in, await idp.answer(sign_in, key=new)) == "saml.invalid-signature"


async def test_an_expired_certificate_is_warned_of_and_refused_by_policy(
    idp: PaperIdp, sign_in: SignIn
) -> None:
    parties = Parties.build()
    key, ended = parties.key, parties.expired_certificate()
    await idp.connect(certificates=[ended])
    try:
        assert (await sign_in.answer(await idp.answer(sign_in, key=key))).status_code == 303
        assert ["ended on" in warning for warning in warnings_of(await idp.connection())] == [True]
        await idp.set_policy(refuse_expired_certificates=True)
        assert await idp.refused(sign_in, await idp.answer(sign_in, key=key)) == "saml.certificate-expired"
        assert "refused by policy" in warnings_of(await idp.connection())[0]
    finally:
        await idp.connect(refuse_expired_certificates=False)


async def test_attributes_are_called_what_the_provider_calls_them(idp: PaperIdp, sign_in: SignIn) -> None:
    names = {"email": "urn:mail", "displayName": "urn:name", "groups": "urn:groups"}
    assert await idp.refused(sign_in, await idp.answer(sign_in, attributes=names)) == "login.no-role"
    await idp.connect(
        common={
            "email_attribute": "urn:mail",
            "name_attribute": "urn:name",
            "groups_attribute": "urn:groups",
        },
    )
    try:
        code = sign_in.code_of(await sign_in.answer(await idp.answer(sign_in, attributes=names)))
        token = (await sign_in.redeem(code)).json()["access_token"]
        bearer = {"Authorization": f"Bearer {token}"}
        me = (await sign_in.browser.get(f"{sign_in.origin}/v1/me", headers=bearer)).json()
        assert (me["user"]["email"], me["user"]["display_name"]) == ("u-1@samlco.example", "Una")
    finally:
        await idp.connect(
            common={
                "email_attribute": "email",
                "name_attribute": "displayName",
                "groups_attribute": "groups",
            },
        )


async def test_another_provider_under_the_same_name_keeps_the_policies(idp: PaperIdp) -> None:
    await idp.set_policy(require_encryption=True, refuse_expired_certificates=True)
    before = await idp.connection()
    async with idp.world.admin.control() as session:
        await set_connection(
            session,
            SLUG,
            idp_entity_id="https://other.example",
            sso_url=IDP.sso_url,
            certificates=before.certificates,
        )
    after = await idp.connection()
    assert after.id != before.id
    assert (after.require_encryption, after.refuse_expired_certificates) == (True, True)
    await idp.connect(require_encryption=False, refuse_expired_certificates=False)


async def test_a_provider_that_is_not_reached_by_https_is_refused(idp: PaperIdp) -> None:
    for url in (
        "http://idp.example/sso",
        "http://localhost.evil.example/sso",
        "javascript:alert(1)",
        "https:///x",
    ):
        with pytest.raises(BadConnection, match="https"):
            await idp.set_policy(logout_url=url)
    with pytest.raises(BadConnection, match="client app"):
        await idp.set_policy(allow_idp_initiated=True)


# Metadata that is read again


@dataclass
class Published:
    """What the provider publishes at the moment."""

    document: bytes = b""
    asked: int = 0
    key: SigningKey = field(default_factory=lambda: IDP.key)


@pytest.fixture(scope="module")
def published() -> Iterator[tuple[str, Published]]:
    now = Published()

    async def metadata(request: Request) -> Response:
        now.asked += 1
        return Response(now.document, 200 if now.document else 503)

    with serving(Starlette(routes=[Route("/metadata", metadata)])) as url:
        yield f"{url}/metadata", now


def metadata_of(key: SigningKey = IDP.key, **attributes: str) -> etree._Element:
    root = etree.fromstring(idp_metadata(IdpConfig(IDP.base_url, key)))
    for name, value in attributes.items():
        root.set(name, value)
    return root


def signed(root: etree._Element, key: SigningKey) -> bytes:
    root.set("ID", "_metadata")
    signature = xmlsec.template.create(root, xs.TransformExclC14N, xs.TransformRsaSha256, ns="ds")
    root.insert(0, signature)
    reference = xmlsec.template.add_reference(signature, xs.TransformSha256, uri="#_metadata")
    xmlsec.template.add_transform(reference, xs.TransformEnveloped)
    xmlsec.template.add_transform(reference, xs.TransformExclC14N)
    resign(signature, key)
    return etree.tostring(root)


async def read_again(idp: PaperIdp, allow: str = "127.0.0.1") -> SamlConnection:
    """Let the metadata be due, and what is due be read; the connection then."""
    async with idp.world.admin.control() as session:
        await session.execute(
            update(SamlConnection)
            .where(SamlConnection.idp_entity_id == IDP.entity_id)
            .values(metadata_due_at=utcnow() - timedelta(seconds=1))
        )
    scope = idp.world.tenant(SLUG).scope
    await refresh_metadata(idp.world.database, Fetcher(allow), idp.world.parts[SignInJail], scope)
    return await idp.connection()


async def test_new_certificates_are_in_force_when_the_metadata_was_read_again(
    idp: PaperIdp, sign_in: SignIn, published: tuple[str, Published]
) -> None:
    url, now = published
    new = SigningKey.generate()
    await idp.connect(metadata_url=url)
    now.document = etree.tostring(metadata_of(new))
    assert await idp.refused(sign_in, await idp.answer(sign_in, key=new)) == "saml.invalid-signature"
    row = await read_again(idp)
    assert row.certificates == [new.certificate_pem.decode()]
    assert row.metadata_failure is None
    assert row.metadata_due_at is not None
    assert timedelta(hours=23) < row.metadata_due_at - utcnow() < timedelta(hours=25)
    assert (await sign_in.answer(await idp.answer(sign_in, key=new))).status_code == 303
    assert (await idp.events("connection.metadata-changed"))[-1]["changed"] == ["certificates"]
    # Not due, not asked; and never while somebody signs in.
    asked = now.asked
    await refresh_metadata(
        idp.world.database, Fetcher("127.0.0.1"), idp.world.parts[SignInJail], idp.world.tenant(SLUG).scope
    )
    await sign_in.authorize()
    assert now.asked == asked


@pytest.mark.parametrize(
    ("document", "says"),
    [
        (b"", "status 503"),
        (b"<html>", "not well-formed"),
        (etree.tostring(metadata_of(entityID="https://other.example")), "another identity provider"),
        (etree.tostring(metadata_of(validUntil="2020-01-01T00:00:00Z")), "valid until"),
        (etree.tostring(metadata_of()).replace(b"https://idp", b"http://idp"), "https"),
        (b" " * 300_000, "more than"),
    ],
)
async def test_a_failure_keeps_what_there_is_and_is_told_once(
    idp: PaperIdp, published: tuple[str, Published], document: bytes, says: str
) -> None:
    url, now = published
    await idp.connect(metadata_url=url, metadata_failure=None)
    before = len(await idp.events("connection.metadata-failed"))
    now.document = document
    for _ in range(2):
        row = await read_again(idp)
        assert row.certificates == [IDP.key.certificate_pem.decode()]
        assert says in (row.metadata_failure or "")
    assert row.metadata_due_at is not None
    assert row.metadata_due_at - utcnow() < timedelta(hours=1.1)
    told = await idp.events("connection.metadata-failed")
    assert len(told) == before + 1
    assert any(says in warning for warning in warnings_of(row))
    now.document = etree.tostring(metadata_of())
    assert (await read_again(idp)).metadata_failure is None


async def test_an_address_in_our_own_network_is_not_asked(
    idp: PaperIdp, published: tuple[str, Published]
) -> None:
    url, now = published
    await idp.connect(metadata_url=url)
    asked = now.asked
    assert "DERMADETECT_SSO_FETCH_ALLOW" in ((await read_again(idp, allow="")).metadata_failure or "")
    assert now.asked == asked


async def test_metadata_must_be_signed_by_whom_the_tenant_named(
    idp: PaperIdp, published: tuple[str, Published]
) -> None:
    url, now = published
    federation, new = SigningKey.generate(), SigningKey.generate()
    await idp.connect(metadata_url=url, metadata_signers=[federation.certificate_pem.decode()])
    try:
        forged = signed(metadata_of(new), federation).replace(b"idp.samlco.example/sso", b"evil.example/sso")
        wrapped = etree.fromstring(signed(metadata_of(new), federation))
        outer = metadata_of(SigningKey.generate())
        outer.append(wrapped)
        for document, why in (
            (etree.tostring(metadata_of(new)), "must be signed"),
            (signed(metadata_of(new), SigningKey.generate()), "none of the expected keys"),
            (forged, "none of the expected keys"),
            (etree.tostring(outer), "must be signed"),
        ):
            now.document = document
            row = await read_again(idp)
            assert why in (row.metadata_failure or "")
            assert row.certificates == [IDP.key.certificate_pem.decode()]
        now.document = signed(metadata_of(new), federation)
        row = await read_again(idp)
        assert (row.metadata_failure, row.certificates) == (None, [new.certificate_pem.decode()])
    finally:
        await idp.connect(metadata_url=None, metadata_signers=[])


@pytest.mark.parametrize(
    ("attributes", "hours"),
    [
        ({}, 24),
        ({"cacheDuration": "PT6H"}, 3),
        ({"cacheDuration": "P1Y2M3DT4H5M6.7S"}, 24),
        ({"cacheDuration": "PT1S"}, 1),
        ({"cacheDuration": "PT12H", "validUntil": f"{utcnow() + timedelta(hours=4):%Y-%m-%dT%H:%M:%SZ}"}, 2),
    ],
)
def test_metadata_is_read_again_before_it_is_out_of_date(attributes: dict[str, Any], hours: float) -> None:
    read = read_idp_metadata(etree.tostring(metadata_of(**attributes)))
    assert (due_at(read) - utcnow()) / timedelta(hours=hours) == pytest.approx(1, abs=0.05)


async def test_the_worker_knows_this_work(idp: PaperIdp) -> None:
    assert SAML_METADATA in RECURRING
    assert SAML_METADATA in background_worker(idp.world.parts)._handlers
