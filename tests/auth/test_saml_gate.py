"""SAML responses that must be accepted, and the attacks that must not."""

import base64
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, timedelta
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography import x509
from lxml import etree
from onelogin.saml2.utils import OneLogin_Saml2_Utils

from auth.saml.errors import GateRefusal, SamlRefused
from auth.saml.gate import DS, MAX_BYTES, SAML, SAMLP, Expected, inspect
from auth.saml.parties import IdentityProvider
from auth.saml.request import authn_request_url, new_sp_key, sp_metadata
from auth.saml.validation import AssertedIdentity, certificate_expires, harden_library, validate_response
from core.clock import utcnow
from core.jail import Jail
from reference.idp.config import SigningKey
from reference.idp.messages import read_request, read_sp_metadata
from reference.idp.response import build_response
from tests.auth import saml_attacks as a
from tests.auth.saml_attacks import ACS, REQUEST_ID, Craft, Scene

ASSERTION, NAME_ID, VALUE = SAML + "Assertion", SAML + "NameID", SAML + "AttributeValue"
DATA, AUDIENCE = SAML + "SubjectConfirmationData", SAML + "Audience"
RESPONSE = SAMLP + "Response"
OTHER = "https://globex.derma.example/auth/saml"


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene.build()


def validate(scene: Scene, xml: bytes, idp: IdentityProvider | None = None) -> AssertedIdentity:
    return validate_response(base64.b64encode(xml).decode(), scene.sp, idp or scene.idp, REQUEST_ID)


# What must be accepted


@pytest.mark.parametrize("encrypt", [False, True], ids=["plain", "encrypted"])
@pytest.mark.parametrize("sign", ["assertion", "response", "both"])
def test_a_genuine_response_names_the_person(scene: Scene, sign: str, encrypt: bool) -> None:
    identity = validate(scene, build_response(scene.answer(), scene.key, sign, encrypt))  # type: ignore[arg-type]
    assert identity.name_id == "u-gp"
    assert identity.name_id_format == "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent"
    assert identity.issuer == scene.idp.entity_id
    assert identity.attributes == {
        "email": ["gp@acme.derma.example"],
        "displayName": ["Gerd Hausmann"],
        "groups": ["derma-referrers"],
    }
    assert identity.session_index
    assert identity.assertion_id
    assert identity.not_on_or_after.tzinfo is UTC
    assert timedelta(0) < identity.not_on_or_after - utcnow() <= timedelta(minutes=5)


def test_either_of_two_certificates_verifies_while_the_provider_changes_its_key(scene: Scene) -> None:
    new = SigningKey.generate()
    idp = replace(scene.idp, certificates=(*scene.idp.certificates, new.certificate_pem.decode()))
    for key in (scene.key, new):
        assert validate(scene, build_response(scene.answer(), key), idp).name_id == "u-gp"


def test_line_breaks_in_base64_are_harmless(scene: Scene) -> None:
    wrapped = base64.encodebytes(build_response(scene.answer(), scene.key)).decode()
    assert validate_response(wrapped, scene.sp, scene.idp, REQUEST_ID).name_id == "u-gp"


def test_a_response_nobody_asked_for_needs_the_tenants_permission(scene: Scene) -> None:
    unasked = base64.b64encode(build_response(scene.answer(in_response_to=None), scene.key)).decode()
    with pytest.raises(SamlRefused, match=r"saml\.idp-initiated"):
        validate_response(unasked, scene.sp, scene.idp, None)
    allowing = replace(scene.idp, allow_idp_initiated=True)
    assert validate_response(unasked, scene.sp, allowing, None).name_id == "u-gp"
    # Permission does not turn a stolen answer to somebody's request into an unasked one.
    stolen = base64.b64encode(build_response(scene.answer(), scene.key)).decode()
    with pytest.raises(SamlRefused, match=r"saml\.in-response-to-unexpected"):
        validate_response(stolen, scene.sp, allowing, None)


