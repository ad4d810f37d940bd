"""The attacks on SAML sign-in: each with a name, what it is, the check that must refuse it, and how it is made.

`docs/security.md` is the same list in words, and a test compares the two.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from reference.attacks import forgeries as f
from reference.attacks.scene import (
    AUDIENCE,
    DATA,
    DS,
    NAME_ID,
    REFERENCE,
    RESPONSE,
    SAML,
    SAMLP,
    SIGNATURE,
    VALUE,
    XENC,
    Craft,
    after_encryption,
    after_signing,
    before_signing,
    child_in,
    encrypted,
    renamed,
    resigned,
    setting,
    text,
    twice,
    without,
)

_DSIG = "http://www.w3.org/2000/09/xmldsig#"
_ISSUER, _SIGNED_INFO, _KEY_INFO = SAML + "Issuer", DS + "SignedInfo", DS + "KeyInfo"
_METHOD, _DIGEST = DS + "SignatureMethod", DS + "DigestMethod"
_CONFIRMATION, _CONDITIONS = SAML + "SubjectConfirmation", SAML + "Conditions"
_PAST, _FUTURE = "2001-01-01T00:00:00Z", "2999-01-01T00:00:00Z"
_SOMEWHERE = "http://evil.example/"
_SIGNED: tuple[Literal["response", "assertion"], ...] = ("response", "assertion")


@dataclass(frozen=True)
class Attack:
    """`check` is the id of the check that must refuse what `craft` makes."""

    name: str
    what: str
    check: str
    craft: Craft


def _attacks() -> Iterator[Attack]:
    in_the_assertion = list(_IN_THE_ASSERTION)
    for number, checks in _XSW.items():
        for sign, check in zip(_SIGNED, checks, strict=True):
            what = f"Signature wrapping {number} (Somorovsky 2012), genuine signature over the {sign}"
            in_the_assertion.append((f"xsw-{number}-{sign}", what, check, f.xsw(number, sign)))
    for name, what, check, craft in in_the_assertion:
        yield Attack(name, what, check, craft)
        yield Attack(f"{name}-encrypted", what, _CHECK_WHEN_ENCRYPTED.get(name, check), encrypted(craft))
    for name, what, check, craft in _ON_THE_DOCUMENT:
        yield Attack(name, what, check, craft)


# What refuses it where the response is signed, and where the assertion is. These, too, are tried encrypted.
_XSW: dict[int, tuple[str, str]] = {
    1: ("saml.signature-structure", "saml.signature-structure"),
    2: ("saml.reference-mismatch", "saml.signature-misplaced"),
    3: ("saml.assertion-count", "saml.assertion-count"),
    4: ("saml.assertion-count", "saml.signature-misplaced"),
    5: ("saml.reference-mismatch", "saml.reference-mismatch"),
    6: ("saml.signature-structure", "saml.signature-structure"),
    7: ("saml.assertion-count", "saml.assertion-count"),
    8: ("saml.object-forbidden", "saml.object-forbidden"),
}

# Where the envelope alone gives it away, or hides what is looked at first.
_CHECK_WHEN_ENCRYPTED = {
    "xsw-2-assertion": "saml.reference-mismatch",
    "xsw-5-response": "saml.assertion-count",
    "xsw-5-assertion": "saml.assertion-count",
    "duplicate-ids": "saml.assertion-count",
    "duplicate-ids-lower-case": "saml.assertion-count",
    "duplicate-ids-xml": "saml.assertion-count",
}

# A line for each attack.
# fmt: off
# Tried as they are, and again with the assertion encrypted to the tenant's public certificate.
_IN_THE_ASSERTION: list[tuple[str, str, str, Craft]] = [
    ("duplicate-ids", "The forged assertion carries the signed one's ID", "saml.duplicate-id", after_signing(f.forged_twin("ID"))),
    ("duplicate-ids-lower-case", "The same, as `id`", "saml.duplicate-id", after_signing(f.forged_twin("id"))),
    ("duplicate-ids-xml", "The same, as `xml:id`", "saml.duplicate-id", after_signing(f.forged_twin("{http://www.w3.org/XML/1998/namespace}id"))),
    ("two-assertions", "A second, unsigned assertion", "saml.assertion-count", after_signing(f.two_assertions)),
    ("two-assertions-signed", "Two assertions, by the real key", "saml.assertion-count", f.two_assertions_signed),
    ("signature-elsewhere", "A signature inside the subject", "saml.signature-misplaced", after_signing(f.signature_in_subject)),
    ("two-signatures", "Two signatures in one element", "saml.signature-count", after_signing(twice(SIGNATURE))),
    # signatures
    ("signature-absent", "No signature", "saml.signature-missing", f.unsigned),
    ("signature-other-namespace", "A signature of another namespace", "saml.signature-missing", after_signing(renamed(SIGNATURE, "{urn:x}Signature"))),
    ("tampered", "Name changed after signing the assertion", "saml.invalid-signature", after_signing(text(NAME_ID, f.EVIL), "assertion")),
    ("tampered-attribute", "Attribute changed after signing the assertion", "saml.invalid-signature", after_signing(text(VALUE, f.EVIL), "assertion")),
    ("foreign-key", "Signed by a stranger whose certificate and key stand in `KeyInfo`", "saml.invalid-signature", f.foreign_key("assertion")),
    ("hmac-swap", "HMAC keyed with the public certificate", "saml.signature-algorithm", f.hmac_swap),
    ("hmac-output-length", "`HMACOutputLength` in the signature method", "saml.signature-algorithm", after_signing(child_in(_METHOD, DS + "HMACOutputLength", "8"))),
    ("signature-empty", "Empty `SignatureValue`", "saml.signature-empty", after_signing(text(DS + "SignatureValue", ""))),
    ("uri-empty", '`Reference URI=""`, by the real key', "saml.reference-mismatch", resigned(setting(REFERENCE, "URI", ""))),
    ("uri-absent", "`Reference` without `URI`", "saml.reference-mismatch", after_signing(setting(REFERENCE, "URI", None))),
    ("uri-http", "`Reference` to a web address", "saml.reference-mismatch", after_signing(setting(REFERENCE, "URI", _SOMEWHERE))),
    ("uri-file", "`Reference` to a file", "saml.reference-mismatch", after_signing(setting(REFERENCE, "URI", "file:///etc/hostname"))),
    ("uri-xpointer", "`Reference` by XPointer", "saml.reference-mismatch", after_signing(setting(REFERENCE, "URI", lambda uri: f"#xpointer(id('{uri[1:]}'))"))),
    ("two-references", "Two references in one signature, by the real key", "saml.reference-count", resigned(f.second_reference)),
    ("two-signed-infos", "A forged `SignedInfo` before the signed one", "saml.signature-structure", after_signing(f.two_signed_infos)),
    ("signed-info-extended", "Unknown element in `SignedInfo`", "saml.signature-structure", after_signing(child_in(_SIGNED_INFO, DS + "Manifest"))),
    ("reference-extended", "Unknown element in `Reference`", "saml.signature-structure", after_signing(child_in(REFERENCE, DS + "Manifest"))),
    ("retrieval-method", "`KeyInfo` with `RetrievalMethod`", "saml.key-info-forbidden", after_signing(child_in(_KEY_INFO, DS + "RetrievalMethod", URI=_SOMEWHERE))),
    ("key-info-reference", "`KeyInfo` with `KeyInfoReference`", "saml.key-info-forbidden", after_signing(child_in(_KEY_INFO, "{http://www.w3.org/2009/xmldsig11#}KeyInfoReference", URI=_SOMEWHERE))),
    ("encrypted-key", "`KeyInfo` with an encrypted key to open first", "saml.key-info-forbidden", after_signing(child_in(_KEY_INFO, XENC + "EncryptedKey"))),
    ("manifest-object", "`ds:Object` with a manifest", "saml.object-forbidden", after_signing(child_in(SIGNATURE, DS + "Object", "anything"))),
    ("sha1-signature", "RSA with SHA-1, by the real key", "saml.signature-algorithm", resigned(setting(_METHOD, "Algorithm", _DSIG + "rsa-sha1"))),
    ("sha1-digest", "SHA-1 digest, by the real key", "saml.digest-algorithm", resigned(setting(_DIGEST, "Algorithm", _DSIG + "sha1"))),
    # programs
    ("xslt-bomb", "XSLT transform that burns CPU", "saml.transform-forbidden", after_signing(f.xslt_bomb)),
    ("xpath-bomb", "XPath transform that burns CPU", "saml.transform-forbidden", after_signing(f.xpath_bomb)),
    ("xpath2-bomb", "XPath Filter 2 transform that burns CPU", "saml.transform-forbidden", after_signing(f.xpath2_bomb)),
    # canonicalization
    ("relative-namespace", "Void canonicalization by a relative namespace name", "saml.namespace-relative", f.relative_namespace),
    ("canonicalization-unknown", "Unknown canonicalization", "saml.canonicalization", after_signing(setting(DS + "CanonicalizationMethod", "Algorithm", "urn:void"))),
    ("canonicalization-with-comments", "Canonicalization that keeps comments, by the real key", "saml.canonicalization", resigned(setting(DS + "CanonicalizationMethod", "Algorithm", "http://www.w3.org/2001/10/xml-exc-c14n#WithComments"))),
    ("transform-inclusive", "Inclusive canonicalization, by the real key", "saml.transform-forbidden", resigned(f.inclusive_transform)),
    # text
    ("comment-name-before", "Comment in the name, by the real key", "saml.comment-forbidden", before_signing(f.comment_in(NAME_ID))),
    ("comment-name-after", "Comment in the name, after signing", "saml.comment-forbidden", after_signing(f.comment_in(NAME_ID))),
    ("comment-attribute-before", "Comment in an attribute, by the real key", "saml.comment-forbidden", before_signing(f.comment_in(VALUE))),
    ("comment-attribute-after", "Comment in an attribute, after signing", "saml.comment-forbidden", after_signing(f.comment_in(VALUE))),
    ("comment-audience", "Comment in the audience, by the real key", "saml.comment-forbidden", before_signing(f.comment_in(AUDIENCE))),
    ("comment-digest", "Comment in the digest", "saml.comment-forbidden", after_signing(f.comment_in(DS + "DigestValue"))),
    ("element-in-name", "Element inside the name, by the real key", "saml.markup-in-value", before_signing(f.element_in(NAME_ID))),
    ("element-in-attribute", "Element inside an attribute value, by the real key", "saml.markup-in-value", before_signing(f.element_in(VALUE))),
    ("element-in-audience", "Element inside the audience, by the real key", "saml.markup-in-value", before_signing(f.element_in(AUDIENCE))),
    ("xinclude", "`xi:include` of a file in the name", "saml.markup-in-value", after_signing(child_in(NAME_ID, "{http://www.w3.org/2001/XInclude}include", href="file:///etc/hostname", parse="text"))),
    ("processing-instruction", "Processing instruction in the name", "saml.processing-instruction", after_signing(f.instruction)),
    ("attribute-flood", "8,000 attributes on one element, on which canonicalization is quadratic", "saml.too-complex", after_signing(f.attribute_flood)),
    ("namespace-flood", "3,000 namespaces on one element", "saml.too-complex", f.namespace_flood),
    ("element-flood", "3,000 elements", "saml.too-complex", after_signing(f.element_flood)),
    # meant for someone else
    ("audience-other", "Audience is another tenant, by the real key", "saml.audience", before_signing(text(AUDIENCE, f.at_other_tenant))),
    ("audience-prefix", "Audience begins with ours, by the real key", "saml.audience", before_signing(text(AUDIENCE, lambda ours: ours + "2"))),
    ("audience-absent", "No audience restriction, by the real key", "saml.audience", before_signing(f.no_audience)),
    ("audience-second-restriction", "A second audience restriction that is not ours, by the real key", "saml.audience", before_signing(f.second_audience)),
    ("recipient-other", "Recipient is another tenant, by the real key", "saml.recipient", before_signing(setting(DATA, "Recipient", f.at_other_tenant))),
    ("recipient-contains", "Recipient contains ours, by the real key", "saml.recipient", before_signing(setting(DATA, "Recipient", lambda ours: f"https://evil.example/?{ours}/more"))),
    ("recipient-prefix", "Recipient begins with ours, by the real key", "saml.recipient", before_signing(setting(DATA, "Recipient", lambda ours: ours + "/x"))),
    ("recipient-absent", "No recipient, by the real key", "saml.recipient", before_signing(setting(DATA, "Recipient", None))),
    ("issuer-other", "Issuer is another tenant's identity provider, by the real key", "saml.issuer", before_signing(f.issuers)),
    ("issuer-other-in-assertion", "Only the assertion's issuer is another, by the real key", "saml.issuer", before_signing(f.issuer_of_assertion)),
    # the request
    ("in-response-to-missing", "Answers no request, by the real key", "saml.in-response-to-missing", before_signing(f.answering(None))),
    ("in-response-to-other", "Answers another request, by the real key", "saml.in-response-to", before_signing(f.answering("_else"))),
    ("in-response-to-in-wrapper-alone", "Only the unsigned wrapper answers ours, by the real key", "saml.in-response-to-missing", before_signing(setting(DATA, "InResponseTo", None))),
    ("in-response-to-right-in-wrapper-alone", "The wrapper answers ours, the assertion another, by the real key", "saml.in-response-to", before_signing(setting(DATA, "InResponseTo", "_else"))),
    ("in-response-to-in-assertion-alone", "Only the assertion answers ours", "saml.in-response-to-missing", after_signing(setting(RESPONSE, "InResponseTo", None))),
    # the subject
    ("name-absent", "No name, by the real key", "saml.subject", before_signing(without(NAME_ID))),
    ("name-empty", "Empty name, by the real key", "saml.empty-nameid", before_signing(text(NAME_ID, ""))),
    ("name-twice", "Two names, by the real key", "saml.subject", before_signing(twice(NAME_ID))),
    ("encrypted-name", "Encrypted name, by the real key", "saml.encrypted-part", before_signing(renamed(NAME_ID, SAML + "EncryptedID"))),
    ("confirmation-twice", "Two subject confirmations, by the real key", "saml.subject-confirmation", before_signing(twice(_CONFIRMATION))),
    ("holder-of-key", "Confirmed as holder of key, by the real key", "saml.subject-confirmation", before_signing(setting(_CONFIRMATION, "Method", "urn:oasis:names:tc:SAML:2.0:cm:holder-of-key"))),
    # time
    ("expired", "An hour old, by the real key", "saml.expired", before_signing(f.aged(timedelta(hours=1)))),
    ("expired-conditions", "Conditions that have passed, by the real key", "saml.expired", before_signing(setting(_CONDITIONS, "NotOnOrAfter", _PAST))),
    ("expired-confirmation", "Confirmation that has passed, by the real key", "saml.expired", before_signing(setting(DATA, "NotOnOrAfter", _PAST))),
    ("expired-session", "Session at the identity provider that has ended, by the real key", "saml.expired", before_signing(setting(SAML + "AuthnStatement", "SessionNotOnOrAfter", _PAST))),
    ("future", "An hour ahead, by the real key", "saml.not-yet-valid", before_signing(f.aged(timedelta(hours=-1)))),
    ("future-confirmation", "Confirmation that is not valid yet, by the real key", "saml.not-yet-valid", before_signing(setting(DATA, "NotBefore", _FUTURE))),
    ("endless", "Confirmation without an end, by the real key", "saml.not-on-or-after-missing", before_signing(setting(DATA, "NotOnOrAfter", None))),
    ("time-without-zone", "Time without a zone, by the real key", "saml.time", before_signing(setting(DATA, "NotOnOrAfter", "2999-01-01"))),
]

# What encryption of the assertion would not change, or could not carry.
_ON_THE_DOCUMENT: list[tuple[str, str, str, Craft]] = [
    ("other-root", "Root element is not a SAML response", "saml.root", lambda scene: b"<Response/>"),
    ("not-xml", "Not well-formed", "saml.malformed", lambda scene: b"<samlp:Response"),
    ("too-large", "More than 256 KiB", "saml.too-large", lambda scene: b"<r>" + b" " * 256 * 1024 + b"</r>"),
    ("depth-flood", "5,000 levels deep", "saml.malformed", f.depth_flood),
    ("assertion-other-namespace", "An assertion of SAML 1.0", "saml.assertion-count", after_signing(f.other_namespace, "response")),
    ("encrypted-and-plain", "A forged assertion in clear beside the genuine one encrypted", "saml.assertion-count", f.plain_beside_encrypted),
    ("tampered-response", "Name changed after signing the response", "saml.invalid-signature", after_signing(text(NAME_ID, f.EVIL), "response")),
    ("foreign-key-response", "The response signed by a stranger whose key stands in `KeyInfo`", "saml.invalid-signature", f.foreign_key("response")),
    ("xxe", "External entity", "saml.dtd-forbidden", f.doctype(f.XXE)),
    ("xxe-external-dtd", "External document type", "saml.dtd-forbidden", f.doctype(f'SYSTEM "{_SOMEWHERE}"')),
    ("xxe-parameter", "External parameter entity", "saml.dtd-forbidden", f.doctype(f'[<!ENTITY % x SYSTEM "{_SOMEWHERE}"> %x;]')),
    ("entity-expansion", "Billion laughs", "saml.dtd-forbidden", f.doctype(f.EXPANSION)),
    ("dtd-in-utf-16", "DTD hidden in UTF-16", "saml.encoding", f.doctype(f.XXE, "utf-16")),
    ("dtd-in-utf-7", "DTD hidden in UTF-7", "saml.encoding", f.doctype(f.XXE, "utf-7")),
    ("dtd-in-ebcdic", "DTD hidden in EBCDIC", "saml.encoding", f.doctype(f.XXE, "cp037")),
    ("destination-other", "Destination is another tenant, by the real key", "saml.destination", before_signing(setting(RESPONSE, "Destination", f.at_other_tenant))),
    ("destination-contains", "Destination contains ours, by the real key", "saml.destination", before_signing(setting(RESPONSE, "Destination", lambda ours: f"https://evil.example/?{ours}"))),
    ("destination-prefix", "Destination begins with ours, by the real key", "saml.destination", before_signing(setting(RESPONSE, "Destination", lambda ours: ours + ".evil.example"))),
    ("destination-absent", "No destination, by the real key", "saml.destination", before_signing(setting(RESPONSE, "Destination", None))),
    ("issuer-other-in-response", "Only the response's issuer is another", "saml.issuer", after_signing(text(_ISSUER, f.OTHER_IDP))),
    ("status-failed", "Status is not success", "saml.status", after_signing(setting(SAMLP + "StatusCode", "Value", "urn:x"))),
    ("version-1", "Version is not 2.0, by the real key", "saml.unsupported-saml-version", before_signing(setting(RESPONSE, "Version", "1.1"))),
    ("encrypted-to-a-stranger", "Encrypted to another key", "saml.undecryptable", f.encrypted_to_stranger),
    ("encrypted-twice", "Encrypted inside encrypted", "saml.encryption-structure", f.encrypted_twice),
    ("cipher-reference", "Ciphertext by reference, through an XSLT bomb", "saml.encryption-structure", after_encryption(f.cipher_reference)),
    ("encryption-retrieval-method", "The key of the ciphertext by reference", "saml.encryption-structure", after_encryption(child_in(_KEY_INFO, DS + "RetrievalMethod", URI=_SOMEWHERE))),
    ("key-transport-1.5", "RSA PKCS #1 v1.5 key transport", "saml.encryption-algorithm", after_encryption(f.key_transport_1_5)),
    ("triple-des", "Ciphertext by Triple DES", "saml.encryption-algorithm", after_encryption(f.triple_des)),
]

# fmt: on

ATTACKS = tuple(_attacks())
