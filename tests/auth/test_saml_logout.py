"""Single logout: begun here, begun at the identity provider, and forged."""

import asyncio
import base64
import zlib
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID
from lxml import etree

from core.clock import utcnow
from core.ids import new_id
from gateway.assembly import tidy
from reference.idp.config import IdpConfig, SigningKey
from reference.idp.response import SAML, SAMLP, sign_element
from tests.fixtures.browser import Browser, SignIn
from tests.fixtures.paper_idp import PaperIdp
from tests.fixtures.world import World

CONFIG = IdpConfig("https://idp.goodbye.example")
SLO = "https://idp.goodbye.example/slo?tenant=7"
BACK = "https://idp.goodbye.example/slo-done"
FOREIGN = SigningKey.generate()
MORE = "http://www.w3.org/2001/04/xmldsig-more#"
SUCCESS = "urn:oasis:names:tc:SAML:2.0:status:Success"


@pytest.fixture(scope="module")
async def idp(world: World) -> PaperIdp:
    return await PaperIdp.open(world, "goodbye", CONFIG, logout_url=SLO, logout_response_url=BACK)


@pytest.fixture
async def sign_in(idp: PaperIdp) -> AsyncIterator[SignIn]:
    async with Browser(idp.world.app) as browser:
        yield SignIn(browser, idp.origin)


async def signed_in(
    idp: PaperIdp, sign_in: SignIn, name_id: str, session_index: str = "_s1"
) -> dict[str, str]:
    """Somebody's Authorization header."""
    form = await idp.answer(sign_in, name_id=name_id, session_index=session_index)
    token = await sign_in.redeem(sign_in.code_of(await sign_in.answer(form)))
    return {"Authorization": f"Bearer {token.json()['access_token']}"}


async def is_in(sign_in: SignIn, bearer: dict[str, str]) -> bool:
    answer = await sign_in.browser.get(f"{sign_in.origin}/v1/me", headers=bearer)
    assert answer.status_code in (200, 401)
    return answer.status_code == 200


async def is_out(sign_in: SignIn, bearer: dict[str, str]) -> bool:
    """Whether the token is refused before long; a second is what every process may take."""
    for _ in range(50):
        if not await is_in(sign_in, bearer):
            return True
        await asyncio.sleep(0.1)
    return False


def message(
    idp: PaperIdp, kind: str = "LogoutRequest", name_id: str = "u-1", *indexes: str, **changes: Any
) -> etree._Element:
    now = utcnow()
    attributes: dict[str, str | None] = {
        "ID": f"_{new_id().hex}",
        "Version": "2.0",
        "IssueInstant": f"{now:%Y-%m-%dT%H:%M:%SZ}",
        "Destination": f"{idp.origin}/auth/saml/logout",
        "NotOnOrAfter": f"{now + timedelta(minutes=5):%Y-%m-%dT%H:%M:%SZ}"
        if kind == "LogoutRequest"
        else None,
    }
    issuer = changes.pop("Issuer", CONFIG.entity_id)
    attributes |= changes
    root = etree.Element(
        f"{{{SAMLP}}}{kind}",
        {name: value for name, value in attributes.items() if value is not None},
        nsmap={"samlp": SAMLP, "saml": SAML},
    )
    etree.SubElement(root, f"{{{SAML}}}Issuer").text = issuer
    if kind == "LogoutRequest":
        etree.SubElement(root, f"{{{SAML}}}NameID").text = name_id
        for index in indexes:
            etree.SubElement(root, f"{{{SAMLP}}}SessionIndex").text = index
    else:
        status = etree.SubElement(root, f"{{{SAMLP}}}Status")
        etree.SubElement(status, f"{{{SAMLP}}}StatusCode", Value=SUCCESS)
    return root


def encoded(root: etree._Element) -> str:
    deflater = zlib.compressobj(wbits=-15)
    return quote(
        base64.b64encode(deflater.compress(etree.tostring(root)) + deflater.flush()).decode(), safe=""
    )


