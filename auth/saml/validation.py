"""Who an identity provider says has signed in.

Pure functions for `core.jail.Jail.run`: hostile input, picklable arguments and results, no secret but the SP
key in use, nothing logged. Order: the gate on the raw document; the library decrypts; the gate on what came
out; the library checks schema, conditions and signatures.
"""

import base64
import binascii
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import xmlsec
from cryptography import x509
from lxml import etree
from onelogin.saml2.errors import OneLogin_Saml2_ValidationError as ValidationError
from onelogin.saml2.response import OneLogin_Saml2_Response
from onelogin.saml2.settings import OneLogin_Saml2_Settings
from onelogin.saml2.utils import OneLogin_Saml2_Utils
from xmlsec import constants as xs

from auth.saml.errors import GateRefusal, SamlRefused
from auth.saml.gate import MAX_BYTES, SAML, Expected, inspect_shape, inspect_tree, parse, plain_markup
from auth.saml.parties import IdentityProvider, ServiceProvider, library_request, library_settings
from auth.saml.signature import DS, inspect_signature
from core.clock import utcnow

# The library's numbers by name: 42 becomes "saml.invalid-signature".
_LIBRARY_CHECKS = {
    number: "saml." + name.lower().replace("_", "-")
    for name, number in vars(ValidationError).items()
    if name.isupper() and isinstance(number, int)
}


@dataclass(frozen=True, slots=True)
class AssertedIdentity:
    """What a valid assertion states. `not_on_or_after` is how long its id must be remembered against replay."""

    name_id: str
    name_id_format: str | None
    session_index: str | None
    assertion_id: str
    not_on_or_after: datetime
    attributes: dict[str, list[str]]
    issuer: str
    name_qualifier: str | None = None
    sp_name_qualifier: str | None = None


def validate_response(
    saml_response_b64: str,
    sp: ServiceProvider,
    idp: IdentityProvider,
    expected_request_id: str | None,
    at: datetime | None = None,
) -> AssertedIdentity:
    """Check a `SAMLResponse` form value; raise `SamlRefused` (or its `GateRefusal`) with the failing check.

    `expected_request_id` is the request stored for this tenant and browser, or None where there was none.
    The response must be in force now, or `at` the moment at which it came; certificates are judged by their state now.
    Replay is not visible from here: the caller remembers `assertion_id` until `not_on_or_after`.
    """
    harden_library()
    xml = _decode(saml_response_b64)
    expected = Expected(
        idp_entity_id=idp.entity_id,
        sp_entity_id=sp.entity_id,
        acs_url=sp.acs_url,
        request_id=expected_request_id,
        allow_idp_initiated=idp.allow_idp_initiated,
        allow_cbc=idp.allow_cbc,
        at=at,
    )
    inspect_tree(parse(xml), expected)
    response = _decrypted(xml, sp, replace(idp, certificates=usable_certificates(idp)))
    if response.encrypted:
        inspect_tree(response.decrypted_document, expected, decrypted=True)
    try:
        with _library_clock(at):
            response.is_valid(library_request(sp.acs_url), expected_request_id, raise_exceptions=True)
        return _identity(response, idp)
    except GateRefusal:
        raise
    except ValidationError as error:
        raise SamlRefused(_LIBRARY_CHECKS.get(error.code, "saml.library")) from error
    except Exception as error:  # whatever else hostile input provokes is a refusal, never a fault
        raise SamlRefused("saml.library") from error


@contextmanager
def _library_clock(at: datetime | None) -> Iterator[None]:
    """The library asks one function what time it is. A jailed worker does one thing at a time."""
    asked = OneLogin_Saml2_Utils.now
    if at is not None:
        OneLogin_Saml2_Utils.now = staticmethod(lambda: int(at.timestamp()))
    try:
        yield
    finally:
        OneLogin_Saml2_Utils.now = staticmethod(asked)


def read_claim(saml_response_b64: str) -> tuple[str | None, datetime]:
    """Which request a response says it answers, and when it says it was made. Nothing is verified. Raises
    `SamlRefused`."""
    root = parse(_decode(saml_response_b64))
    try:
        made = datetime.fromisoformat(root.get("IssueInstant", ""))
    except ValueError:
        made = None
    if made is None or made.tzinfo is None:
        raise SamlRefused("saml.time", "IssueInstant is not a time in UTC")
    return root.get("InResponseTo"), made


def open_response(saml_response_b64: str, sp: ServiceProvider, idp: IdentityProvider) -> bytes:
    """The document of a `SAMLResponse` form value, whatever its age, with its assertion in clear. No signature is
    verified, only shapes are looked at. Raises `SamlRefused`."""
    xml = _decode(saml_response_b64)
    if inspect_shape(parse(xml), allow_cbc=idp.allow_cbc).tag == SAML + "Assertion":
        return xml
    document = _decrypted(xml, sp, idp).decrypted_document
    inspect_shape(document, decrypted=True)
    return etree.tostring(document)


