"""`sso saml`: an identity provider's metadata, honest and hostile."""

import json
from datetime import timedelta
from pathlib import Path

import pytest

from auth.connections.errors import BadConnection
from auth.saml.gate import MAX_BYTES
from auth.saml.idp_metadata import read_idp_metadata
from core.clock import utcnow
from reference.idp.config import IdpConfig
from reference.idp.messages import idp_metadata
from tests.cli.conftest import Command


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

    assert read_idp_metadata(until(1)) == read_idp_metadata(metadata)
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