async def test_validation_runs_in_a_jail_and_its_refusals_come_back_whole(scene: Scene) -> None:
    jail = Jail(workers=1)
    try:
        good = base64.b64encode(build_response(scene.answer(), scene.key)).decode()
        bad = base64.b64encode(a.unsigned(scene)).decode()
        identity = await jail.run(20, validate_response, good, scene.sp, scene.idp, REQUEST_ID)
        assert identity.name_id == "u-gp"
        with pytest.raises(GateRefusal) as refusal:
            await jail.run(20, validate_response, bad, scene.sp, scene.idp, REQUEST_ID)
    finally:
        jail.close()
    assert refusal.value.check_id == "saml.signature-missing"
    assert "signature" not in str(refusal.value.document())  # the browser does not learn which check it was


# What must be refused

XSW = {
    # number: what refuses it where the response is signed, and where the assertion is
    1: ("saml.signature-structure", "saml.signature-structure"),
    2: ("saml.reference-mismatch", "saml.signature-misplaced"),
    3: ("saml.assertion-count", "saml.assertion-count"),
    4: ("saml.assertion-count", "saml.signature-misplaced"),
    5: ("saml.reference-mismatch", "saml.reference-mismatch"),
    6: ("saml.signature-structure", "saml.signature-structure"),
    7: ("saml.assertion-count", "saml.assertion-count"),
    8: ("saml.object-forbidden", "saml.object-forbidden"),
}

