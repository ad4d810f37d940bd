"""SAML responses that must be accepted, and the attacks that must not."""

import base64
import time
from dataclasses import replace
from datetime import UTC, timedelta
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography import x509
from lxml import etree
from onelogin.saml2.utils import OneLogin_Saml2_Utils

from auth.saml.errors import GateRefusal, SamlRefused
from auth.saml.gate import MAX_BYTES, Expected, inspect
from auth.saml.request import authn_request_url, new_sp_key, sp_metadata
from auth.saml.validation import certificate_expires, harden_library, validate_response
from core.clock import utcnow
from core.jail import Jail
from reference.attacks import forgeries
from reference.attacks.corpus import ATTACKS, Attack
from reference.attacks.scene import DS, SIGNATURE, Edit, after_signing, child_in
from reference.idp.config import SigningKey
from reference.idp.messages import read_request, read_sp_metadata
from reference.idp.response import build_response
from tests.fixtures.saml import ACS, REQUEST_ID, Parties


@pytest.fixture(scope="module")
def parties() -> Parties:
    return Parties.build()


# What must be accepted


@pytest.mark.parametrize("encrypt", [False, True], ids=["plain", "encrypted"])
@pytest.mark.parametrize("sign", ["assertion", "response", "both"])
def test_a_genuine_response_names_the_person(parties: Parties, sign: str, encrypt: bool) -> None:
    identity = parties.validate(build_response(parties.answer(), parties.key, sign, encrypt))  # type: ignore[arg-type]
    assert identity.name_id == "u-gp"
    assert identity.name_id_format == "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent"
    assert identity.issuer == parties.idp.entity_id
    assert identity.attributes == {
        "email": ["gp@acme.derma.example"],
        "displayName": ["Gerd Hausmann"],
        "groups": ["derma-referrers"],
    }
    assert identity.session_index
    assert identity.assertion_id
    assert identity.not_on_or_after.tzinfo is UTC
    assert timedelta(0) < identity.not_on_or_after - utcnow() <= timedelta(minutes=5)


def test_either_of_two_certificates_verifies_while_the_provider_changes_its_key(parties: Parties) -> None:
    new = SigningKey.generate()
    idp = replace(parties.idp, certificates=(*parties.idp.certificates, new.certificate_pem.decode()))
    for key in (parties.key, new):
        assert parties.validate(build_response(parties.answer(), key), idp).name_id == "u-gp"


def test_line_breaks_in_base64_are_harmless(parties: Parties) -> None:
    wrapped = base64.encodebytes(build_response(parties.answer(), parties.key)).decode()
    assert validate_response(wrapped, parties.sp, parties.idp, REQUEST_ID).name_id == "u-gp"


def test_a_response_nobody_asked_for_needs_the_tenants_permission(parties: Parties) -> None:
    unasked = base64.b64encode(build_response(parties.answer(in_response_to=None), parties.key)).decode()
    with pytest.raises(SamlRefused, match=r"saml\.idp-initiated"):
        validate_response(unasked, parties.sp, parties.idp, None)
    allowing = replace(parties.idp, allow_idp_initiated=True)
    assert validate_response(unasked, parties.sp, allowing, None).name_id == "u-gp"
    # Permission does not turn a stolen answer to somebody's request into an unasked one.
    stolen = base64.b64encode(build_response(parties.answer(), parties.key)).decode()
    with pytest.raises(SamlRefused, match=r"saml\.in-response-to-unexpected"):
        validate_response(stolen, parties.sp, allowing, None)


async def test_validation_runs_in_a_jail_and_its_refusals_come_back_whole(parties: Parties) -> None:
    jail = Jail(workers=1)
    try:
        good = base64.b64encode(build_response(parties.answer(), parties.key)).decode()
        bad = base64.b64encode(forgeries.unsigned(parties.scene)).decode()
        identity = await jail.run(20, validate_response, good, parties.sp, parties.idp, REQUEST_ID)
        assert identity.name_id == "u-gp"
        with pytest.raises(GateRefusal) as refusal:
            await jail.run(20, validate_response, bad, parties.sp, parties.idp, REQUEST_ID)
    finally:
        jail.close()
    assert refusal.value.check_id == "saml.signature-missing"
    assert "signature" not in str(refusal.value.document())  # the browser does not learn which check it was


# What must be refused


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_an_attack_is_refused_by_its_check(parties: Parties, attack: Attack) -> None:
    xml = attack.craft(parties.scene)
    started = time.process_time()
    with pytest.raises(SamlRefused) as refusal:
        parties.validate(xml)
    assert refusal.value.check_id == attack.check
    assert time.process_time() - started < 2, "refused, but only after a program in the document had run"


