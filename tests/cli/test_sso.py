"""`sso saml`: an identity provider's metadata, honest and hostile."""

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from auth.connections.errors import BadConnection
from auth.saml.gate import MAX_BYTES
from auth.saml.idp_metadata import read_idp_metadata
from core.clock import utcnow
from reference.idp.config import IdpConfig
from reference.idp.messages import idp_metadata
from tests.cli.conftest import Command
from tests.fixtures.servers import serving


@pytest.fixture(scope="module")
def config() -> IdpConfig:
    return IdpConfig("https://idp.example")


@pytest.fixture(scope="module")
def metadata(config: IdpConfig) -> bytes:
    return idp_metadata(config)


def test_a_tenant_is_connected_by_its_providers_metadata(
    command: Command, acme: str, metadata: bytes, tmp_path: Path
) -> None:
    before = json.loads(command.run("sso", "saml", "show", acme, "--json").stdout)
    assert before["metadata_url"] == "http://cli-acme.localhost:8000/auth/saml/metadata"
    assert before["acs_url"] == "http://cli-acme.localhost:8000/auth/saml/acs"
    assert before["idp_entity_id"] is None

    file = tmp_path / "idp.xml"
    file.write_bytes(metadata)
    roles = ("--role", "doctors=physician", "--role", "cn=gps,dc=acme=referrer")
    command.run("sso", "saml", "set", acme, "--metadata", str(file), *roles)
    after = json.loads(command.run("sso", "saml", "show", acme, "--json").stdout)
    assert after["idp_entity_id"] == "https://idp.example/metadata"
    assert after["idp_sso_url"] == "https://idp.example/sso"
    assert after["idp_certificates"] == 1
    assert after["roles"] == {"doctors": "physician", "cn=gps,dc=acme": "referrer"}

    set_again = ("sso", "saml", "set", acme, "--metadata", str(file), "--role")
    assert "No role is called" in command.run(*set_again, "doctors=emperor", code=1).stderr
    command.run(*set_again, "doctors", code=2)


def test_what_is_read_is_what_the_provider_says(config: IdpConfig, metadata: bytes) -> None:
    read = read_idp_metadata(metadata)
    assert (read.entity_id, read.sso_url) == (config.entity_id, config.sso_url)
    assert read.certificates == (config.key.certificate_pem.decode(),)


def test_a_federations_wrapper_around_one_provider_is_looked_through(metadata: bytes) -> None:
    body = metadata.partition(b"?>")[2]
    wrapped = (
        b'<E:EntitiesDescriptor xmlns:E="urn:oasis:names:tc:SAML:2.0:metadata">%b</E:EntitiesDescriptor>'
    )
    assert read_idp_metadata(wrapped % body) == read_idp_metadata(metadata)
    with pytest.raises(BadConnection, match="2 identity providers"):
        read_idp_metadata(wrapped % (body + body))


def test_encryption_keys_are_not_taken_for_signing_keys(metadata: bytes) -> None:
    with pytest.raises(BadConnection, match="no signing certificate"):
        read_idp_metadata(metadata.replace(b'use="signing"', b'use="encryption"'))
    assert read_idp_metadata(metadata.replace(b' use="signing"', b"")) == read_idp_metadata(metadata)


