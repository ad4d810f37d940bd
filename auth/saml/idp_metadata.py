"""Reading an identity provider's metadata (SAML Metadata 2.0, 2.4.3): a file, or what it publishes at its address.

Only what signing in and out needs is taken. The document's own signature counts where an administrator said whose key
to believe; else the administrator vouches for a file, and TLS for an address.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from lxml import etree

from auth.connections.errors import BadConnection
from auth.saml.errors import SamlRefused
from auth.saml.gate import MAX_BYTES, parse
from auth.saml.signature import DS
from auth.saml.validation import verify_enveloped
from core.clock import utcnow

__all__ = ["MAX_BYTES", "IdpMetadata", "read_idp_metadata"]

MD = "{urn:oasis:names:tc:SAML:2.0:metadata}"
_DAY_S = 86_400
# xs:duration; months and years are as long as they may be.
_DURATION = re.compile(r"P(?:(\d+)Y)?(?:(\d+)M)?(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?")
_UNITS_S = (366 * _DAY_S, 31 * _DAY_S, _DAY_S, 3600, 60, 1)
REDIRECT = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect"


@dataclass(frozen=True, slots=True)
class IdpMetadata:
    """`sso_url` and `logout_url` take HTTP-Redirect; `certificates` (PEM) are all that may have signed, in the
    document's order. `fresh_s` is for how many seconds the document may be used without asking again, if it says so."""

    entity_id: str
    sso_url: str
    certificates: tuple[str, ...]
    logout_url: str | None = None
    logout_response_url: str | None = None
    fresh_s: float | None = None


def read_idp_metadata(xml: bytes, signers: Sequence[str] = ()) -> IdpMetadata:
    """Read a document of at most `MAX_BYTES` that describes one identity provider, and that the key of one of the
    certificates `signers` (PEM) signed, if there are any. Raises `BadConnection`."""
    try:
        root = parse(xml)
        if signers:
            verify_enveloped(root, signers)
    except SamlRefused as refusal:
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
    logout = next(
        (each for each in descriptor.findall(MD + "SingleLogoutService") if each.get("Binding") == REDIRECT),
        None,
    )
    logout_url = None if logout is None else logout.get("Location")
    logout_response_url = None if logout is None else logout.get("ResponseLocation", logout_url)
    for url in (sso_url, logout_url, logout_response_url):
        check_address(url)
    return IdpMetadata(
        entity_id=entity_id,
        sso_url=sso_url,
        certificates=certificates,
        logout_url=logout_url,
        logout_response_url=logout_response_url,
        fresh_s=_fresh_s(root, entity, descriptor),
    )


def check_address(url: str | None) -> None:
    """Browsers are sent there. Raises `BadConnection`."""
    if url is None:
        return
    parts = urlsplit(url)
    loopback = parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost")
    if not parts.hostname or not (loopback or parts.scheme == "https"):
        raise BadConnection("The identity provider's addresses must be https (http only on loopback).")


def _refuse_expired(*elements: etree._Element) -> None:
    for until in _ends(elements):
        if until <= utcnow():
            raise BadConnection(
                f"The metadata was valid until {until:%Y-%m-%d %H:%M}; ask for the present one."
            )


def _ends(elements: Iterable[etree._Element]) -> Iterator[datetime]:
    for until in filter(None, (element.get("validUntil") for element in elements)):
        try:
            end = datetime.fromisoformat(until)
        except ValueError:
            raise BadConnection("The metadata's validUntil is not a time.") from None
        yield end.replace(tzinfo=end.tzinfo or UTC)


def _fresh_s(*elements: etree._Element) -> float | None:
    fresh = [(end - utcnow()).total_seconds() for end in _ends(elements)]
    for duration in filter(None, (element.get("cacheDuration") for element in elements)):
        parts = _DURATION.fullmatch(duration)
        if parts is None:
            raise BadConnection("The metadata's cacheDuration is not a duration.")
        fresh.append(
            sum(float(number) * unit for number, unit in zip(parts.groups("0"), _UNITS_S, strict=True))
        )
    return min(fresh, default=None)


def _pem(element: etree._Element) -> str:
    text = "".join((element.text or "").split())
    try:
        certificate = x509.load_der_x509_certificate(base64.b64decode(text, validate=True))
    except (ValueError, binascii.Error):
        raise BadConnection("A signing certificate in the metadata cannot be read.") from None
    return certificate.public_bytes(Encoding.PEM).decode()
