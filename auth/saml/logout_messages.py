"""Single logout on the wire: LogoutRequest and LogoutResponse (SAML 2.0 core 3.7, bindings 3.4 and 3.5).

What arrives is read in the jail, and by the gate's principles: signed as a whole by a key of the identity provider that
it names, meant for this very address, recent, and without anything that two readers could see differently. By
HTTP-Redirect the signature is over the query as it was sent; those octets are verified, and no others.
"""

import base64
import binascii
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, unquote_plus
from uuid import uuid4

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from lxml import etree

from auth.saml.errors import SamlRefused
from auth.saml.gate import CLOCK_SKEW, MAX_BYTES, SAML, SAMLP, parse, plain_markup
from auth.saml.parties import IdentityProvider, ServiceProvider
from auth.saml.signature import DS
from auth.saml.validation import usable_certificates, verify_enveloped
from core.clock import utcnow

LIFE = timedelta(minutes=10)  # of a message, and of a logout that waits for the provider's answer

_XMLDSIG_MORE = "http://www.w3.org/2001/04/xmldsig-more#"
_RSA_SHA256 = _XMLDSIG_MORE + "rsa-sha256"
_HASHES: dict[str, hashes.HashAlgorithm] = {
    f"{_XMLDSIG_MORE}{kind}-sha{made.digest_size * 8}": made
    for kind in ("rsa", "ecdsa")
    for made in (hashes.SHA256(), hashes.SHA384(), hashes.SHA512())
}
_SUCCESS = "urn:oasis:names:tc:SAML:2.0:status:Success"
_NAMES = frozenset({"SAMLRequest", "SAMLResponse", "RelayState", "SigAlg", "Signature"})


@dataclass(frozen=True, slots=True)
class Arrived:
    """A message as it came: the raw `query` of HTTP-Redirect, or the value of HTTP-POST's `form` field `parameter`
    (`SAMLRequest` or `SAMLResponse`)."""

    parameter: str
    query: str | None = None
    form: str = ""


@dataclass(frozen=True, slots=True)
class Name:
    """A NameID as the identity provider writes it; it must be told the same again."""

    value: str
    format: str | None = None
    qualifier: str | None = None
    sp_qualifier: str | None = None


@dataclass(frozen=True, slots=True)
class LogoutRequest:
    """Whose sessions `issuer` wants ended: all of the person, or those it calls `session_indexes`. Its `id` must be
    remembered until `expires_at`."""

    id: str
    issuer: str
    name_id: str
    session_indexes: tuple[str, ...]
    expires_at: datetime


def read_logout_request(
    arrived: Arrived, sp: ServiceProvider, idps: tuple[IdentityProvider, ...]
) -> LogoutRequest:
    """Raises `SamlRefused`."""
    root, issuer = _read(arrived, "LogoutRequest", sp, idps)
    names = _children(root, SAML + "NameID")
    if len(names) != 1 or len(names[0]) or not names[0].text:
        raise SamlRefused("saml.subject", "a LogoutRequest needs exactly one NameID, not encrypted")
    expires_at = utcnow() + LIFE + CLOCK_SKEW
    if "NotOnOrAfter" in root.attrib:
        expires_at = _instant(root, "NotOnOrAfter")
        if expires_at <= utcnow():
            raise SamlRefused("saml.expired", "NotOnOrAfter has passed")
    return LogoutRequest(
        id=root.get("ID", ""),
        issuer=issuer,
        name_id=names[0].text,
        session_indexes=tuple(each.text or "" for each in _children(root, SAMLP + "SessionIndex")),
        expires_at=expires_at,
    )


def read_logout_response(
    arrived: Arrived, sp: ServiceProvider, idps: tuple[IdentityProvider, ...]
) -> tuple[str, bool]:
    """The id of the request that it answers, and whether the person is signed out everywhere. Raises `SamlRefused`."""
    root, _ = _read(arrived, "LogoutResponse", sp, idps)
    codes = [
        code
        for status in _children(root, SAMLP + "Status")
        for code in _children(status, SAMLP + "StatusCode")
    ]
    if len(codes) != 1 or not root.get("InResponseTo"):
        raise SamlRefused("saml.status", "a LogoutResponse needs one status and the request that it answers")
    return root.get("InResponseTo", ""), codes[0].get("Value") == _SUCCESS


