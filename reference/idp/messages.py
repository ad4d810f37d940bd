"""Reading what service providers send: AuthnRequests and metadata; and the provider's own metadata.

HTTP-Redirect binding and its signature: SAML Bindings 2.0, 3.4.4.
"""

import base64
import binascii
import zlib
from dataclasses import dataclass
from urllib.parse import unquote_plus

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from lxml import etree

from reference.idp.config import IdpConfig, ServiceProvider
from reference.idp.response import PERSISTENT, SAML, SAMLP

MAX_BYTES = 64 * 1024
MD = "urn:oasis:names:tc:SAML:2.0:metadata"
DS = "http://www.w3.org/2000/09/xmldsig#"
POST = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST"
REDIRECT = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect"
_HASHES: dict[str, hashes.HashAlgorithm] = {
    "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256": hashes.SHA256(),
    "http://www.w3.org/2001/04/xmldsig-more#rsa-sha384": hashes.SHA384(),
    "http://www.w3.org/2001/04/xmldsig-more#rsa-sha512": hashes.SHA512(),
}


class BadMessage(Exception):
    """What arrived is not something this identity provider answers."""


@dataclass(frozen=True, slots=True)
class AuthnRequest:
    """A request that was accepted. `id` is None where the browser came without one (IdP-initiated)."""

    sp: ServiceProvider
    id: str | None
    relay_state: str | None


def read_request(query: str, service_providers: dict[str, ServiceProvider], sso_url: str) -> AuthnRequest:
    """Read and verify the raw query string of `/sso`.

    Either `SAMLRequest` (HTTP-Redirect), or `sp=ENTITY-ID` to begin at the identity provider. Raises
    `BadMessage`.
    """
    raw = dict(part.partition("=")[::2] for part in query.split("&"))
    values = {name: unquote_plus(value) for name, value in raw.items()}
    if "SAMLRequest" not in values:
        return AuthnRequest(_known(values.get("sp"), service_providers), None, values.get("RelayState"))
    root = _parse(_inflate(values["SAMLRequest"]))
    if root.tag != f"{{{SAMLP}}}AuthnRequest" or not root.get("ID"):
        raise BadMessage("SAMLRequest is not an AuthnRequest")
    sp = _known(root.findtext(f"{{{SAML}}}Issuer"), service_providers)
    if sp.requires_signed_requests:
        _verify(raw, values, sp)
    if root.get("Destination", sso_url) != sso_url:
        raise BadMessage("the request is meant for another address")
    if root.get("AssertionConsumerServiceURL", sp.acs_url) != sp.acs_url:
        raise BadMessage("the request names an assertion consumer service that is not registered")
    return AuthnRequest(sp, root.get("ID"), values.get("RelayState"))


def read_sp_metadata(xml: bytes) -> ServiceProvider:
    """Read a service provider's metadata. Raises `BadMessage`."""
    root = _parse(xml)
    descriptor = root.find(f"{{{MD}}}SPSSODescriptor")
    if root.tag != f"{{{MD}}}EntityDescriptor" or not root.get("entityID") or descriptor is None:
        raise BadMessage("not the metadata of a service provider")
    services = descriptor.findall(f"{{{MD}}}AssertionConsumerService")
    acs_url = next((s.get("Location") for s in services if s.get("Binding") == POST), None)
    if not acs_url or not acs_url.startswith(("https://", "http://")):
        raise BadMessage("no assertion consumer service with HTTP-POST")
    signed = descriptor.get("AuthnRequestsSigned") in ("true", "1")
    text = descriptor.findtext(f".//{{{DS}}}X509Certificate")
    if text is None and signed:
        raise BadMessage("requests are to be signed, but there is no certificate")
    return ServiceProvider(root.get("entityID", ""), acs_url, _pem(text) if text else None, signed)


def idp_metadata(config: IdpConfig) -> bytes:
    """The metadata of this identity provider (SAML Metadata 2.0, 2.4.3)."""
    root = etree.Element(f"{{{MD}}}EntityDescriptor", nsmap={"md": MD, "ds": DS}, entityID=config.entity_id)
    idp = etree.SubElement(
        root, f"{{{MD}}}IDPSSODescriptor", protocolSupportEnumeration=SAMLP, WantAuthnRequestsSigned="false"
    )
    element = etree.SubElement(idp, f"{{{MD}}}KeyDescriptor", use="signing")
    for name in ("KeyInfo", "X509Data", "X509Certificate"):
        element = etree.SubElement(element, f"{{{DS}}}{name}")
    element.text = "".join(config.key.certificate_pem.decode().splitlines()[1:-1])
    etree.SubElement(idp, f"{{{MD}}}NameIDFormat").text = PERSISTENT
    etree.SubElement(idp, f"{{{MD}}}SingleSignOnService", Binding=REDIRECT, Location=config.sso_url)
    return etree.tostring(root, xml_declaration=True, encoding="UTF-8")


def _known(entity_id: str | None, service_providers: dict[str, ServiceProvider]) -> ServiceProvider:
    if entity_id is None or entity_id not in service_providers:
        raise BadMessage("the service provider is not registered")
    return service_providers[entity_id]


def _inflate(value: str) -> bytes:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        xml = inflater.decompress(base64.b64decode(value, validate=True), MAX_BYTES)
    except (binascii.Error, ValueError, zlib.error) as error:
        raise BadMessage("SAMLRequest is not deflated and base64-encoded") from error
    if not inflater.eof:
        raise BadMessage("SAMLRequest is too large or cut off")
    return xml


def _parse(xml: bytes) -> etree._Element:
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, remove_comments=True)
    if len(xml) > MAX_BYTES or b"<!DOCTYPE" in xml:
        raise BadMessage("the document is too large or has a DTD")
    try:
        return etree.fromstring(xml, parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise BadMessage("the document is not well-formed XML") from error


def _verify(raw: dict[str, str], values: dict[str, str], sp: ServiceProvider) -> None:
    """Verify the query's signature, made over the parameters as they were encoded."""
    signed = "&".join(f"{n}={raw[n]}" for n in ("SAMLRequest", "RelayState", "SigAlg") if n in raw)
    algorithm = _HASHES.get(values.get("SigAlg", ""))
    if algorithm is None or "Signature" not in values:
        raise BadMessage("the request must be signed with RSA and SHA-256 or stronger")
    certificate = x509.load_pem_x509_certificate(sp.certificate_pem or b"")
    public_key = certificate.public_key()
    if not isinstance(public_key, rsa.RSAPublicKey):
        raise BadMessage("the service provider's key is not RSA")
    try:
        signature = base64.b64decode(values["Signature"], validate=True)
        public_key.verify(signature, signed.encode(), padding.PKCS1v15(), algorithm)
    except (InvalidSignature, binascii.Error) as error:
        raise BadMessage("the signature of the request does not verify") from error


def _pem(base64_text: str) -> bytes:
    lines = "".join(base64_text.split())
    body = "\n".join(lines[i : i + 64] for i in range(0, len(lines), 64))
    pem = f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n".encode()
    try:
        x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise BadMessage("the certificate cannot be read") from error
    return pem
