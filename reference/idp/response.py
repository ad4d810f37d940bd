"""Building SAML responses (SAML 2.0 core 3.3.3, profiles 4.1.4), step by step so that tests can step aside.

`build_response` does it all; `unsigned_response`, `sign_element` and `encrypt_assertion` are its steps.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import uuid4

import xmlsec
from lxml import etree
from xmlsec import constants as xs

from core.clock import utcnow
from reference.idp.config import ServiceProvider, Signed, SigningKey, User

SAMLP = "urn:oasis:names:tc:SAML:2.0:protocol"
SAML = "urn:oasis:names:tc:SAML:2.0:assertion"
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
    """Replace the assertion by an EncryptedAssertion: AES-256-GCM, its key under RSA-OAEP."""
    encrypted = etree.Element(f"{{{SAML}}}EncryptedAssertion")
    assertion.addprevious(encrypted)
    encrypted.append(assertion)
    data = xmlsec.template.encrypted_data_create(
        encrypted, xs.TransformAes256Gcm, type=xs.TypeEncElement, ns="xenc"
    )
    xmlsec.template.encrypted_data_ensure_cipher_value(data)
    key_info = xmlsec.template.encrypted_data_ensure_key_info(data, ns="ds")
    encrypted_key = xmlsec.template.add_encrypted_key(key_info, xs.TransformRsaOaep)
    xmlsec.template.encrypted_data_ensure_cipher_value(encrypted_key)

    manager = xmlsec.KeysManager()
    manager.add_key(xmlsec.Key.from_memory(certificate_pem, xs.KeyDataFormatCertPem, None))
    context = xmlsec.EncryptionContext(manager)
    context.key = xmlsec.Key.generate(xs.KeyDataAes, 256, xs.KeyDataTypeSession)
    context.encrypt_xml(data, assertion)


def _add(parent: etree._Element, name: str, text: str | None = None, **attributes: str) -> etree._Element:
    child = etree.SubElement(parent, f"{{{SAML}}}{name}", attributes)
    child.text = text
    return child


def _new_id() -> str:
    return f"_{uuid4().hex}"  # an NCName must not begin with a digit


def _time(instant: datetime) -> str:
    return instant.strftime("%Y-%m-%dT%H:%M:%SZ")
