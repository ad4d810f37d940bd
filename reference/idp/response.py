"""Building SAML responses (SAML 2.0 core 3.3.3, profiles 4.1.4), step by step so that tests can step aside.

`build_response` does it all; `unsigned_response`, `sign_element` and `encrypt_assertion` are its steps.
"""

import base64
import os
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import uuid4

import xmlsec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from lxml import etree
from xmlsec import constants as xs

from core.clock import utcnow
from reference.idp.config import ServiceProvider, Signed, SigningKey, User

SAMLP = "urn:oasis:names:tc:SAML:2.0:protocol"
SAML = "urn:oasis:names:tc:SAML:2.0:assertion"
DS = "http://www.w3.org/2000/09/xmldsig#"
XENC = "http://www.w3.org/2001/04/xmlenc#"
PERSISTENT = "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent"
LIFETIME = timedelta(minutes=5)

_BEARER = "urn:oasis:names:tc:SAML:2.0:cm:bearer"
_SUCCESS = "urn:oasis:names:tc:SAML:2.0:status:Success"
_CONTEXT = "urn:oasis:names:tc:SAML:2.0:ac:classes:unspecified"
_BASIC = "urn:oasis:names:tc:SAML:2.0:attrname-format:basic"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a response says. `in_response_to` is None for a response nobody asked for."""

    issuer: str
    sp: ServiceProvider
    user: User
    in_response_to: str | None
    issued_at: datetime | None = None  # now, if not given
    lifetime: timedelta = LIFETIME


def build_response(
    answer: Answer, key: SigningKey, sign: Signed = "assertion", encrypt: bool = False
) -> bytes:
    """A complete response document, signed with `key` and encrypted to the service provider's certificate."""
    response = unsigned_response(answer)
    assertion = response[-1]
    if sign in ("assertion", "both"):
        sign_element(assertion, key)
    if encrypt:
        if answer.sp.certificate_pem is None:
            raise ValueError(f"{answer.sp.entity_id} has no certificate to encrypt to")
        encrypt_assertion(assertion, answer.sp.certificate_pem)
    if sign in ("response", "both"):
        sign_element(response, key)
    return etree.tostring(response)


def unsigned_response(answer: Answer) -> etree._Element:
    """The response as a tree, before any signature; the assertion is its last child."""
    issued_at = answer.issued_at or utcnow()
    now, end = _time(issued_at), _time(issued_at + answer.lifetime)
    reply = {"InResponseTo": answer.in_response_to} if answer.in_response_to else {}

    response = etree.Element(f"{{{SAMLP}}}Response", nsmap={"samlp": SAMLP, "saml": SAML})
    for name, value in {"ID": _new_id(), "Version": "2.0", "IssueInstant": now}.items():
        response.set(name, value)
    response.set("Destination", answer.sp.acs_url)
    for name, value in reply.items():
        response.set(name, value)
    _add(response, "Issuer", answer.issuer)
    status = etree.SubElement(response, f"{{{SAMLP}}}Status")
    etree.SubElement(status, f"{{{SAMLP}}}StatusCode", Value=_SUCCESS)

    assertion = _add(response, "Assertion", ID=_new_id(), Version="2.0", IssueInstant=now)
    _add(assertion, "Issuer", answer.issuer)
    subject = _add(assertion, "Subject")
    _add(subject, "NameID", answer.user.name_id, Format=PERSISTENT)
    confirmation = _add(subject, "SubjectConfirmation", Method=_BEARER)
    _add(confirmation, "SubjectConfirmationData", NotOnOrAfter=end, Recipient=answer.sp.acs_url, **reply)
    conditions = _add(assertion, "Conditions", NotBefore=now, NotOnOrAfter=end)
    _add(_add(conditions, "AudienceRestriction"), "Audience", answer.sp.entity_id)
    statement = _add(assertion, "AuthnStatement", AuthnInstant=now, SessionIndex=_new_id())
    _add(_add(statement, "AuthnContext"), "AuthnContextClassRef", _CONTEXT)
    attributes = _add(assertion, "AttributeStatement")
    for name, values in (
        ("email", (answer.user.email,)),
        ("displayName", (answer.user.display_name,)),
        ("groups", answer.user.groups),
    ):
        attribute = _add(attributes, "Attribute", Name=name, NameFormat=_BASIC)
        for text in values:
            _add(attribute, "AttributeValue", text)
    return response