def test_attacks_have_names_of_their_own() -> None:
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS)


def test_the_gate_stands_alone(parties: Parties) -> None:
    expected = Expected(parties.idp.entity_id, parties.sp.entity_id, ACS, REQUEST_ID)
    inspect(build_response(parties.answer(), parties.key), expected)
    with pytest.raises(GateRefusal, match=r"saml\.assertion-count"):
        inspect(forgeries.xsw(3, "assertion")(parties.scene), expected)


def test_certificates_past_their_date_are_refused_where_the_tenant_says_so(parties: Parties) -> None:
    old = parties.expired_certificate()
    xml = build_response(parties.answer(), parties.key)
    assert certificate_expires(old) < utcnow()
    assert parties.validate(xml, replace(parties.idp, certificates=(old,))).name_id == "u-gp"
    strict = replace(parties.idp, refuse_expired_certificates=True)
    assert parties.validate(xml, strict).name_id == "u-gp"
    with pytest.raises(SamlRefused, match=r"saml\.certificate-expired"):
        parties.validate(xml, replace(strict, certificates=(old,)))


an_object = child_in(SIGNATURE, DS + "Object")


@pytest.mark.parametrize(
    "edit", [forgeries.xslt_bomb, forgeries.xpath_bomb, forgeries.xpath2_bomb, an_object]
)
def test_the_library_has_the_same_eyes_even_where_the_gate_has_not_looked(
    parties: Parties, edit: Edit
) -> None:
    harden_library()
    xml = after_signing(edit)(parties.scene)
    started = time.process_time()
    assert not OneLogin_Saml2_Utils.validate_sign(xml, cert=parties.idp.certificates[0])
    assert time.process_time() - started < 2
    genuine = parties.scene.honest()
    assert OneLogin_Saml2_Utils.validate_sign(genuine, cert=parties.idp.certificates[0])


def test_what_is_not_base64_is_refused(parties: Parties) -> None:
    with pytest.raises(SamlRefused, match=r"saml\.base64"):
        validate_response("PHI+*", parties.sp, parties.idp, REQUEST_ID)
    with pytest.raises(SamlRefused, match=r"saml\.too-large"):
        validate_response("A" * (2 * MAX_BYTES + 1), parties.sp, parties.idp, REQUEST_ID)


def test_plain_assertions_are_refused_where_encryption_is_required(parties: Parties) -> None:
    strict = replace(parties, sp=replace(parties.sp, require_encryption=True))
    with pytest.raises(SamlRefused, match=r"saml\.no-encrypted-assertion"):
        strict.validate(build_response(parties.answer(), parties.key))
    assert strict.validate(build_response(parties.answer(), parties.key, encrypt=True)).name_id == "u-gp"


# The service provider's own documents


def test_metadata_offers_the_acs_and_one_key_for_both_uses(parties: Parties) -> None:
    root = etree.fromstring(sp_metadata(parties.sp))
    uses = [k.get("use", "") for k in root.iter("{urn:oasis:names:tc:SAML:2.0:metadata}KeyDescriptor")]
    assert sorted(uses) == ["encryption", "signing"]
    read = read_sp_metadata(sp_metadata(parties.sp))
    assert (read.entity_id, read.acs_url) == (parties.sp.entity_id, ACS)
    assert read.requires_signed_requests
    assert read.certificate_pem is not None
    assert certificate_expires(read.certificate_pem.decode()) == certificate_expires(
        parties.sp.certificate_pem
    )


def test_a_request_is_signed_and_its_id_is_the_one_to_expect(parties: Parties) -> None:
    idp = replace(parties.idp, sso_url="https://idp.example/sso?tenant=1&app=2")
    url, request_id = authn_request_url(parties.sp, idp, "relay & state")
    assert url.startswith("https://idp.example/sso?tenant=1&app=2&SAMLRequest=")
    query = urlsplit(url).query
    assert parse_qs(query)["SigAlg"] == ["http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"]
    registered = {parties.sp.entity_id: replace(parties.registered, requires_signed_requests=True)}
    request = read_request(query, registered, idp.sso_url)
    assert (request.id, request.relay_state) == (request_id, "relay & state")
    assert authn_request_url(parties.sp, idp, "")[1] != request_id


def test_a_new_key_is_certified_for_ten_years_under_its_owners_name() -> None:
    owner = "https://a-hospital-group-with-a-long-name.derma.example/auth/saml/metadata"
    private_key, pem = new_sp_key(owner)
    assert private_key.startswith("-----BEGIN PRIVATE KEY-----")
    certificate = x509.load_pem_x509_certificate(pem.encode())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [owner]
    assert timedelta(days=3649) < certificate_expires(pem) - utcnow() <= timedelta(days=3650)