ATTACKS: list[tuple[str, Craft, str]] = [
    *(
        (f"xsw-{number}-{sign}", a.xsw(number, sign), expected)
        for number, by_sign in XSW.items()
        for sign, expected in zip(("response", "assertion"), by_sign, strict=True)
    ),
    ("duplicate-ids", a.after_signing(a.duplicate_ids), "saml.duplicate-id"),
    ("two-assertions", a.after_signing(a.two_assertions), "saml.assertion-count"),
    ("signature-elsewhere", a.after_signing(a.signature_in_subject), "saml.signature-misplaced"),
    ("two-signatures", a.after_signing(a.two_signatures), "saml.signature-count"),
    ("other-root", lambda s: b"<Response/>", "saml.root"),
    # signatures
    ("signature-absent", a.unsigned, "saml.signature-missing"),
    ("signature-absent-encrypted", a.encrypted(a.unsigned), "saml.signature-missing"),
    ("tampered", a.after_signing(a.text(NAME_ID, a.EVIL)), "saml.invalid-signature"),
    ("tampered-response", a.after_signing(a.text(NAME_ID, a.EVIL), "response"), "saml.invalid-signature"),
    (
        "tampered-encrypted",
        a.encrypted(a.after_signing(a.text(NAME_ID, a.EVIL))),
        "saml.invalid-signature",
    ),
    ("foreign-key-in-key-info", a.foreign_key, "saml.invalid-signature"),
    ("foreign-key-encrypted", a.encrypted(a.foreign_key), "saml.invalid-signature"),
    ("hmac-swap", a.hmac_swap, "saml.signature-algorithm"),
    ("hmac-output-length", a.after_signing(a.hmac_output_length), "saml.signature-algorithm"),
    ("signature-empty", a.after_signing(a.text(DS + "SignatureValue", "")), "saml.signature-empty"),
    ("uri-empty", a.resigned(a.setting(DS + "Reference", "URI", "")), "saml.reference-mismatch"),
    ("uri-absent", a.after_signing(a.setting(DS + "Reference", "URI", None)), "saml.reference-mismatch"),
    (
        "uri-http",
        a.after_signing(a.setting(DS + "Reference", "URI", "http://evil.example/")),
        "saml.reference-mismatch",
    ),
    ("two-references", a.resigned(a.second_reference), "saml.reference-count"),
    ("retrieval-method", a.after_signing(a.retrieval_method), "saml.key-info-forbidden"),
    ("manifest-object", a.after_signing(a.manifest), "saml.object-forbidden"),
    (
        "sha1-signature",
        a.resigned(
            a.setting(DS + "SignatureMethod", "Algorithm", "http://www.w3.org/2000/09/xmldsig#rsa-sha1")
        ),
        "saml.signature-algorithm",
    ),
    (
        "sha1-digest",
        a.resigned(a.setting(DS + "DigestMethod", "Algorithm", "http://www.w3.org/2000/09/xmldsig#sha1")),
        "saml.digest-algorithm",
    ),
    ("signed-info-extended", a.after_signing(a.child_in(DS + "SignedInfo")), "saml.signature-structure"),
    ("reference-extended", a.after_signing(a.child_in(DS + "Reference")), "saml.signature-structure"),
    # programs
    ("xslt-bomb", a.after_signing(a.xslt_bomb), "saml.transform-forbidden"),
    ("xpath-bomb", a.after_signing(a.xpath_bomb), "saml.transform-forbidden"),
    ("xslt-bomb-encrypted", a.encrypted(a.after_signing(a.xslt_bomb)), "saml.transform-forbidden"),
    ("xpath-bomb-encrypted", a.encrypted(a.after_signing(a.xpath_bomb)), "saml.transform-forbidden"),
    # void canonicalization
    ("relative-namespace", a.relative_namespace, "saml.namespace-relative"),
    ("relative-namespace-encrypted", a.encrypted(a.relative_namespace), "saml.namespace-relative"),
    (
        "canonicalization-unknown",
        a.after_signing(a.setting(DS + "CanonicalizationMethod", "Algorithm", "urn:void")),
        "saml.canonicalization",
    ),
    ("transform-inclusive", a.resigned(a.inclusive_transform), "saml.transform-forbidden"),
    # text
    ("comment-name-before", a.before_signing(a.comment_in(NAME_ID)), "saml.comment-forbidden"),
    ("comment-name-after", a.after_signing(a.comment_in(NAME_ID)), "saml.comment-forbidden"),
    ("comment-attribute-before", a.before_signing(a.comment_in(VALUE)), "saml.comment-forbidden"),
    ("comment-attribute-after", a.after_signing(a.comment_in(VALUE)), "saml.comment-forbidden"),
    ("comment-encrypted", a.encrypted(a.after_signing(a.comment_in(NAME_ID))), "saml.comment-forbidden"),
    ("element-in-name", a.before_signing(a.element_in(NAME_ID)), "saml.markup-in-value"),
    ("element-in-attribute", a.before_signing(a.element_in(VALUE)), "saml.markup-in-value"),
    ("processing-instruction", a.after_signing(a.instruction), "saml.processing-instruction"),
    ("xxe", a.doctype(a.XXE), "saml.dtd-forbidden"),
    ("entity-expansion", a.doctype(a.EXPANSION), "saml.dtd-forbidden"),
    ("dtd-in-utf-16", a.doctype(a.XXE, "utf-16"), "saml.encoding"),
    ("dtd-in-utf-7", a.doctype(a.XXE, "utf-7"), "saml.encoding"),
    ("dtd-in-ebcdic", a.doctype(a.XXE, "cp037"), "saml.encoding"),
    ("not-xml", lambda s: b"<samlp:Response", "saml.malformed"),
    ("attribute-flood", a.after_signing(a.attribute_flood), "saml.too-complex"),
    ("attribute-flood-encrypted", a.encrypted(a.after_signing(a.attribute_flood)), "saml.too-complex"),
    ("element-flood", a.after_signing(a.element_flood), "saml.too-complex"),
    ("too-large", lambda s: b"<r>" + b" " * MAX_BYTES + b"</r>", "saml.too-large"),
    # meant for someone else, by the identity provider's own hand
    ("audience-other", a.before_signing(a.text(AUDIENCE, OTHER + "/metadata")), "saml.audience"),
    ("audience-prefix", a.before_signing(a.text(AUDIENCE, a.SP_ENTITY + "2")), "saml.audience"),
    (
        "audience-absent",
        a.before_signing(lambda r: a.find(r, SAML + "Conditions").clear(keep_tail=True)),
        "saml.audience",
    ),
    ("audience-second-restriction", a.before_signing(a.second_audience), "saml.audience"),
    ("recipient-other", a.before_signing(a.setting(DATA, "Recipient", OTHER + "/acs")), "saml.recipient"),
    (
        "recipient-contains",
        a.before_signing(a.setting(DATA, "Recipient", f"https://evil.example/?{ACS}/more")),
        "saml.recipient",
    ),
    ("recipient-prefix", a.before_signing(a.setting(DATA, "Recipient", ACS + "/x")), "saml.recipient"),
    ("recipient-absent", a.before_signing(a.setting(DATA, "Recipient", None)), "saml.recipient"),
    (
        "destination-other",
        a.before_signing(a.setting(RESPONSE, "Destination", OTHER + "/acs")),
        "saml.destination",
    ),
    (
        "destination-prefix",
        a.before_signing(a.setting(RESPONSE, "Destination", ACS + ".evil.example")),
        "saml.destination",
    ),
    ("destination-absent", a.before_signing(a.setting(RESPONSE, "Destination", None)), "saml.destination"),
    ("issuer-other", a.before_signing(lambda r: None, issuer="https://idp.globex.example"), "saml.issuer"),
    (
        "issuer-other-in-assertion",
        a.before_signing(lambda r: a.text(SAML + "Issuer", "https://idp.globex.example")(r[-1])),
        "saml.issuer",
    ),
    (
        "issuer-other-in-response",
        a.after_signing(a.text(SAML + "Issuer", "https://idp.globex.example")),
        "saml.issuer",
    ),
    # the request
    (
        "in-response-to-missing",
        a.before_signing(lambda r: None, in_response_to=None),
        "saml.in-response-to-missing",
    ),
    ("in-response-to-other", a.before_signing(lambda r: None, in_response_to="_else"), "saml.in-response-to"),
    (
        "in-response-to-in-wrapper-alone",
        a.before_signing(a.setting(DATA, "InResponseTo", None)),
        "saml.in-response-to-missing",
    ),
    (
        "in-response-to-right-in-wrapper-alone",
        a.before_signing(a.setting(DATA, "InResponseTo", "_else")),
        "saml.in-response-to",
    ),
    (
        "in-response-to-in-assertion-alone",
        a.after_signing(a.setting(RESPONSE, "InResponseTo", None)),
        "saml.in-response-to-missing",
    ),
    # the subject
    ("name-absent", a.before_signing(a.without(NAME_ID)), "saml.subject"),
    ("name-twice", a.before_signing(a.twice(NAME_ID)), "saml.subject"),
    ("name-encrypted", a.before_signing(a.renamed(NAME_ID, SAML + "EncryptedID")), "saml.encrypted-part"),
    (
        "confirmation-twice",
        a.before_signing(a.twice(SAML + "SubjectConfirmation")),
        "saml.subject-confirmation",
    ),
    # time and standing
    ("expired", a.issued(timedelta(hours=1)), "saml.expired"),
    ("future", a.issued(timedelta(hours=-1)), "saml.not-yet-valid"),
    ("endless", a.before_signing(a.setting(DATA, "NotOnOrAfter", None)), "saml.not-on-or-after-missing"),
    ("time-without-zone", a.before_signing(a.setting(DATA, "NotOnOrAfter", "2999-01-01")), "saml.time"),
    (
        "holder-of-key",
        a.before_signing(
            a.setting(SAML + "SubjectConfirmation", "Method", "urn:oasis:names:tc:SAML:2.0:cm:holder-of-key")
        ),
        "saml.subject-confirmation",
    ),
    ("status-failed", a.after_signing(a.setting(SAMLP + "StatusCode", "Value", "urn:x")), "saml.status"),
    # encryption
    ("encrypted-to-a-stranger", a.encrypted_to_stranger, "saml.undecryptable"),
    ("encrypted-twice", a.encrypted_twice, "saml.encryption-structure"),
    (
        "cipher-reference",
        a.edited(a.encrypted(a.genuine), a.cipher_reference),
        "saml.encryption-structure",
    ),
    (
        "key-transport-1.5",
        a.edited(a.encrypted(a.genuine), a.key_transport_1_5),
        "saml.encryption-algorithm",
    ),
]