def query_of(
    root: etree._Element,
    key: SigningKey | ec.EllipticCurvePrivateKey = CONFIG.key,
    relay_state: str = "",
    algorithm: str = f"{MORE}rsa-sha256",
) -> str:
    """The signed query of HTTP-Redirect."""
    kind = "SAMLRequest" if root.tag.endswith("Request") else "SAMLResponse"
    parts = [f"{kind}={encoded(root)}"]
    if relay_state:
        parts.append(f"RelayState={relay_state}")
    signed = "&".join([*parts, f"SigAlg={quote(algorithm, safe='')}"])
    if isinstance(key, SigningKey):
        private = serialization.load_pem_private_key(key.private_pem, None)
        assert isinstance(private, rsa.RSAPrivateKey)
        signature = private.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    else:
        r, s = decode_dss_signature(key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        signature = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    return f"{signed}&Signature={quote(base64.b64encode(signature).decode(), safe='')}"


async def by_redirect(sign_in: SignIn, query: str) -> httpx.Response:
    return await sign_in.browser.get(f"{sign_in.origin}/auth/saml/logout?{query}")


async def by_post(sign_in: SignIn, root: etree._Element, **more: str) -> httpx.Response:
    form = {"SAMLRequest": base64.b64encode(etree.tostring(root)).decode()} | more
    return await sign_in.browser.post(f"{sign_in.origin}/auth/saml/logout", data=form)


def signed(root: etree._Element, key: SigningKey = CONFIG.key) -> etree._Element:
    sign_element(root, key)
    return root


async def our_certificate(sign_in: SignIn) -> x509.Certificate:
    metadata = etree.fromstring((await sign_in.browser.get(f"{sign_in.origin}/auth/saml/metadata")).content)
    text = "".join((metadata.findtext(".//{*}X509Certificate") or "").split())
    return x509.load_der_x509_certificate(base64.b64decode(text))


async def read_ours(sign_in: SignIn, url: str, parameter: str) -> etree._Element:
    """Our own message in a redirect, whose signature verifies."""
    query = url.partition(f"{parameter}=")[2]
    signed, _, signature = f"{parameter}={query}".partition("&Signature=")
    key = (await our_certificate(sign_in)).public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    raw = base64.b64decode(parse_qs(f"s={signature}")["s"][0])
    key.verify(raw, signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    return etree.fromstring(zlib.decompress(base64.b64decode(parse_qs(signed)[parameter][0]), -15))


async def sign_out(sign_in: SignIn, bearer: dict[str, str]) -> httpx.Response:
    return await sign_in.browser.post(f"{sign_in.origin}/auth/logout", headers=bearer)


async def test_our_metadata_says_where_to_sign_out(sign_in: SignIn) -> None:
    metadata = etree.fromstring((await sign_in.browser.get(f"{sign_in.origin}/auth/saml/metadata")).content)
    found = [
        (e.get("Binding", "").rpartition(":")[2], e.get("Location"))
        for e in metadata.iterfind(".//{*}SingleLogoutService")
    ]
    address = f"{sign_in.origin}/auth/saml/logout"
    assert sorted(found) == [("HTTP-POST", address), ("HTTP-Redirect", address)]


async def test_signing_out_here_signs_out_there(idp: PaperIdp, sign_in: SignIn) -> None:
    bearer = await signed_in(idp, sign_in, "u-here", "_index")
    answer = await sign_out(sign_in, bearer)
    assert answer.status_code == 200
    url = answer.json()["continue_at"]
    assert url.startswith(f"{SLO}&SAMLRequest=")
    request = await read_ours(sign_in, url, "SAMLRequest")
    name = request.find(f"{{{SAML}}}NameID")
    assert name is not None
    assert (name.text, name.get("Format", "").rpartition(":")[2]) == ("u-here", "persistent")
    assert request.findtext(f"{{{SAMLP}}}SessionIndex") == "_index"
    assert request.get("Destination") == SLO
    assert request.findtext(f"{{{SAML}}}Issuer") == f"{sign_in.origin}/auth/saml/metadata"
    assert await is_out(sign_in, bearer)

    response = message(idp, "LogoutResponse", InResponseTo=request.get("ID"))
    page = await by_redirect(sign_in, query_of(response))
    assert page.status_code == 200
    assert "at your organisation's sign-in." in page.text
    again = message(idp, "LogoutResponse", InResponseTo=request.get("ID"))
    assert (await by_redirect(sign_in, query_of(again))).status_code == 403, "it was answered"


async def test_a_provider_that_could_not_sign_out_everywhere_is_believed(
    idp: PaperIdp, sign_in: SignIn
) -> None:
    url = (await sign_out(sign_in, await signed_in(idp, sign_in, "u-partly"))).json()["continue_at"]
    request = await read_ours(sign_in, url, "SAMLRequest")
    response = message(idp, "LogoutResponse", InResponseTo=request.get("ID"))
    code = response.find(".//{*}StatusCode")
    assert code is not None
    code.set("Value", "urn:oasis:names:tc:SAML:2.0:status:PartialLogout")
    assert "close the browser" in (await by_redirect(sign_in, query_of(response))).text


async def test_a_response_that_we_wait_for_must_be_the_providers(idp: PaperIdp, sign_in: SignIn) -> None:
    url = (await sign_out(sign_in, await signed_in(idp, sign_in, "u-forged"))).json()["continue_at"]
    request_id = (await read_ours(sign_in, url, "SAMLRequest")).get("ID")
    for response, key in (
        (message(idp, "LogoutResponse", InResponseTo=request_id), FOREIGN),
        (message(idp, "LogoutResponse", InResponseTo="_other"), CONFIG.key),
        (message(idp, "LogoutResponse"), CONFIG.key),
    ):
        assert (await by_redirect(sign_in, query_of(response, key))).status_code == 403
    good = query_of(message(idp, "LogoutResponse", InResponseTo=request_id))
    assert (await by_redirect(sign_in, good)).status_code == 200


async def test_a_provider_without_single_logout_is_not_told(idp: PaperIdp, sign_in: SignIn) -> None:
    bearer = await signed_in(idp, sign_in, "u-alone")
    await idp.set_policy(logout_url=None)
    try:
        assert (await sign_out(sign_in, bearer)).status_code == 204
    finally:
        await idp.set_policy(logout_url=SLO)
    assert await is_out(sign_in, bearer)


@pytest.mark.parametrize("binding", ["redirect", "post"])
async def test_the_provider_signs_somebody_out(idp: PaperIdp, sign_in: SignIn, binding: str) -> None:
    name, other = f"u-{binding}", f"v-{binding}"
    first = await signed_in(idp, sign_in, name, "_1")
    second = await signed_in(idp, sign_in, name, "_2")
    stranger = await signed_in(idp, sign_in, other, "_1")

    async def ask(root: etree._Element) -> httpx.Response:
        if binding == "redirect":
            return await by_redirect(sign_in, query_of(root, relay_state="kept%2fas-is"))
        return await by_post(sign_in, signed(root), RelayState="kept/as-is")

    request = message(idp, "LogoutRequest", name, "_1")
    answer = await ask(request)
    assert answer.status_code == 303
    url = answer.headers["Location"]
    assert url.startswith(f"{BACK}?SAMLResponse=")
    assert parse_qs(urlsplit(url).query)["RelayState"] == ["kept/as-is"]
    response = await read_ours(sign_in, url, "SAMLResponse")
    assert (response.get("InResponseTo"), response.get("Destination")) == (request.get("ID"), BACK)
    status = response.find(".//{*}StatusCode")
    assert status is not None
    assert status.get("Value") == SUCCESS
    assert await is_out(sign_in, first)
    assert await is_in(sign_in, second)
    assert await is_in(sign_in, stranger)
    assert (await ask(message(idp, "LogoutRequest", name))).status_code == 303  # without an index: everywhere
    assert await is_out(sign_in, second)
    assert await is_in(sign_in, stranger)
    reasons = [event["reason"] for event in await idp.events("session.ended")]
    assert reasons.count("the identity provider signed the person out") >= 2


async def test_a_providers_elliptic_key_signs_people_out(idp: PaperIdp, sign_in: SignIn) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "idp")])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(utcnow() - timedelta(days=1))
        .not_valid_after(utcnow() + timedelta(days=1))
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
        .decode()
    )
    await idp.set_policy(certificates=[CONFIG.key.certificate_pem.decode(), certificate])
    ecdsa = f"{MORE}ecdsa-sha256"
    try:
        assert (await by_redirect(sign_in, query_of(message(idp), key, algorithm=ecdsa))).status_code == 303
        mixed = query_of(message(idp), CONFIG.key, algorithm=ecdsa)
        assert (await by_redirect(sign_in, mixed)).status_code == 403
    finally:
        await idp.connect()
    assert (await by_redirect(sign_in, query_of(message(idp), key, algorithm=ecdsa))).status_code == 403