def sign_element(element: etree._Element, key: SigningKey) -> None:
    """Put an enveloped signature after the element's Issuer: RSA-SHA256, exclusive canonicalization."""
    issuer = element.find(f"{{{SAML}}}Issuer")
    if issuer is None:
        raise ValueError("what is signed must begin with its Issuer")
    signature = xmlsec.template.create(element, xs.TransformExclC14N, xs.TransformRsaSha256, ns="ds")
    issuer.addnext(signature)
    reference = xmlsec.template.add_reference(signature, xs.TransformSha256, uri=f"#{element.get('ID')}")
    xmlsec.template.add_transform(reference, xs.TransformEnveloped)
    xmlsec.template.add_transform(reference, xs.TransformExclC14N)
    xmlsec.template.add_x509_data(xmlsec.template.ensure_key_info(signature))
    resign(signature, key)


def resign(signature: etree._Element, key: SigningKey) -> None:
    """Compute digest and value of a signature template that already stands in its document."""
    xmlsec.tree.add_ids(signature.getroottree().getroot(), ["ID"])
    context = xmlsec.SignatureContext()
    context.key = xmlsec.Key.from_memory(key.private_pem, xs.KeyDataFormatPem, None)
    context.key.load_cert_from_memory(key.certificate_pem, xs.KeyDataFormatPem)
    context.sign(signature)


def encrypt_assertion(assertion: etree._Element, certificate_pem: bytes) -> None:
    """Replace the assertion by an EncryptedAssertion: AES-256-GCM, its key under RSA-OAEP (XML Encryption 1.1, 5.2.4
    and 5.5.2). Done without xmlsec, which would decrypt its own mistakes."""
    certificate = x509.load_pem_x509_certificate(certificate_pem)
    public_key = certificate.public_key()
    if not isinstance(public_key, rsa.RSAPublicKey):
        raise ValueError("assertions are encrypted to RSA keys")
    key, nonce = os.urandom(32), os.urandom(12)
    sealed = nonce + AESGCM(key).encrypt(nonce, etree.tostring(assertion, with_tail=False), None)
    oaep = padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None)  # noqa: S303  # what the name means

    encrypted = etree.Element(f"{{{SAML}}}EncryptedAssertion", nsmap={"saml": SAML, "xenc": XENC, "ds": DS})
    data = etree.SubElement(encrypted, f"{{{XENC}}}EncryptedData", Type=f"{XENC}Element")
    _cipher(data, "http://www.w3.org/2009/xmlenc11#aes256-gcm", sealed)
    key_info = etree.Element(f"{{{DS}}}KeyInfo")
    data.insert(1, key_info)
    _cipher(
        etree.SubElement(key_info, f"{{{XENC}}}EncryptedKey"),
        f"{XENC}rsa-oaep-mgf1p",
        public_key.encrypt(key, oaep),
    )
    parent = assertion.getparent()
    assert parent is not None
    parent.replace(assertion, encrypted)


def _cipher(element: etree._Element, algorithm: str, sealed: bytes) -> None:
    etree.SubElement(element, f"{{{XENC}}}EncryptionMethod", Algorithm=algorithm)
    data = etree.SubElement(element, f"{{{XENC}}}CipherData")
    etree.SubElement(data, f"{{{XENC}}}CipherValue").text = base64.b64encode(sealed).decode()


def _add(parent: etree._Element, name: str, text: str | None = None, **attributes: str) -> etree._Element:
    child = etree.SubElement(parent, f"{{{SAML}}}{name}", attributes)
    child.text = text
    return child


def _new_id() -> str:
    return f"_{uuid4().hex}"  # an NCName must not begin with a digit


def _time(instant: datetime) -> str:
    return instant.strftime("%Y-%m-%dT%H:%M:%SZ")
