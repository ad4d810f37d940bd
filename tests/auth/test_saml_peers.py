"""Signing in and out with identity providers that others wrote: pysaml2, and samlp of npm."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from lxml import etree

from auth.saml.idp_metadata import read_idp_metadata
from auth.saml.settings import set_connection
from reference.idp.config import SigningKey
from tenants.directory.cache import Directory
from tests.fixtures.browser import Browser, Form, SignIn, form_of
from tests.fixtures.saml_peers import SESSION, Pysaml2, Samlp
from tests.fixtures.world import World

KEY = SigningKey.generate("a peer")
POST = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST"
REDIRECT = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect"


async def connect(world: World, slug: str, metadata: bytes, **attributes: str) -> None:
    """By the peer's own metadata."""
    idp = read_idp_metadata(metadata)
    async with world.admin.control() as session:
        await set_connection(
            session,
            slug,
            idp_entity_id=idp.entity_id,
            sso_url=idp.sso_url,
            certificates=list(idp.certificates),
            role_mapping={"doctors": "physician"},
            common=attributes,
            logout_url=idp.logout_url,
            logout_response_url=idp.logout_response_url,
        )
    await world.parts[Directory].refresh()


async def our_metadata(world: World, slug: str) -> str:
    return (await (await world.http(f"{slug}.localhost")).get("/auth/saml/metadata")).text


async def bearer_of(sign_in: SignIn, form: Form) -> dict[str, str]:
    token = await sign_in.redeem(sign_in.code_of(await sign_in.answer(form)))
    bearer = {"Authorization": f"Bearer {token.json()['access_token']}"}
    me = (await sign_in.browser.get(f"{sign_in.origin}/v1/me", headers=bearer)).json()
    assert (me["user"]["email"], me["user"]["display_name"]) == ("una@peers.example", "Una Peer")
    assert me["roles"] == ["physician"]
    return bearer


async def is_out(world: World, sign_in: SignIn, bearer: dict[str, str]) -> bool:
    await world.parts[Directory].refresh()  # what every process does within a second
    return (await sign_in.browser.get(f"{sign_in.origin}/v1/me", headers=bearer)).status_code == 401


# pysaml2


@pytest.fixture(scope="module")
async def pysaml2(world: World, tmp_path_factory: pytest.TempPathFactory) -> Pysaml2:
    await world.create_tenant("pysaml2")
    directory: Path = tmp_path_factory.mktemp("pysaml2")
    peer = Pysaml2(directory, KEY, await our_metadata(world, "pysaml2"), "una-at-pysaml2")
    await connect(
        world,
        "pysaml2",
        peer.metadata(),
        email_attribute="urn:oid:0.9.2342.19200300.100.1.3",
        name_attribute="urn:oid:2.16.840.1.113730.3.1.241",
        groups_attribute="urn:oid:1.3.6.1.4.1.5923.1.5.1.1",
    )
    return peer


@pytest.fixture
async def at_pysaml2(world: World, pysaml2: Pysaml2) -> AsyncIterator[SignIn]:
    async with Browser(world.app) as browser:
        yield SignIn(browser, "http://pysaml2.localhost:8000")


@pytest.mark.parametrize(
    "how",
    [
        {"sign_assertion": True},
        {"sign_response": True},
        {"sign_assertion": True, "sign_response": True},
    ],
    ids=["assertion", "response", "both"],
)
async def test_pysaml2_signs_in(pysaml2: Pysaml2, at_pysaml2: SignIn, how: dict[str, Any]) -> None:
    url = (await at_pysaml2.authorize()).headers["Location"]
    await bearer_of(at_pysaml2, pysaml2.answer(url, **how))


async def test_what_pysaml2_does_not_sign_or_means_for_others_is_refused(
    pysaml2: Pysaml2, at_pysaml2: SignIn
) -> None:
    triple_des = {"sign_assertion": True, "encrypt_assertion": True}  # pysaml2 encrypts with nothing else
    for how in ({}, {"sign_assertion": True, "audience": "https://other.example/metadata"}, triple_des):
        form = pysaml2.answer((await at_pysaml2.authorize()).headers["Location"], **how)
        assert (await at_pysaml2.answer(form)).status_code == 403


async def test_pysaml2_is_told_of_a_sign_out(world: World, pysaml2: Pysaml2, at_pysaml2: SignIn) -> None:
    url = (await at_pysaml2.authorize()).headers["Location"]
    bearer = await bearer_of(at_pysaml2, pysaml2.answer(url, sign_assertion=True))
    answer = await at_pysaml2.browser.post(f"{at_pysaml2.origin}/auth/logout", headers=bearer)
    page = await at_pysaml2.browser.get(pysaml2.read_logout_request(answer.json()["continue_at"]))
    assert page.status_code == 200
    assert "at your organisation's sign-in." in page.text
    assert await is_out(world, at_pysaml2, bearer)


@pytest.mark.parametrize("binding", ["redirect", "post"])
async def test_pysaml2_signs_out(world: World, pysaml2: Pysaml2, at_pysaml2: SignIn, binding: str) -> None:
    url = (await at_pysaml2.authorize()).headers["Location"]
    bearer = await bearer_of(at_pysaml2, pysaml2.answer(url, sign_assertion=True))
    asked = pysaml2.logout_request(f"{at_pysaml2.origin}/auth/saml/logout", post=binding == "post")
    if isinstance(asked, Form):
        answer = await at_pysaml2.browser.post(asked.action, data=asked.fields)
    else:
        answer = await at_pysaml2.browser.get(asked)
    assert answer.status_code == 303, answer.text
    assert pysaml2.read_logout_response(answer.headers["Location"])
    assert await is_out(world, at_pysaml2, bearer)