def old(ago: timedelta) -> str:
    return f"{utcnow() - ago:%Y-%m-%dT%H:%M:%SZ}"


@pytest.mark.parametrize(
    "changes",
    [
        {"Issuer": "https://other.example"},
        {"Destination": "http://acme.localhost:8000/auth/saml/logout"},
        {"Destination": "http://goodbye.localhost:8000/auth/saml/logout/x"},
        {"Destination": None},
        {"NotOnOrAfter": old(timedelta(seconds=1))},
        {"NotOnOrAfter": "tomorrow"},
        {"IssueInstant": old(timedelta(hours=1))},
        {"IssueInstant": old(timedelta(hours=-1))},
        {"IssueInstant": None},
        {"ID": ""},
        {"Version": "1.1"},
        {"kind": "AuthnRequest"},
    ],
)
async def test_a_request_that_the_provider_itself_signed_must_be_for_us_and_now(
    idp: PaperIdp, sign_in: SignIn, changes: dict[str, Any]
) -> None:
    bearer = await signed_in(idp, sign_in, "u-stays")
    kind = changes.pop("kind", "LogoutRequest")
    made = {"name_id": "u-stays"} | changes
    assert (await by_redirect(sign_in, query_of(message(idp, kind, **made)))).status_code == 403
    if changes.get("ID") != "":  # without an ID there is no signature to make
        assert (await by_post(sign_in, signed(message(idp, kind, **made)))).status_code == 403
    assert await is_in(sign_in, bearer)