@pytest.mark.parametrize(("craft", "check_id"), [pytest.param(c, i, id=n) for n, c, i in ATTACKS])
def test_an_attack_is_refused_by_its_check(scene: Scene, craft: Craft, check_id: str) -> None:
    xml = craft(scene)
    started = time.process_time()
    with pytest.raises(SamlRefused) as refusal:
        validate(scene, xml)
    assert refusal.value.check_id == check_id
    assert time.process_time() - started < 2, "refused, but only after a program in the document had run"


def test_the_gate_stands_alone(scene: Scene) -> None:
    expected = Expected(scene.idp.entity_id, scene.sp.entity_id, ACS, REQUEST_ID)
    inspect(build_response(scene.answer(), scene.key), expected)
    with pytest.raises(GateRefusal, match=r"saml\.assertion-count"):
        inspect(a.xsw(3, "assertion")(scene), expected)


def test_certificates_past_their_date_are_refused_where_the_tenant_says_so(scene: Scene) -> None:
    old = scene.expired_certificate()
    xml = build_response(scene.answer(), scene.key)
    assert certificate_expires(old) < utcnow()
    assert validate(scene, xml, replace(scene.idp, certificates=(old,))).name_id == "u-gp"
    strict = replace(scene.idp, refuse_expired_certificates=True)
    assert validate(scene, xml, strict).name_id == "u-gp"
    with pytest.raises(SamlRefused, match=r"saml\.certificate-expired"):
        validate(scene, xml, replace(strict, certificates=(old,)))


