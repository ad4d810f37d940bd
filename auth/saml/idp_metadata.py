"""Reading an identity provider's metadata (SAML Metadata 2.0, 2.4.3), which an administrator was sent by mail.

Only what sign-in needs is taken. The document's own signature says nothing here, since nobody told us whose key
to believe: the administrator vouches for the file.
"""

import base64
import binascii
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from lxml import etree

from auth.connections.errors import BadConnection
from auth.saml.errors import GateRefusal
from auth.saml.gate import MAX_BYTES, parse
from auth.saml.signature import DS
from core.clock import utcnow

__all__ = ["MAX_BYTES", "IdpMetadata", "read_idp_metadata"]

MD = "{urn:oasis:names:tc:SAML:2.0:metadata}"
REDIRECT = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect"


@dataclass(frozen=True, slots=True)
class IdpMetadata:
    """`sso_url` takes HTTP-Redirect; `certificates` (PEM) are all that may have signed, in the document's order."""

    entity_id: str
    sso_url: str
    certificates: tuple[str, ...]


def read_idp_metadata(xml: bytes) -> IdpMetadata:
    """Read a document of at most `MAX_BYTES` that describes one identity provider. Raises `BadConnection`."""
    try:
        root = parse(xml)
    except GateRefusal as refusal:
        raise BadConnection(f"The metadata was not read: {refusal.explanation}.") from None
    providers = [
        each for each in root.iter(MD + "EntityDescriptor") if each.find(MD + "IDPSSODescriptor") is not None
    ]
    if len(providers) != 1:
        raise BadConnection(
            f"The file describes {len(providers)} identity providers; give the metadata of one (an "
            "EntityDescriptor with an IDPSSODescriptor)."
        )
    entity = providers[0]
    entity_id, descriptor = entity.get("entityID"), entity.find(MD + "IDPSSODescriptor")
    assert descriptor is not None  # that is how it was chosen
    if not entity_id:
        raise BadConnection("The metadata names no entityID.")
    _refuse_expired(root, entity, descriptor)
    services = descriptor.findall(MD + "SingleSignOnService")
    sso_url = next((each.get("Location") for each in services if each.get("Binding") == REDIRECT), None)
    if not sso_url:
        raise BadConnection("The metadata names no SingleSignOnService with the HTTP-Redirect binding.")
    keys = [
        each for each in descriptor.findall(MD + "KeyDescriptor") if each.get("use", "signing") == "signing"
    ]
    found = [text for key in keys for text in key.iter(DS + "X509Certificate")]
    certificates = tuple(dict.fromkeys(map(_pem, found)))
    if not certificates:
        raise BadConnection("The metadata holds no signing certificate.")
    return IdpMetadata(entity_id, sso_url, certificates)


def _refuse_expired(*elements: etree._Element) -> None:
    for element in elements:
        until = element.get("validUntil")
        if until is None:
            continue
        try:
            end = datetime.fromisoformat(until)
        except ValueError:
            raise BadConnection("The metadata's validUntil is not a time.") from None
        if end.replace(tzinfo=end.tzinfo or UTC) <= utcnow():
            raise BadConnection(f"The metadata was valid until {until}; ask for the present one.")


def _pem(element: etree._Element) -> str:
    text = "".join((element.text or "").split())
    try:
        certificate = x509.load_der_x509_certificate(base64.b64decode(text, validate=True))
    except (ValueError, binascii.Error):
        raise BadConnection("A signing certificate in the metadata cannot be read.") from None
    return certificate.public_bytes(Encoding.PEM).decode()