# samlp


@pytest.fixture
async def at_samlp(world: World, samlp: Samlp) -> AsyncIterator[SignIn]:
    async with Browser(world.app) as browser:
        yield SignIn(browser, "http://samlp.localhost:8000")


@pytest.fixture(scope="module")
async def sp_of_samlp(world: World, samlp: Samlp) -> dict[str, str]:
    await world.create_tenant("samlp")
    return await introduce_samlp(world, samlp, "samlp", "http://samlp.localhost:8000")


async def introduce_samlp(world: World, samlp: Samlp, slug: str, origin: str) -> dict[str, str]:
    """Each to the other; returns our side as samlp is told of it."""
    metadata = etree.fromstring((await our_metadata(world, slug)).encode())
    text = "".join((metadata.findtext(".//{*}X509Certificate") or "").split())
    lines = "\n".join(text[at : at + 64] for at in range(0, len(text), 64))
    sp = {
        "entityId": f"{origin}/auth/saml/metadata",
        "acsUrl": f"{origin}/auth/saml/acs",
        "logoutUrl": f"{origin}/auth/saml/logout",
        "cert": f"-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n",
    }
    be(samlp, sp)
    async with httpx.AsyncClient() as client:
        published = (await client.get(f"{samlp.url}/metadata")).content
    await connect(world, slug, published)
    return sp


def be(samlp: Samlp, sp: dict[str, str], logout: str = REDIRECT, **auth: Any) -> None:
    samlp.put(
        issuer="urn:samlp-peer",
        cert=KEY.certificate_pem.decode(),
        key=KEY.private_pem.decode(),
        sp=sp,
        user={
            "name": "una-at-samlp",
            "claims": {"email": "una@peers.example", "displayName": "Una Peer", "groups": ["doctors"]},
        },
        sessionIndex=SESSION,
        logoutBinding=logout,
        auth=auth,
    )


async def answer_of_samlp(sign_in: SignIn) -> Form:
    return form_of(await sign_in.browser.get((await sign_in.authorize()).headers["Location"]))


@pytest.mark.parametrize(
    "how",
    [{}, {"signAssertion": False, "signResponse": True}, {"signResponse": True}, {"encrypt": True}],
    ids=["assertion", "response", "both", "encrypted"],
)
async def test_samlp_signs_in(
    samlp: Samlp, sp_of_samlp: dict[str, str], at_samlp: SignIn, how: dict[str, Any]
) -> None:
    if how.pop("encrypt", False):
        how = {"encryptionCert": sp_of_samlp["cert"], "encryptionPublicKey": public_key(sp_of_samlp["cert"])}
    be(samlp, sp_of_samlp, **how)
    await bearer_of(at_samlp, await answer_of_samlp(at_samlp))


async def test_what_samlp_signs_weakly_or_means_for_others_is_refused(
    samlp: Samlp, sp_of_samlp: dict[str, str], at_samlp: SignIn
) -> None:
    for how in (
        {"audience": "https://other.example/metadata"},
        {"signatureAlgorithm": "rsa-sha1"},
        {"signAssertion": False},
        {"encryptionCert": sp_of_samlp["cert"], "encryptionPublicKey": public_key(sp_of_samlp["cert"])}
        | {"encryptionAlgorithm": "http://www.w3.org/2001/04/xmlenc#aes256-cbc"}
        | {"disallowEncryptionWithInsecureAlgorithm": False, "warnOnInsecureEncryptionAlgorithm": False},
    ):
        be(samlp, sp_of_samlp, **how)
        assert (await at_samlp.answer(await answer_of_samlp(at_samlp))).status_code == 403


async def test_samlp_is_told_of_a_sign_out(
    world: World, samlp: Samlp, sp_of_samlp: dict[str, str], at_samlp: SignIn
) -> None:
    be(samlp, sp_of_samlp)
    bearer = await bearer_of(at_samlp, await answer_of_samlp(at_samlp))
    url = (await at_samlp.browser.post(f"{at_samlp.origin}/auth/logout", headers=bearer)).json()[
        "continue_at"
    ]
    back = await at_samlp.browser.get(url)
    assert back.status_code == 302, back.text
    page = await at_samlp.browser.get(back.headers["Location"])
    assert "at your organisation's sign-in." in page.text
    assert await is_out(world, at_samlp, bearer)


@pytest.mark.parametrize("binding", [REDIRECT, POST], ids=["redirect", "post"])
async def test_samlp_signs_out(
    world: World, samlp: Samlp, sp_of_samlp: dict[str, str], at_samlp: SignIn, binding: str
) -> None:
    be(samlp, sp_of_samlp, binding)
    bearer = await bearer_of(at_samlp, await answer_of_samlp(at_samlp))
    asked = await at_samlp.browser.get(f"{samlp.url}/logout")
    if binding == POST:
        form = form_of(asked)
        answer = await at_samlp.browser.post(form.action, data=form.fields)
    else:
        answer = await at_samlp.browser.get(asked.headers["Location"])
    assert answer.status_code == 303, answer.text
    done = await at_samlp.browser.get(answer.headers["Location"])
    assert done.status_code == 200, done.text
    assert await is_out(world, at_samlp, bearer)


def public_key(certificate_pem: str) -> str:
    key = x509.load_pem_x509_certificate(certificate_pem.encode()).public_key()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
