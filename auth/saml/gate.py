"""The gate in front of the SAML library.

python3-saml alone lets some attacks through: it compares Recipient by substring and Destination by prefix, it
takes an InResponseTo that only the unsigned wrapper carries, and it runs whatever transforms a signature
names before it knows whose signature it is. The gate admits only the narrow shape that web single sign-on
needs and refuses the rest, by structure and exact comparison. It verifies no signature itself: what it
guarantees is that the element a signature covers is the element that will be read.

Sources: SAML 2.0 core 5.4 (signature profile), profiles 4.1.4 (web SSO); Somorovsky and others, "On Breaking
SAML: Be Whoever You Want to Be" (USENIX Security 2012), which numbers the wrappings XSW 1 to 8.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import cast

from lxml import etree

from auth.saml.errors import GateRefusal
from auth.saml.signature import DS, inspect_signature
from core.clock import utcnow

MAX_BYTES = 256 * 1024
MAX_ELEMENTS = 2_000
MAX_ATTRIBUTES = 20  # of one element; namespace declarations are counted apart
CLOCK_SKEW = timedelta(seconds=120)  # a NotBefore may lie this far ahead; a NotOnOrAfter gets no grace

SAMLP = "{urn:oasis:names:tc:SAML:2.0:protocol}"
SAML = "{urn:oasis:names:tc:SAML:2.0:assertion}"
XENC = "{http://www.w3.org/2001/04/xmlenc#}"
XENC11 = "{http://www.w3.org/2009/xmlenc11#}"

_BEARER = "urn:oasis:names:tc:SAML:2.0:cm:bearer"
_SUCCESS = "urn:oasis:names:tc:SAML:2.0:status:Success"
# No CipherReference: it may name transforms, and those run before anything is decrypted.
_ENCRYPTION_ELEMENTS = (
    {
        XENC + name
        for name in ("EncryptedData", "EncryptedKey", "EncryptionMethod", "CipherData", "CipherValue")
    }
    | {XENC + name for name in ("OAEPparams", "CarriedKeyName", "ReferenceList", "DataReference")}
    | {DS + name for name in ("KeyInfo", "KeyName", "DigestMethod", "X509Data", "X509Certificate")}
    | {DS + name for name in ("X509IssuerSerial", "X509IssuerName", "X509SerialNumber", "X509SKI")}
    | {DS + "X509SubjectName", XENC11 + "MGF", SAML + "EncryptedAssertion"}
)
_GCM = {f"http://www.w3.org/2009/xmlenc11#aes{bits}-gcm" for bits in (128, 192, 256)}
# Malleable: whoever is told apart what came of a changed text decrypts it (Jager and Somorovsky 2011). We tell nobody.
_CBC = {f"http://www.w3.org/2001/04/xmlenc#aes{bits}-cbc" for bits in (128, 192, 256)}
# RSA with PKCS #1 v1.5 padding is left out: a server that answers makes it decryptable (Bleichenbacher 1998).
_KEY_ENCRYPTION = {
    "http://www.w3.org/2001/04/xmlenc#rsa-oaep-mgf1p",
    "http://www.w3.org/2009/xmlenc11#rsa-oaep",
}


@dataclass(frozen=True, slots=True)
class Expected:
    """What the response must say, to the letter. `request_id` is None for a response nobody asked for."""

    idp_entity_id: str
    sp_entity_id: str
    acs_url: str
    request_id: str | None
    allow_idp_initiated: bool = False
    allow_cbc: bool = False
    at: datetime | None = None  # the moment at which it must hold; None is now


def inspect(xml: bytes, expected: Expected) -> None:
    """Admit a raw response document, or raise `GateRefusal`. Signatures remain to be verified."""
    inspect_tree(parse(xml), expected)


def parse(xml: bytes) -> etree._Element:
    """Parse a hostile document: bounded, UTF-8, without DTD or entities. Raises `GateRefusal`."""
    if len(xml) > MAX_BYTES:
        raise GateRefusal("saml.too-large", f"the document has more than {MAX_BYTES} bytes")
    declared = re.match(rb"(?:\xef\xbb\xbf)?<\?xml[^>]*?encoding\s*=\s*[\"']([^\"']*)", xml)
    if (declared and declared[1].lower() not in (b"utf-8", b"us-ascii")) or not _is_utf8(xml):
        raise GateRefusal("saml.encoding", "the document is not UTF-8")
    # Before parsing, because attributes expand entities while they are read. The encoding is known by now,
    # so the word cannot hide.
    if b"<!DOCTYPE" in xml or b"<!ENTITY" in xml:
        raise GateRefusal("saml.dtd-forbidden", "the document has a DTD or entities")
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        return etree.fromstring(xml, parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise GateRefusal("saml.malformed", "the document is not well-formed XML") from error


def inspect_tree(root: etree._Element, expected: Expected, *, decrypted: bool = False) -> None:
    """Admit a parsed response; `decrypted` says that its assertion has been decrypted in place.

    Raises `GateRefusal`. An assertion still encrypted is admitted by its envelope and looked at again later.
    """
    assertion = inspect_shape(root, decrypted=decrypted, allow_cbc=expected.allow_cbc)
    _response(root, expected)
    if assertion.tag == SAML + "Assertion":
        _assertion(assertion, expected)


def inspect_shape(
    root: etree._Element, *, decrypted: bool = False, allow_cbc: bool = False
) -> etree._Element:
    """Admit a response by its shape alone, whatever it says and whomever it is for; its one assertion, which may be
    encrypted. Raises `GateRefusal`."""
    plain_markup(root)
    if root.tag != SAMLP + "Response":
        raise GateRefusal("saml.root", "the document is not a SAML 2.0 Response")
    signatures = _signatures(root)
    _status(root)
    assertion = _sole_assertion(root)
    if assertion.tag == SAML + "EncryptedAssertion":
        if decrypted:
            raise GateRefusal("saml.encryption-structure", "the decrypted assertion is encrypted again")
        _encryption(assertion, _GCM | _CBC if allow_cbc else _GCM)
    elif not signatures:
        raise GateRefusal("saml.signature-missing", "neither the response nor the assertion is signed")
    return assertion


def plain_markup(root: etree._Element) -> None:
    """Refuse a node that two readers could see differently, a name given twice, and more of anything than sign-ins have:
    canonicalization and schema checking are quadratic in the attributes of an element. Raises `GateRefusal`."""
    for count, element in enumerate(root.iter(), 1):
        if (
            count > MAX_ELEMENTS
            or len(element.attrib) > MAX_ATTRIBUTES
            or len(element.nsmap) > MAX_ATTRIBUTES
        ):
            raise GateRefusal(
                "saml.too-complex", "the document has too many elements, attributes or namespaces"
            )
    # XPath sees what the library's element class hides from iteration.
    if root.xpath("//comment()"):
        raise GateRefusal("saml.comment-forbidden", "the document has comments")
    if root.xpath("//processing-instruction()"):
        raise GateRefusal("saml.processing-instruction", "the document has processing instructions")
    for _, declaration in etree.iterwalk(root, events=("start-ns",)):
        # Canonicalization fails on these, and a verifier that goes on then signs off on nothing.
        if declaration[1] and not re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", declaration[1]):
            raise GateRefusal("saml.namespace-relative", "a namespace name is relative")
    ids = cast(list[str], root.xpath("//@*[translate(local-name(), 'ID', 'id') = 'id']"))
    if any(count > 1 for count in Counter(ids).values()):
        raise GateRefusal("saml.duplicate-id", "an ID is given to more than one element")


def _signatures(root: etree._Element) -> list[etree._Element]:
    signatures = [element for element in root.iter() if element.tag == DS + "Signature"]
    for signature in signatures:
        parent = signature.getparent()
        if parent is not root and (
            parent is None or parent.tag != SAML + "Assertion" or parent.getparent() is not root
        ):
            raise GateRefusal(
                "saml.signature-misplaced", "a signature sits outside the response and the assertion"
            )
        if [child.tag for child in parent].count(DS + "Signature") != 1:
            raise GateRefusal("saml.signature-count", "an element has more than one signature")
        inspect_signature(signature)
    return signatures


def _status(root: etree._Element) -> None:
    status = _one(root, SAMLP + "Status", "saml.status")
    if _one(status, SAMLP + "StatusCode", "saml.status").get("Value") != _SUCCESS:
        raise GateRefusal("saml.status", "the identity provider did not sign the person in")


def _sole_assertion(root: etree._Element) -> etree._Element:
    found = _all(root, "Assertion", "EncryptedAssertion")
    if len(found) != 1 or found[0].getparent() is not root:
        raise GateRefusal("saml.assertion-count", "the response must hold exactly one assertion")
    return found[0]


def _response(root: etree._Element, expected: Expected) -> None:
    if root.get("Destination") != expected.acs_url:
        raise GateRefusal("saml.destination", "Destination is not this tenant's ACS")
    if any(_text(issuer) != expected.idp_entity_id for issuer in _children(root, SAML + "Issuer")):
        raise GateRefusal("saml.issuer", "the response's Issuer is not the tenant's identity provider")
    _in_response_to(root, expected)


def _encryption(encrypted: etree._Element, data_encryption: set[str]) -> None:
    elements = list(encrypted.iter())
    data = _one(encrypted, XENC + "EncryptedData", "saml.encryption-structure")
    keys = [e for e in elements if e.tag == XENC + "EncryptedKey"]
    if any(e.tag not in _ENCRYPTION_ELEMENTS for e in elements) or len(keys) != 1:
        raise GateRefusal("saml.encryption-structure", "the encrypted assertion has unexpected parts")
    for element, allowed in ((data, data_encryption), (keys[0], _KEY_ENCRYPTION)):
        method = _one(element, XENC + "EncryptionMethod", "saml.encryption-structure")
        if method.get("Algorithm") not in allowed:
            raise GateRefusal(
                "saml.encryption-algorithm", "only AES-GCM (CBC where the connection allows it) with RSA-OAEP"
            )


def _assertion(assertion: etree._Element, expected: Expected) -> None:
    if _text(_one(assertion, SAML + "Issuer", "saml.issuer")) != expected.idp_entity_id:
        raise GateRefusal("saml.issuer", "the assertion's Issuer is not the tenant's identity provider")
    if _all(assertion, "EncryptedID", "EncryptedAttribute"):
        raise GateRefusal(
            "saml.encrypted-part", "encrypted names and attributes inside an assertion are not used"
        )
    _texts(assertion)

    subject = _one(assertion, SAML + "Subject", "saml.subject")
    _one(subject, SAML + "NameID", "saml.subject")
    confirmation = _one(subject, SAML + "SubjectConfirmation", "saml.subject-confirmation")
    if confirmation.get("Method") != _BEARER:
        raise GateRefusal("saml.subject-confirmation", "the subject is not confirmed as bearer")
    data = _one(confirmation, SAML + "SubjectConfirmationData", "saml.subject-confirmation")
    if data.get("Recipient") != expected.acs_url:
        raise GateRefusal("saml.recipient", "Recipient is not this tenant's ACS")
    _in_response_to(data, expected)

    conditions = _one(assertion, SAML + "Conditions", "saml.conditions")
    restrictions = _children(conditions, SAML + "AudienceRestriction")
    if not restrictions or not all(  # restrictions are joined by "and", audiences in one by "or"
        any(_text(audience) == expected.sp_entity_id for audience in _all(restriction, "Audience"))
        for restriction in restrictions
    ):
        raise GateRefusal("saml.audience", "the assertion is not meant for this tenant")

    if data.get("NotOnOrAfter") is None:
        raise GateRefusal("saml.not-on-or-after-missing", "SubjectConfirmationData has no NotOnOrAfter")
    now = expected.at or utcnow()
    for element in (conditions, data, *_all(assertion, "AuthnStatement")):
        for end in ("NotOnOrAfter", "SessionNotOnOrAfter"):
            if end in element.attrib and _instant(element, end) <= now:
                raise GateRefusal("saml.expired", f"{end} has passed")
        if "NotBefore" in element.attrib and _instant(element, "NotBefore") > now + CLOCK_SKEW:
            raise GateRefusal("saml.not-yet-valid", "NotBefore lies in the future")


def _in_response_to(element: etree._Element, expected: Expected) -> None:
    """Both the message and the confirmation must answer our request; only the second is always signed."""
    answered = element.get("InResponseTo")
    if expected.request_id is None:
        if not expected.allow_idp_initiated:
            raise GateRefusal("saml.idp-initiated", "a response without a request is not allowed here")
        if answered is not None:
            raise GateRefusal("saml.in-response-to-unexpected", "the response answers an unknown request")
    elif answered is None:
        raise GateRefusal("saml.in-response-to-missing", "the response does not say which request it answers")
    elif answered != expected.request_id:
        raise GateRefusal("saml.in-response-to", "the response answers another request")


def _texts(assertion: etree._Element) -> None:
    """Values are text alone: a reader that takes the text before the first child would take a part of it."""
    for element in _all(assertion, "NameID", "Audience", "AttributeValue"):
        nested = element.tag == SAML + "AttributeValue" and [c.tag for c in element] == [SAML + "NameID"]
        if len(element) and not (nested and not "".join(_own_text(element)).strip()):
            raise GateRefusal("saml.markup-in-value", "a value holds markup beside its text")


def _own_text(element: etree._Element) -> Iterator[str]:
    yield element.text or ""
    for child in element:
        yield child.tail or ""


def _is_utf8(xml: bytes) -> bool:
    try:
        return "\0" not in xml.decode()
    except UnicodeDecodeError:
        return False


def _text(element: etree._Element) -> str:
    return "" if len(element) else element.text or ""


def _instant(element: etree._Element, name: str) -> datetime:
    try:
        instant = datetime.fromisoformat(element.get(name, ""))
    except ValueError:
        instant = None
    if instant is None or instant.tzinfo is None:
        raise GateRefusal("saml.time", f"{name} is not a time in UTC")
    return instant.astimezone(UTC)


# Names are compared as text. lxml's own find and iter(tag) go through its dictionary of names, and overlook
# elements that xmlsec created (seen with signatures it had just made); the gate also reads trees of xmlsec's.


def _children(parent: etree._Element, tag: str) -> list[etree._Element]:
    return [child for child in parent if child.tag == tag]


def _all(root: etree._Element, *names: str) -> list[etree._Element]:
    tags = {SAML + name for name in names}
    return [element for element in root.iter() if element.tag in tags]


def _one(parent: etree._Element, tag: str, check_id: str) -> etree._Element:
    found = _children(parent, tag)
    if len(found) != 1:
        name = tag.rpartition("}")[2]
        raise GateRefusal(check_id, f"exactly one {name} is needed here")
    return found[0]