@pytest.mark.parametrize("edit", [a.xslt_bomb, a.xpath_bomb, a.manifest])
def test_the_library_has_the_same_eyes_even_where_the_gate_has_not_looked(
    scene: Scene, edit: Callable[[etree._Element], None]
) -> None:
    harden_library()
    xml = a.after_signing(edit)(scene)
    started = time.process_time()
    assert not OneLogin_Saml2_Utils.validate_sign(xml, cert=scene.idp.certificates[0])
    assert time.process_time() - started < 2
    genuine = a.genuine(scene)
    assert OneLogin_Saml2_Utils.validate_sign(genuine, cert=scene.idp.certificates[0])


def test_what_is_not_base64_is_refused(scene: Scene) -> None:
    with pytest.raises(SamlRefused, match=r"saml\.base64"):
        validate_response("PHI+*", scene.sp, scene.idp, REQUEST_ID)
    with pytest.raises(SamlRefused, match=r"saml\.too-large"):
        validate_response("A" * (2 * MAX_BYTES + 1), scene.sp, scene.idp, REQUEST_ID)


def test_plain_assertions_are_refused_where_encryption_is_required(scene: Scene) -> None:
    strict = replace(scene, sp=replace(scene.sp, require_encryption=True))
    with pytest.raises(SamlRefused, match=r"saml\.no-encrypted-assertion"):
        validate(strict, build_response(scene.answer(), scene.key))
    assert validate(strict, build_response(scene.answer(), scene.key, encrypt=True)).name_id == "u-gp"


# The service provider's own documents


def test_metadata_offers_the_acs_and_one_key_for_both_uses(scene: Scene) -> None:
    root = etree.fromstring(sp_metadata(scene.sp))
    uses = [k.get("use") for k in root.iter("{urn:oasis:names:tc:SAML:2.0:metadata}KeyDescriptor")]
    assert sorted(uses) == ["encryption", "signing"]
    read = read_sp_metadata(sp_metadata(scene.sp))
    assert (read.entity_id, read.acs_url) == (scene.sp.entity_id, ACS)
    assert read.requires_signed_requests
    assert read.certificate_pem is not None
    assert certificate_expires(read.certificate_pem.decode()) == certificate_expires(scene.sp.certificate_pem)


def test_a_request_is_signed_and_its_id_is_the_one_to_expect(scene: Scene) -> None:
    idp = replace(scene.idp, sso_url="https://idp.example/sso?tenant=1&app=2")
    url, request_id = authn_request_url(scene.sp, idp, "relay & state")
    assert url.startswith("https://idp.example/sso?tenant=1&app=2&SAMLRequest=")
    query = urlsplit(url).query
    assert parse_qs(query)["SigAlg"] == ["http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"]
    registered = {scene.sp.entity_id: replace(scene.registered, requires_signed_requests=True)}
    request = read_request(query, registered, idp.sso_url)
    assert (request.id, request.relay_state) == (request_id, "relay & state")
    assert authn_request_url(scene.sp, idp, "")[1] != request_id


def test_a_new_key_is_certified_for_ten_years_under_its_owners_name() -> None:
    owner = "https://a-hospital-group-with-a-long-name.derma.example/auth/saml/metadata"
    private_key, pem = new_sp_key(owner)
    assert private_key.startswith("-----BEGIN PRIVATE KEY-----")
    certificate = x509.load_pem_x509_certificate(pem.encode())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [owner]
    assert timedelta(days=3649) < certificate_expires(pem) - utcnow() <= timedelta(days=3650)
