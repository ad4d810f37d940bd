"""The one shape of XML signature that SAML needs, and nothing more (SAML 2.0 core, 5.4).

XSLT and XPath transforms are programs that run before the signature is known to be worth anything, so the
shape is checked before any verifier sees the signature.
"""

from lxml import etree

from auth.saml.errors import GateRefusal

DS = "{http://www.w3.org/2000/09/xmldsig#}"
EXCLUSIVE_C14N = "http://www.w3.org/2001/10/xml-exc-c14n#"

_TRANSFORMS = ["http://www.w3.org/2000/09/xmldsig#enveloped-signature", EXCLUSIVE_C14N]
_SIGNATURE_METHODS = {
    f"http://www.w3.org/2001/04/xmldsig-more#{key}-sha{bits}"
    for key in ("rsa", "ecdsa")
    for bits in (256, 384, 512)
}
_DIGEST_METHODS = {
    "http://www.w3.org/2001/04/xmlenc#sha256",
    "http://www.w3.org/2001/04/xmldsig-more#sha384",
    "http://www.w3.org/2001/04/xmlenc#sha512",
}
# Inert: the verifying key is always a configured certificate. What fetches or computes (RetrievalMethod,
# KeyInfoReference, EncryptedKey, AgreementMethod) is not.
_KEY_INFO = {DS + name for name in ("X509Data", "KeyName", "KeyValue")}


def inspect_signature(signature: etree._Element) -> None:
    """Admit one `ds:Signature` that sits in the element it signs. Raises `GateRefusal`."""
    if any(element.tag == DS + "Object" for element in signature.iter()):
        raise GateRefusal("saml.object-forbidden", "the signature carries a ds:Object")
    parts = {child.tag: child for child in signature}
    required = [DS + "SignedInfo", DS + "SignatureValue"]
    if [child.tag for child in signature] not in (required, [*required, DS + "KeyInfo"]):
        raise GateRefusal("saml.signature-structure", "the signature has unexpected parts")
    if not (parts[DS + "SignatureValue"].text or "").strip():
        raise GateRefusal("saml.signature-empty", "the signature has no value")
    for child in parts.get(DS + "KeyInfo", ()):
        if child.tag not in _KEY_INFO:
            raise GateRefusal(
                "saml.key-info-forbidden", "KeyInfo may hold X509Data, KeyName and KeyValue alone"
            )

    signed_info = parts[DS + "SignedInfo"]
    if [child.tag for child in signed_info].count(DS + "Reference") != 1:
        raise GateRefusal("saml.reference-count", "the signature must have exactly one Reference")
    names = [DS + "CanonicalizationMethod", DS + "SignatureMethod", DS + "Reference"]
    if [child.tag for child in signed_info] != names:
        raise GateRefusal("saml.signature-structure", "SignedInfo has unexpected parts")
    canonicalization, method, reference = signed_info
    if canonicalization.get("Algorithm") != EXCLUSIVE_C14N:
        raise GateRefusal("saml.canonicalization", "SignedInfo must use exclusive canonicalization")
    if method.get("Algorithm") not in _SIGNATURE_METHODS or len(method):
        raise GateRefusal("saml.signature-algorithm", "only RSA and ECDSA with SHA-256 or stronger")
    parent = signature.getparent()
    if parent is None or not parent.get("ID") or reference.get("URI") != "#" + parent.get("ID", ""):
        raise GateRefusal("saml.reference-mismatch", "the signature does not refer to the element it sits in")
    _reference(reference)


def _reference(reference: etree._Element) -> None:
    names = [DS + "Transforms", DS + "DigestMethod", DS + "DigestValue"]
    if [child.tag for child in reference] != names:
        raise GateRefusal("saml.signature-structure", "the Reference has unexpected parts")
    transforms, digest, _ = reference
    inert = all(part.tag == f"{{{EXCLUSIVE_C14N}}}InclusiveNamespaces" for t in transforms for part in t)
    named = [t.get("Algorithm") for t in transforms]
    if named != _TRANSFORMS or not inert or any(t.tag != DS + "Transform" for t in transforms):
        raise GateRefusal(
            "saml.transform-forbidden", "the transforms must be enveloped-signature, then exclusive c14n"
        )
    if digest.get("Algorithm") not in _DIGEST_METHODS or len(digest):
        raise GateRefusal("saml.digest-algorithm", "only SHA-256, SHA-384 and SHA-512")