def test_metadata_that_has_expired_is_refused(metadata: bytes) -> None:
    def until(days: int) -> bytes:
        end = f"{utcnow() + timedelta(days=days):%Y-%m-%dT%H:%M:%SZ}".encode()
        return metadata.replace(b"entityID=", b'validUntil="%b" entityID=' % end)

    tomorrow = read_idp_metadata(until(1))
    assert tomorrow.fresh_s == pytest.approx(86_400, abs=60)
    assert replace(tomorrow, fresh_s=None) == read_idp_metadata(metadata)
    with pytest.raises(BadConnection, match="valid until"):
        read_idp_metadata(until(-1))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda xml: b"", "not well-formed"),
        (lambda xml: b"not xml", "not well-formed"),
        (lambda xml: b"<a/>", "0 identity providers"),
        (
            lambda xml: xml.replace(b"?>", b'?><!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>', 1),
            "DTD",
        ),
        (lambda xml: xml + b" " * MAX_BYTES, "bytes"),
        (lambda xml: xml.decode().encode("utf-16"), "UTF-8"),
        (lambda xml: xml.replace(b"HTTP-Redirect", b"HTTP-POST"), "HTTP-Redirect"),
        (lambda xml: xml.replace(b"X509Certificate>M", b"X509Certificate>!"), "cannot be read"),
        (lambda xml: xml.replace(b"entityID=", b"ID="), "no entityID"),
    ],
)
def test_hostile_or_broken_metadata_is_refused_by_name(metadata: bytes, change: object, says: str) -> None:
    assert callable(change)
    with pytest.raises(BadConnection, match=says):
        read_idp_metadata(change(metadata))


def test_a_file_that_is_too_large_is_not_read(command: Command, acme: str, tmp_path: Path) -> None:
    file = tmp_path / "huge.xml"
    file.write_bytes(b" " * (MAX_BYTES + 1))
    result = command.run("sso", "saml", "set", acme, "--metadata", str(file), "--role", "a=physician", code=1)
    assert result.stderr.startswith("The file is too large: ")


def test_metadata_is_fetched_where_it_is_published_and_the_rest_changed_by_itself(
    command: Command, acme: str, metadata: bytes, tmp_path: Path
) -> None:
    async def publish(request: Request) -> Response:
        return Response(metadata)

    saml = ("sso", "saml")
    connection = ("--connection", "published")
    command.run(*saml, "set", acme, *connection, "--require-encryption", code=1)  # there is none yet
    with serving(Starlette(routes=[Route("/metadata", publish)])) as url:
        set_it = (
            *saml,
            "set",
            acme,
            *connection,
            "--metadata-url",
            f"{url}/metadata",
            "--role",
            "a=physician",
        )
        assert "DERMADETECT_SSO_FETCH_ALLOW" in command.run(*set_it, code=1).stderr
        command.run(*set_it, "--preset", "entra", "--name-attribute", "cn", sso_fetch_allow="127.0.0.1")
        test = (*saml, "test", acme, *connection)
        looked = {
            each["name"]: each
            for each in json.loads(command.run(*test, "--json", sso_fetch_allow="127.0.0.1").stdout)
        }
        assert {each["state"] for each in looked.values()} == {"ok"}
        assert looked["roles"]["detail"] == "It gives physician."
        assert "DERMADETECT_SSO_FETCH_ALLOW" in command.run(*test, code=1).stdout
    assert "cannot be reached" in command.run(*test, sso_fetch_allow="127.0.0.1", code=1).stdout
    assert "no such connection" in command.run(*saml, "test", acme, "--connection", "none", code=1).stderr
    policies = ("--require-encryption", "--provision", "invited", "--email-domain", "Acme.example")
    after = json.loads(command.run(*saml, "set", acme, *connection, *policies, "--json").stdout)
    assert after["idp_metadata_url"] == f"{url}/metadata"
    assert after["idp_metadata_read_at"] is not None
    assert after["email_attribute"].endswith("/emailaddress")
    assert after["name_attribute"] == "cn"
    assert after["roles"] == {"a": "physician"}
    assert (after["require_encryption"], after["provision"]) == (True, "invited")
    assert after["email_domains"] == ["acme.example"]
    both = ("--metadata-url", "https://idp.example", "--metadata", str(tmp_path))
    for wrong in (both, ("--preset", "oracle"), ("--metadata-signer", __file__)):
        command.run(*saml, "set", acme, *connection, *wrong, code=2)
    for said in ("It is removed.", "nothing was changed"):
        assert said in command.run(*saml, "remove", acme, *connection).stderr