async def test_a_forged_redirect_signs_nobody_out(idp: PaperIdp, sign_in: SignIn) -> None:
    bearer = await signed_in(idp, sign_in, "u-target")
    root = message(idp, "LogoutRequest", "u-target")
    good, other = query_of(root, relay_state="a"), message(idp, "LogoutRequest", "u-other")
    signature = good.partition("&Signature=")[2]
    forged = {
        "unsigned": f"SAMLRequest={encoded(root)}",
        "signature empty": good.partition("&Signature=")[0] + "&Signature=",
        "foreign key": query_of(root, FOREIGN),
        "another message": query_of(other).replace(encoded(other), encoded(root)),
        "another relay state": good.replace("RelayState=a", "RelayState=b"),
        "relay state added": query_of(root).replace("&SigAlg", "&RelayState=b&SigAlg"),
        "relay state dropped": good.replace("RelayState=a&", ""),
        "twice, ours first": f"SAMLRequest={encoded(root)}&{query_of(other)}",
        "twice, ours last": f"{query_of(other)}&SAMLRequest={encoded(root)}",
        "under another spelling": f"{query_of(other)}&SAML%52equest={encoded(root)}",
        "request beside a response": f"{query_of(message(idp, 'LogoutResponse', InResponseTo='_x'))}&SAMLRequest={encoded(root)}",
        "sha-1": good.replace(
            quote(f"{MORE}rsa-sha256", safe=""), quote("http://www.w3.org/2000/09/xmldsig#rsa-sha1", safe="")
        ),
        "hmac": good.replace("rsa-sha256", "hmac-sha256"),
        "not base64": good.replace(signature, "%25%25"),
        "re-encoded": good.replace("%2B", "%2b").replace("%2F", "%2f").replace("%3D", "%3d"),
        "not deflated": f"SAMLRequest={quote(base64.b64encode(etree.tostring(root)).decode(), safe='')}",
        "cut off": good.replace("%3D", ""),
        "nothing": "",
    }
    for name, query in forged.items():
        assert (await by_redirect(sign_in, query)).status_code == 403, name
    assert await is_in(sign_in, bearer)
    assert (await by_redirect(sign_in, good)).status_code == 303
    assert (await by_redirect(sign_in, good)).status_code == 403, "once"
    assert await is_out(sign_in, bearer)