def logout_request_url(
    sp: ServiceProvider, idp: IdentityProvider, name: Name, session_index: str | None
) -> tuple[str, str]:
    """`(url, request_id)`: where to send the browser to end the sign-in at the identity provider, too."""
    assert idp.logout_url is not None
    root = _message("LogoutRequest", sp, idp.logout_url)
    root.set("NotOnOrAfter", _time(utcnow() + LIFE))
    attributes = {
        "Format": name.format,
        "NameQualifier": name.qualifier,
        "SPNameQualifier": name.sp_qualifier,
    }
    named = etree.SubElement(
        root, SAML + "NameID", {key: value for key, value in attributes.items() if value}
    )
    named.text = name.value
    if session_index:
        etree.SubElement(root, SAMLP + "SessionIndex").text = session_index
    return _signed_url(idp.logout_url, "SAMLRequest", root, "", sp), root.get("ID", "")


def logout_response_url(sp: ServiceProvider, url: str, in_response_to: str, relay_state: str) -> str:
    """Where to send the browser to tell the identity provider that its LogoutRequest was done."""
    root = _message("LogoutResponse", sp, url)
    root.set("InResponseTo", in_response_to)
    status = etree.SubElement(root, SAMLP + "Status")
    etree.SubElement(status, SAMLP + "StatusCode", Value=_SUCCESS)
    return _signed_url(url, "SAMLResponse", root, relay_state, sp)


def relay_state_of(query: str) -> str:
    """The RelayState of a raw query that was verified."""
    return unquote_plus(_parameters(query).get("RelayState", ""))


def _read(
    arrived: Arrived, name: str, sp: ServiceProvider, idps: tuple[IdentityProvider, ...]
) -> tuple[etree._Element, str]:
    redirected = {} if arrived.query is None else _parameters(arrived.query)
    if arrived.query is None:
        xml = _base64("".join(arrived.form.split()))
    else:
        xml = _inflated(_base64(unquote_plus(redirected.get(arrived.parameter, ""))))
    root = parse(xml)
    plain_markup(root)
    if root.tag != SAMLP + name or root.get("Version") != "2.0" or not root.get("ID"):
        raise SamlRefused("saml.root", f"the document is not a SAML 2.0 {name}")
    if root.get("Destination") != sp.logout_url:
        raise SamlRefused("saml.destination", "Destination is not this tenant's logout address")
    issuers = [issuer.text for issuer in _children(root, SAML + "Issuer") if not len(issuer)]
    known = [idp for idp in idps if issuers == [idp.entity_id]]
    if not known:
        raise SamlRefused("saml.issuer", "the Issuer is not an identity provider of the tenant")
    certificates = [certificate for idp in known for certificate in usable_certificates(idp)]
    if arrived.query is None:
        verify_enveloped(root, certificates)
    else:
        if any(element.tag == DS + "Signature" for element in root.iter()):
            raise SamlRefused(
                "saml.signature-misplaced", "by redirect the signature stands in the query alone"
            )
        _verify_query(arrived.parameter, redirected, certificates)
    issued = _instant(root, "IssueInstant")
    if not utcnow() - LIFE - CLOCK_SKEW < issued < utcnow() + CLOCK_SKEW:
        raise SamlRefused("saml.expired", "the message was not issued just now")
    return root, known[0].entity_id


def _parameters(query: str) -> dict[str, str]:
    """The parameters of a raw query, still encoded; of ours none may come twice, nor under another spelling."""
    found: dict[str, str] = {}
    for part in query.split("&"):
        encoded, _, value = part.partition("=")
        name = unquote_plus(encoded)
        if name in _NAMES and (name in found or name != encoded):
            raise SamlRefused("saml.parameter-twice", "a parameter of the message came more than once")
        found[name] = value
    if "SAMLRequest" in found and "SAMLResponse" in found:
        raise SamlRefused("saml.parameter-twice", "a request and a response came at once")
    return found


