"""The reference identity provider over real HTTP, as a browser and a service provider meet it."""

import asyncio
import base64
import re
import socket
import threading
import zlib
from collections.abc import Iterator
from dataclasses import replace
from html import unescape
from pathlib import Path
from urllib.parse import urlencode

import httpx
import pytest
import uvicorn
from cryptography import x509
from lxml import etree

from auth.saml.parties import IdentityProvider, ServiceProvider
from auth.saml.request import authn_request_url, new_sp_key, sp_metadata
from auth.saml.validation import validate_response
from reference.idp.app import WARNING, create_app
from reference.idp.config import IdpConfig, SigningKey

ACS = "https://acme.derma.example/auth/saml/acs"
ENTITY = "https://acme.derma.example/auth/saml/metadata"
MD = "{urn:oasis:names:tc:SAML:2.0:metadata}"
DS = "{http://www.w3.org/2000/09/xmldsig#}"


@pytest.fixture(scope="module")
def sp() -> ServiceProvider:
    return ServiceProvider(ENTITY, ACS, *new_sp_key(ENTITY))


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "encrypted"])
def base_url(request: pytest.FixtureRequest) -> Iterator[str]:
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    app = create_app(IdpConfig(url, encrypt=request.param))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off", ws="none"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
    thread.start()
    yield url
    server.should_exit = True
    thread.join(timeout=10)
    listener.close()


@pytest.fixture
def browser(base_url: str, sp: ServiceProvider) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=base_url) as client:
        assert client.put("/service-providers", content=sp_metadata(sp)).status_code == 204
        yield client


@pytest.fixture
def idp(browser: httpx.Client) -> IdentityProvider:
    """The identity provider as its metadata describes it."""
    root = etree.fromstring(browser.get("/metadata").content)
    certificate = next(root.iter(DS + "X509Certificate")).text
    sso = next(root.iter(MD + "SingleSignOnService")).get("Location")
    pem = f"-----BEGIN CERTIFICATE-----\n{certificate}\n-----END CERTIFICATE-----\n"
    x509.load_pem_x509_certificate(pem.encode())
    return IdentityProvider(str(root.get("entityID")), str(sso), (pem,))


def fields(page: str) -> dict[str, str]:
    return {
        unescape(name): unescape(value)
        for name, value in re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)">', page)
    }


def users(page: str) -> dict[str, str]:
    """Name on the button → value of the button."""
    found = re.findall(r'<button name="user" value="([^"]*)">([^<]*)</button>', page)
    return {unescape(label): unescape(value) for value, label in found}


def action(page: str) -> str:
    found = re.search(r'<form method="post" action="([^"]*)">', page)
    assert found
    return unescape(found[1])


def test_redirect_choice_post_and_the_gateway_accepts(
    browser: httpx.Client, sp: ServiceProvider, idp: IdentityProvider
) -> None:
    url, request_id = authn_request_url(sp, idp, 'state "&" more')
    page = browser.get(url)
    assert page.status_code == 200
    assert WARNING in page.text
    assert "<script" not in page.text
    directory = users(page.text)
    assert len(directory) == 4

    dermatologist = next(value for label, value in directory.items() if "dermatologist" in label)
    posting = browser.post(action(page.text), data=fields(page.text) | {"user": dermatologist})
    assert posting.status_code == 200
    assert posting.headers["cache-control"] == "no-store"
    assert action(posting.text) == ACS
    assert "<noscript><button>" in posting.text
    form = fields(posting.text)
    assert form["RelayState"] == 'state "&" more'

    identity = validate_response(form["SAMLResponse"], sp, idp, request_id)
    assert identity.name_id == dermatologist
    assert identity.attributes["email"] == ["dermatologist@acme.derma.example"]
    assert identity.attributes["groups"] == ["derma-physicians"]


def test_sign_in_can_begin_at_the_identity_provider(
    browser: httpx.Client, sp: ServiceProvider, idp: IdentityProvider
) -> None:
    page = browser.get("/sso", params={"sp": ENTITY})
    name = next(iter(users(page.text).values()))
    form = fields(browser.post(action(page.text), data=fields(page.text) | {"user": name}).text)
    allowing = replace(idp, allow_idp_initiated=True)
    assert validate_response(form["SAMLResponse"], sp, allowing, None).name_id == name


def test_a_request_that_was_not_signed_by_its_service_provider_is_refused(
    browser: httpx.Client, sp: ServiceProvider, idp: IdentityProvider
) -> None:
    url, _ = authn_request_url(sp, idp, "state")
    unsigned = url.partition("&Signature=")[0]
    assert "must be signed" in refused(browser, unsigned)
    assert "does not verify" in refused(browser, url.replace("RelayState=state", "RelayState=other"))
    stranger = ServiceProvider(ENTITY, ACS, *new_sp_key(ENTITY))
    assert "does not verify" in refused(browser, authn_request_url(stranger, idp, "state")[0])
    # The form that follows the page carries the request, and is verified just as well.
    answer = browser.post("/sso", data={"query": unsigned.partition("?")[2], "user": "anyone"})
    assert answer.status_code == 400
    assert "must be signed" in answer.text


def test_responses_go_to_registered_addresses_alone(
    browser: httpx.Client, sp: ServiceProvider, idp: IdentityProvider
) -> None:
    elsewhere = replace(sp, acs_url="https://evil.example/acs")
    assert "not registered" in refused(browser, authn_request_url(elsewhere, idp, "")[0])
    unknown = replace(sp, entity_id="https://evil.example/metadata")
    assert "not registered" in refused(browser, authn_request_url(unknown, idp, "")[0])


def test_requests_are_read_with_care(browser: httpx.Client) -> None:

    def send(xml: bytes) -> str:
        deflated = zlib.compress(xml)[2:-4]
        return refused(browser, "/sso?" + urlencode({"SAMLRequest": base64.b64encode(deflated)}))

    assert "has a DTD" in send(b'<!DOCTYPE r [<!ENTITY x SYSTEM "file:///etc/hostname">]><r>&x;</r>')
    assert "too large" in send(b"<r>" + b" " * 10_000_000 + b"</r>")
    assert "not an AuthnRequest" in send(b"<r/>")
    assert "not deflated" in refused(browser, "/sso?SAMLRequest=!!")
    assert "no such person" in browser.post("/sso", data={"query": f"sp={ENTITY}", "user": "nobody"}).text


def test_only_service_provider_metadata_registers(browser: httpx.Client) -> None:
    answer = browser.put("/service-providers", content=browser.get("/metadata").content)
    assert answer.status_code == 400
    assert browser.put("/service-providers", content=b" " * 100_000).status_code == 400


def test_a_key_can_be_kept_in_files(tmp_path: Path) -> None:
    key = SigningKey.generate()
    (tmp_path / "key.pem").write_bytes(key.private_pem)
    (tmp_path / "certificate.pem").write_bytes(key.certificate_pem)
    assert SigningKey.read(tmp_path / "key.pem", tmp_path / "certificate.pem") == key
    assert "PRIVATE" not in repr(key)


def refused(browser: httpx.Client, url: str) -> str:
    answer = browser.get(url)
    assert answer.status_code == 400
    return answer.text