async def test_a_deflate_bomb_is_not_inflated(sign_in: SignIn) -> None:
    deflater = zlib.compressobj(9, wbits=-15)
    bomb = deflater.compress(b" " * 40_000_000) + deflater.flush()
    query = f"SAMLRequest={quote(base64.b64encode(bomb).decode(), safe='')}&SigAlg=x&Signature=eA"
    assert (await by_redirect(sign_in, query)).status_code == 403


async def test_a_forged_post_signs_nobody_out(idp: PaperIdp, sign_in: SignIn) -> None:
    bearer = await signed_in(idp, sign_in, "u-posted")
    good = signed(message(idp, "LogoutRequest", "u-other"))
    tampered = etree.fromstring(etree.tostring(good))
    name = tampered.find(f"{{{SAML}}}NameID")
    assert name is not None
    name.text = "u-posted"
    wrapped = message(idp, "LogoutRequest", "u-posted")
    extensions = etree.SubElement(wrapped, f"{{{SAMLP}}}Extensions")
    extensions.append(etree.fromstring(etree.tostring(good)))
    moved = message(idp, "LogoutRequest", "u-posted")
    moved.insert(1, etree.fromstring(etree.tostring(good))[1])
    commented = message(idp, "LogoutRequest", "u-posted.evil.example")
    commented[1].text = "u-posted"
    commented[1].append(etree.Comment("x"))
    twice = message(idp, "LogoutRequest", "u-other")
    etree.SubElement(twice, f"{{{SAML}}}NameID").text = "u-posted"
    forged = {
        "unsigned": message(idp, "LogoutRequest", "u-posted"),
        "foreign key": signed(message(idp, "LogoutRequest", "u-posted"), FOREIGN),
        "tampered": tampered,
        "wrapped": wrapped,
        "another's signature": moved,
        "comment": signed(commented),
        "two names": signed(twice),
    }
    for name_of, root in forged.items():
        assert (await by_post(sign_in, root)).status_code == 403, name_of
    for raw in ("", "%%%", "PHg+", base64.b64encode(b"<!DOCTYPE x><x/>").decode()):
        form = {"SAMLRequest": raw}
        assert (
            await sign_in.browser.post(f"{sign_in.origin}/auth/saml/logout", data=form)
        ).status_code == 403
    # By redirect a signature belongs into the query, and one in the document does not replace it.
    assert (await by_redirect(sign_in, f"SAMLRequest={encoded(good)}")).status_code == 403
    assert await is_in(sign_in, bearer)


async def test_another_tenants_provider_signs_nobody_out(idp: PaperIdp, sign_in: SignIn) -> None:
    bearer = await signed_in(idp, sign_in, "u-1")
    other = await PaperIdp.open(idp.world, "elsewhere", CONFIG, logout_url=SLO)  # the same provider, even
    request = message(idp, "LogoutRequest", "u-1")
    async with Browser(idp.world.app) as browser:
        assert (await by_redirect(SignIn(browser, other.origin), query_of(request))).status_code == 403
        there = message(idp, "LogoutRequest", "u-1", Destination=f"{other.origin}/auth/saml/logout")
        assert (await by_redirect(SignIn(browser, other.origin), query_of(there))).status_code == 303
    assert await is_in(sign_in, bearer)


async def test_refusals_are_pages_and_fill_no_log(idp: PaperIdp, sign_in: SignIn) -> None:
    before = len(await idp.events("sign-in.refused"))
    page = await by_redirect(sign_in, f"SAMLRequest={encoded(message(idp))}")
    assert page.headers["Content-Type"].startswith("text/html")
    assert "saml." not in page.text
    assert len(await idp.events("sign-in.refused")) == before


async def test_what_was_never_answered_is_forgotten(idp: PaperIdp, sign_in: SignIn) -> None:
    await sign_out(sign_in, await signed_in(idp, sign_in, "u-forgotten"))
    scope = idp.world.tenant(idp.slug).scope
    async with idp.world.admin.connection() as connection:
        count = f"SELECT count(*) FROM {scope.schema}.saml_logouts"
        kept = await connection.fetchval(count)
        assert kept > 0
        await tidy(idp.world.database, scope)
        assert await connection.fetchval(count) == kept
        await connection.execute(
            f"UPDATE {scope.schema}.saml_logouts SET expires_at = now() - interval '1 s'"
        )
        await tidy(idp.world.database, scope)
        assert await connection.fetchval(count) == 0