def _verify_query(parameter: str, raw: dict[str, str], certificates: list[str]) -> None:
    """Bindings 3.4.4.1: the signature is over these parameters, in this order, as the sender encoded them."""
    names = [name for name in (parameter, "RelayState", "SigAlg") if name in raw]
    signed = "&".join(f"{name}={raw[name]}" for name in names).encode()
    algorithm = unquote_plus(raw.get("SigAlg", ""))
    if not raw.get("Signature"):
        raise SamlRefused("saml.signature-missing", "the message is not signed")
    if algorithm not in _HASHES:
        raise SamlRefused("saml.signature-algorithm", "only RSA and ECDSA with SHA-256 or stronger")
    signature = _base64(unquote_plus(raw["Signature"]))
    if not any(_verifies(certificate, algorithm, signature, signed) for certificate in certificates):
        raise SamlRefused("saml.invalid-signature", "none of the expected keys signed the message")


def _verifies(certificate_pem: str, algorithm: str, signature: bytes, signed: bytes) -> bool:
    key = x509.load_pem_x509_certificate(certificate_pem.encode()).public_key()
    try:
        if isinstance(key, rsa.RSAPublicKey) and "#rsa-" in algorithm:
            key.verify(signature, signed, padding.PKCS1v15(), _HASHES[algorithm])
            return True
        if isinstance(key, ec.EllipticCurvePublicKey) and "#ecdsa-" in algorithm:
            half = len(signature) // 2  # RFC 4051, 2.3.6: r and s, one after the other
            r, s = (int.from_bytes(part, "big") for part in (signature[:half], signature[half:]))
            key.verify(encode_dss_signature(r, s), signed, ec.ECDSA(_HASHES[algorithm]))
            return True
    except InvalidSignature:
        pass
    return False


def _message(name: str, sp: ServiceProvider, destination: str) -> etree._Element:
    root = etree.Element(
        SAMLP + name,
        {
            "ID": f"_{uuid4().hex}",
            "Version": "2.0",
            "IssueInstant": _time(utcnow()),
            "Destination": destination,
        },
        nsmap={"samlp": SAMLP[1:-1], "saml": SAML[1:-1]},
    )
    etree.SubElement(root, SAML + "Issuer").text = sp.entity_id
    return root


def _signed_url(url: str, parameter: str, root: etree._Element, relay_state: str, sp: ServiceProvider) -> str:
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    deflated = deflater.compress(etree.tostring(root)) + deflater.flush()
    parameters = {parameter: base64.b64encode(deflated).decode()}
    if relay_state:
        parameters["RelayState"] = relay_state
    parameters["SigAlg"] = _RSA_SHA256
    query = "&".join(f"{name}={quote(value, safe='')}" for name, value in parameters.items())
    key = serialization.load_pem_private_key(sp.private_key_pem.encode(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    signature = base64.b64encode(key.sign(query.encode(), padding.PKCS1v15(), hashes.SHA256())).decode()
    return f"{url}{'&' if '?' in url else '?'}{query}&Signature={quote(signature, safe='')}"


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise SamlRefused("saml.base64", "the message is not base64") from None


def _inflated(deflated: bytes) -> bytes:
    inflater = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
    try:
        xml = inflater.decompress(deflated, MAX_BYTES)
    except zlib.error:
        raise SamlRefused("saml.deflate", "the message is not deflated") from None
    if not inflater.eof:
        raise SamlRefused("saml.too-large", "the message is too large, or cut off")
    return xml


def _children(parent: etree._Element, tag: str) -> list[etree._Element]:
    return [child for child in parent if child.tag == tag]


def _instant(element: etree._Element, name: str) -> datetime:
    try:
        instant = datetime.fromisoformat(element.get(name, ""))
    except ValueError:
        instant = None
    if instant is None or instant.tzinfo is None:
        raise SamlRefused("saml.time", f"{name} is not a time in UTC")
    return instant.astimezone(UTC)


def _time(instant: datetime) -> str:
    return instant.strftime("%Y-%m-%dT%H:%M:%SZ")