def _decrypted(xml: bytes, sp: ServiceProvider, idp: IdentityProvider) -> OneLogin_Saml2_Response:
    """The response with its assertion opened, by whichever of our keys does."""
    keys = [(sp.private_key_pem, sp.certificate_pem), *sp.other_keys]
    for private_pem, certificate_pem in keys:
        ours = replace(sp, private_key_pem=private_pem, certificate_pem=certificate_pem)
        try:
            # Encoded again, so that the library reads the very bytes the gate has seen.
            return OneLogin_Saml2_Response(
                OneLogin_Saml2_Settings(library_settings(ours, idp)), base64.b64encode(xml).decode()
            )
        except (xmlsec.Error, etree.LxmlError, ValueError) as error:
            failure = error
    raise SamlRefused(
        "saml.undecryptable", "the assertion is not encrypted to this tenant's key"
    ) from failure


def certificate_expires(certificate_pem: str) -> datetime:
    """When a certificate ends, for the warning that a provider's key is about to be, or is, past its date."""
    return x509.load_pem_x509_certificate(certificate_pem.encode()).not_valid_after_utc


def harden_library() -> None:
    """Make the library verify signatures by our function wherever it does. Harmless to repeat.

    An XSLT or XPath transform runs before the signature around it is known to be worthless, and burns minutes
    of CPU. The gate has refused such documents by the time the library verifies; this holds even on a path
    the gate does not see, such as a later version that decrypts somewhere else.
    """
    OneLogin_Saml2_Utils.validate_node_sign = staticmethod(_verify_signature)


def verify_enveloped(root: etree._Element, certificates: Sequence[str]) -> None:
    """Check that the one signature of a document that is no response stands in its root, covers all of it, and was made
    with the key of one of the certificates (PEM). Raises `SamlRefused`."""
    plain_markup(root)
    signatures = [element for element in root.iter() if element.tag == DS + "Signature"]
    if len(signatures) != 1 or signatures[0].getparent() is not root:
        raise SamlRefused("saml.signature-missing", "the document as a whole must be signed, once")
    inspect_signature(signatures[0])
    xmlsec.tree.add_ids(root, ["ID"])
    if not any(_verify_signature(signatures[0], root, certificate) for certificate in certificates):
        raise SamlRefused("saml.invalid-signature", "none of the expected keys signed the document")


def _verify_signature(
    signature: etree._Element,
    elem: etree._Element,
    cert: str | None = None,
    *unused: Any,
    raise_exceptions: bool = False,
) -> bool:
    """Takes the place of `OneLogin_Saml2_Utils.validate_node_sign`, whose arguments it therefore has.

    Only the configured certificate's key counts, and xmlsec itself is told to know no other transform.
    """
    try:
        inspect_signature(signature)
        context = xmlsec.SignatureContext()
        for transform in _REFERENCE_TRANSFORMS:
            context.enable_reference_transform(transform)
        for transform in _SIGNATURE_TRANSFORMS:
            context.enable_signature_transform(transform)
        context.key = xmlsec.Key.from_memory(cert or "", xs.KeyDataFormatCertPem, None)
        context.verify(signature)
    except (GateRefusal, xmlsec.Error) as error:
        if raise_exceptions:
            raise ValidationError("signature", ValidationError.INVALID_SIGNATURE) from error
        return False
    return True


_REFERENCE_TRANSFORMS = (
    xs.TransformEnveloped,
    xs.TransformExclC14N,
    xs.TransformSha256,
    xs.TransformSha384,
    xs.TransformSha512,
)
_SIGNATURE_TRANSFORMS = (
    xs.TransformExclC14N,
    xs.TransformRsaSha256,
    xs.TransformRsaSha384,
    xs.TransformRsaSha512,
    xs.TransformEcdsaSha256,
    xs.TransformEcdsaSha384,
    xs.TransformEcdsaSha512,
)


def _decode(saml_response_b64: str) -> bytes:
    if len(saml_response_b64) > 2 * MAX_BYTES:  # base64 is a third longer, plus line breaks
        raise SamlRefused("saml.too-large", f"the document has more than {MAX_BYTES} bytes")
    try:
        return base64.b64decode("".join(saml_response_b64.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise SamlRefused("saml.base64", "SAMLResponse is not base64") from error


def usable_certificates(idp: IdentityProvider) -> tuple[str, ...]:
    """Those whose keys count by the tenant's policy. Raises `SamlRefused` where there is none."""
    usable = idp.certificates
    if idp.refuse_expired_certificates:
        usable = tuple(pem for pem in usable if certificate_expires(pem) > utcnow())
    if not usable:
        raise SamlRefused("saml.certificate-expired", "no certificate of the identity provider is in force")
    return usable


def _identity(response: Any, idp: IdentityProvider) -> AssertedIdentity:
    name = response.get_nameid_data()
    return AssertedIdentity(
        name_id=name["Value"],
        name_id_format=name.get("Format"),
        session_index=response.get_session_index(),
        assertion_id=response.get_assertion_id(),
        not_on_or_after=datetime.fromtimestamp(response.get_assertion_not_on_or_after(), UTC),
        attributes={
            # A value that is itself a NameID (eduPersonTargetedID) arrives as a mapping.
            key: [v["NameID"]["value"] if isinstance(v, dict) else v for v in values]
            for key, values in response.get_attributes().items()
        },
        issuer=idp.entity_id,
        name_qualifier=name.get("NameQualifier"),
        sp_name_qualifier=name.get("SPNameQualifier"),
    )
