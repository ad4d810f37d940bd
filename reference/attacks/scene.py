"""What a forger of SAML responses starts from, and the steps every forgery is made of."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import cast
from uuid import uuid4

from lxml import etree

from core.clock import utcnow
from reference.idp import response as made
from reference.idp.config import Signed, SigningKey
from reference.idp.response import encrypt_assertion, resign, sign_element

SAMLP = f"{{{made.SAMLP}}}"
SAML = f"{{{made.SAML}}}"
DS = "{http://www.w3.org/2000/09/xmldsig#}"
XENC = "{http://www.w3.org/2001/04/xmlenc#}"

RESPONSE, ASSERTION, NAME_ID = SAMLP + "Response", SAML + "Assertion", SAML + "NameID"
DATA, VALUE, AUDIENCE = SAML + "SubjectConfirmationData", SAML + "AttributeValue", SAML + "Audience"
SIGNATURE, REFERENCE = DS + "Signature", DS + "Reference"

_TIMES = ("IssueInstant", "NotBefore", "NotOnOrAfter", "AuthnInstant", "SessionNotOnOrAfter")


class Inapplicable(LookupError):
    """The response has no such part to forge."""


@dataclass(frozen=True)
class Scene:
    """An honest response and the keys around it.

    `template` is the response as XML, of any age and without signatures; `request_id` is the request to answer;
    `key` is the identity provider's, `foreign` a stranger's; `sign` says what this provider signs.
    """

    template: bytes = field(repr=False)
    request_id: str
    sp_certificate_pem: bytes
    key: SigningKey
    foreign: SigningKey
    sign: Signed = "assertion"

    def unsigned(self) -> etree._Element:
        """The response as if it were made now, in answer to the request."""
        root = etree.fromstring(self.template)
        shift_times(root, utcnow() - _instant(root, "IssueInstant"))
        for element in (root, *every(root, ASSERTION)):
            element.set("ID", f"_{uuid4().hex}")
        for element in (root, *every(root, DATA)):
            element.set("InResponseTo", self.request_id)
        return root

    def signed(self, sign: Signed | None = None) -> etree._Element:
        """The honest response."""
        return self.signing(self.unsigned(), sign)

    def signing(self, root: etree._Element, sign: Signed | None = None) -> etree._Element:
        """Sign by the provider's key, the assertion first."""
        if (sign or self.sign) in ("assertion", "both"):
            sign_element(find(root, ASSERTION), self.key)
        if (sign or self.sign) in ("response", "both"):
            sign_element(root, self.key)
        return root

    def honest(self, *, encrypt: bool = False, edit: "Edit | None" = None) -> bytes:
        """What the provider itself sends; `edit` is made before it signs."""
        root = self.unsigned()
        if edit:
            edit(root)
        if self.sign != "response":
            sign_element(find(root, ASSERTION), self.key)
        if encrypt:
            encrypt_assertion(find(root, ASSERTION), self.sp_certificate_pem)
        if self.sign != "assertion":
            sign_element(root, self.key)
        return etree.tostring(root)


Craft = Callable[[Scene], bytes]
Edit = Callable[[etree._Element], object]


def every(root: etree._Element, tag: str) -> list[etree._Element]:
    """All such descendants, by XPath: lxml's iteration does not see what xmlsec put into the tree."""
    namespace, _, name = tag[1:].partition("}")
    return cast(list[etree._Element], root.xpath(f".//n:{name}", namespaces={"n": namespace}))


def find(root: etree._Element, tag: str) -> etree._Element:
    """The root, if it has this tag, or its first such descendant. Raises `Inapplicable`."""
    found = [root] if root.tag == tag else every(root, tag)
    if not found:
        raise Inapplicable(f"the response has no {etree.QName(tag).localname}")
    return found[0]


def remove(element: etree._Element) -> None:
    parent = element.getparent()
    assert parent is not None
    parent.remove(element)


def shift_times(root: etree._Element, by: timedelta) -> None:
    for element in root.iter(etree.Element):
        for name in _TIMES:
            if name in element.attrib:
                element.set(name, f"{_instant(element, name) + by:%Y-%m-%dT%H:%M:%SZ}")


def _instant(element: etree._Element, name: str) -> datetime:
    return datetime.fromisoformat(element.get(name, ""))


# When an edit is made


def before_signing(edit: Edit) -> Craft:
    """What the identity provider itself signs: only exact comparison can catch it."""

    def craft(scene: Scene) -> bytes:
        root = scene.unsigned()
        edit(root)
        return etree.tostring(scene.signing(root))

    return craft


def after_signing(edit: Edit, sign: Signed | None = None) -> Craft:
    """What a man in the middle makes of it."""

    def craft(scene: Scene) -> bytes:
        root = scene.signed(sign)
        edit(root)
        return etree.tostring(root)

    return craft


def resigned(edit: Edit) -> Craft:
    """A signature whose parts were edited before the provider's own key computed it: cryptographically sound."""

    def craft(scene: Scene) -> bytes:
        root = scene.signed()
        edit(root)
        resign(find(root, SIGNATURE), scene.key)
        return etree.tostring(root)

    return craft


def after_encryption(edit: Edit) -> Craft:
    """The honest response, encrypted, then edited."""

    def craft(scene: Scene) -> bytes:
        root = etree.fromstring(scene.honest(encrypt=True))
        edit(root)
        return etree.tostring(root)

    return craft


def encrypted(craft: Craft) -> Craft:
    """The same document with its assertion encrypted to the tenant's public certificate, as anyone can do."""

    def wrapped(scene: Scene) -> bytes:
        root = etree.fromstring(craft(scene), etree.XMLParser(huge_tree=True))
        encrypt_assertion(find(root, ASSERTION), scene.sp_certificate_pem)
        return etree.tostring(root)

    return wrapped


# What is edited


def setting(tag: str, name: str, value: str | Callable[[str], str] | None) -> Edit:
    """Give an attribute a value, or a change of the one it has; None takes it away."""

    def edit(root: etree._Element) -> None:
        element = find(root, tag)
        if value is None:
            del element.attrib[name]
        else:
            element.set(name, value if isinstance(value, str) else value(element.get(name, "")))

    return edit


def text(tag: str, value: str | Callable[[str], str]) -> Edit:
    """Give an element a text, or a change of the one it has."""

    def edit(root: etree._Element) -> None:
        element = find(root, tag)
        element.text = value if isinstance(value, str) else value(element.text or "")

    return edit


def without(tag: str) -> Edit:
    return lambda root: remove(find(root, tag))


def twice(tag: str) -> Edit:
    return lambda root: find(root, tag).addnext(deepcopy(find(root, tag)))


def renamed(tag: str, name: str) -> Edit:
    return lambda root: setattr(find(root, tag), "tag", name)


def child_in(tag: str, name: str, child_text: str = "", **attributes: str) -> Edit:
    """Append a child."""

    def edit(root: etree._Element) -> None:
        etree.SubElement(find(root, tag), name, attributes).text = child_text

    return edit
