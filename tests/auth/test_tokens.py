"""Forged, foreign and stale access tokens. All are refused alike: 401, and nothing that helps."""

import base64
import json
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from joserfc.jwk import ECKey

from auth.keys.service import KeyRing
from auth.people.models import SignInSession
from auth.people.service import end_sessions_of
from auth.tokens.service import TokenVerifier
from core.clock import utcnow
from tenants.directory.cache import Directory
from tests.fixtures.world import Person, World

Craft = Callable[[dict[str, Any], dict[str, Any], ECKey], str]


def b64(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode().rstrip("=")


def compact(header: dict[str, Any], claims: dict[str, Any], key: ECKey) -> str:
    """Sign with the tenant's real key, whatever the header says."""
    body = f"{b64(json.dumps(header).encode())}.{b64(json.dumps(claims).encode())}"
    private = load_pem_private_key(key.as_pem(private=True), None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    r, s = decode_dss_signature(private.sign(body.encode(), ec.ECDSA(hashes.SHA256())))
    return f"{body}.{b64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def unsigned(header: dict[str, Any], claims: dict[str, Any]) -> str:
    return f"{b64(json.dumps(header).encode())}.{b64(json.dumps(claims).encode())}."


def hmac_with_public_key(header: dict[str, Any], claims: dict[str, Any], key: ECKey) -> str:
    body = f"{b64(json.dumps(header | {'alg': 'HS256'}).encode())}.{b64(json.dumps(claims).encode())}"
    mac = hmac.HMAC(key.as_pem(private=False), hashes.SHA256())
    mac.update(body.encode())
    return f"{body}.{b64(mac.finalize())}"


def in_der(header: dict[str, Any], claims: dict[str, Any], key: ECKey) -> str:
    """The very signature, in the form of certificates instead of RFC 7518's."""
    signed, _, signature = compact(header, claims, key).rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    der = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    return f"{signed}.{b64(der)}"


def grafted(header: dict[str, Any], claims: dict[str, Any], key: ECKey) -> str:
    changed = unsigned(header, claims | {"roles": ["tenant_admin"]})
    return changed + compact(header, claims, key).rpartition(".")[2]


def foreign(header: dict[str, Any], claims: dict[str, Any], key: ECKey, **more: Any) -> str:
    other = ECKey.generate_key("P-256")
    if "jwk" in more:
        more["jwk"] = other.as_dict(private=False)
    return compact(header | more, claims, other)


ATTACKS: dict[str, Craft] = {
    "alg none": lambda h, c, k: unsigned(h | {"alg": "none"}, c),
    "alg nOnE": lambda h, c, k: unsigned(h | {"alg": "nOnE"}, c),
    "no signature": lambda h, c, k: unsigned(h, c),
    "HS256 with the public key": hmac_with_public_key,
    "foreign key, our kid": foreign,
    "jwk in the header": lambda h, c, k: foreign(h, c, k, jwk={}),
    "jku in the header": lambda h, c, k: compact(h | {"jku": "https://evil.example/jwks"}, c, k),
    "x5u in the header": lambda h, c, k: compact(h | {"x5u": "https://evil.example/x.pem"}, c, k),
    "x5c in the header": lambda h, c, k: foreign(h, c, k, x5c=["MIIB"]),
    "unencoded payload": lambda h, c, k: compact(h | {"b64": False, "crit": ["b64"]}, c, k),
    "another curve": lambda h, c, k: compact(h | {"alg": "ES384"}, c, k),
    "RS256 with the public key's numbers": lambda h, c, k: compact(h | {"alg": "RS256"}, c, k),
    "signature of zeros": lambda h, c, k: unsigned(h, c) + b64(bytes(64)),
    "signature in another form": in_der,
    "signature of other claims": grafted,
    "nested": lambda h, c, k: compact(h | {"cty": "JWT"}, c, k),
    "encrypted form": lambda h, c, k: compact(h, c, k) + ".YQ.YQ",
    "unknown crit": lambda h, c, k: compact(h | {"crit": ["x"], "x": 1}, c, k),
    "kid missing": lambda h, c, k: compact({n: v for n, v in h.items() if n != "kid"}, c, k),
    "kid traversal": lambda h, c, k: compact(h | {"kid": "../../../dev/null"}, c, k),
    "kid unknown": lambda h, c, k: compact(h | {"kid": str(uuid4())}, c, k),
    "kid not text": lambda h, c, k: compact(h | {"kid": 7}, c, k),
    "typ of another token": lambda h, c, k: compact(h | {"typ": "dermadetect-report+jws"}, c, k),
    "exp missing": lambda h, c, k: compact(h, {n: v for n, v in c.items() if n != "exp"}, k),
    "exp past": lambda h, c, k: compact(h, c | {"exp": int(time.time()) - 120}, k),
    "exp text": lambda h, c, k: compact(h, c | {"exp": "tomorrow"}, k),
    "nbf in the future": lambda h, c, k: compact(h, c | {"nbf": int(time.time()) + 3600}, k),
    "aud missing": lambda h, c, k: compact(h, {n: v for n, v in c.items() if n != "aud"}, k),
    "aud of another service": lambda h, c, k: compact(h, c | {"aud": "other"}, k),
    "iss of another tenant": lambda h, c, k: compact(h, c | {"iss": "http://globex.localhost:8000"}, k),
    "iss prefix": lambda h, c, k: compact(h, c | {"iss": c["iss"] + ".evil.example"}, k),
    "tid of another tenant": lambda h, c, k: compact(h, c | {"tid": "globex"}, k),
    "tid missing": lambda h, c, k: compact(h, {n: v for n, v in c.items() if n != "tid"}, k),
    "sub not an id": lambda h, c, k: compact(h, c | {"sub": "admin"}, k),
    "sid missing": lambda h, c, k: compact(h, {n: v for n, v in c.items() if n != "sid"}, k),
    "roles not a list": lambda h, c, k: compact(h, c | {"roles": None}, k),
    "scope not text": lambda h, c, k: compact(h, c | {"scope": ["cases:read"]}, k),
    "not a token": lambda h, c, k: "abc",
    "three empty parts": lambda h, c, k: "..",
    "header not JSON": lambda h, c, k: "YWJj." + compact(h, c, k).split(".", 1)[1],
    "header a list": lambda h, c, k: b64(b"[]") + "." + compact(h, c, k).split(".", 1)[1],
    "header of brackets": lambda h, c, k: b64(b"[" * 1500) + "." + compact(h, c, k).split(".", 1)[1],
    "very long": lambda h, c, k: compact(h, c | {"x": "x" * 5000}, k),
    "signature cut": lambda h, c, k: compact(h, c, k)[:-4],
}


def parts_of(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    header, claims, _ = token.split(".")

    def decode(part: str) -> dict[str, Any]:
        return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))

    return decode(header), decode(claims)


@pytest.fixture(scope="module")
async def person(world: World) -> Person:
    return await world.person("coordinator")


@pytest.fixture(scope="module")
async def key(world: World) -> ECKey:
    return await world.parts[KeyRing].token_key(world.tenant().scope)


async def test_the_same_way_of_signing_makes_a_good_token(world: World, person: Person, key: ECKey) -> None:
    """Else the attacks below could be refused for a mistake of this test."""
    token = compact(*parts_of(person.token), key)
    http = await world.http(Authorization=f"Bearer {token}")
    assert (await http.get("/v1/me")).status_code == 200


@pytest.mark.parametrize("attack", ATTACKS)
async def test_attack_is_refused(world: World, person: Person, key: ECKey, attack: str) -> None:
    token = ATTACKS[attack](*parts_of(person.token), key)
    http = await world.http(Authorization=f"Bearer {token}")
    answer = await http.get("/v1/me")
    assert answer.status_code == 401
    assert answer.json()["type"].endswith(":token-refused")
    assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]


async def test_a_token_of_one_tenant_opens_no_other(world: World, person: Person) -> None:
    http = await world.http("globex.localhost", Authorization=f"Bearer {person.token}")
    assert (await http.get("/v1/me")).status_code == 401
    # Also not after its own tenant has verified and remembered it.
    assert (await person.http.get("/v1/me")).status_code == 200
    assert (await http.get("/v1/me")).status_code == 401


async def test_a_foreign_tenants_key_signs_nothing_here(world: World, person: Person) -> None:
    globex = await world.parts[KeyRing].token_key(world.tenant("globex").scope)
    header, claims = parts_of(person.token)
    for kid in (header["kid"], globex.kid):
        http = await world.http(Authorization=f"Bearer {compact(header | {'kid': kid}, claims, globex)}")
        assert (await http.get("/v1/me")).status_code == 401


@pytest.mark.parametrize("value", ["Basic abc", "Bearer", "Bearer ", "bearer", "Token x"])
async def test_other_schemes_are_401(world: World, value: str) -> None:
    http = await world.http(Authorization=value)
    assert (await http.get("/v1/me")).status_code == 401


async def test_no_token_is_401_before_the_body_is_read(world: World) -> None:
    http = await world.http()
    answer = await http.post("/v1/cases", content=b"{not json")
    assert answer.status_code == 401
    assert "Bearer" in answer.headers["WWW-Authenticate"]


async def test_a_logout_that_was_interrupted_is_finished_by_the_next(world: World) -> None:
    person = await world.person("coordinator")
    async with world.database.tenant(world.tenant().scope) as session:
        (await session.get_one(SignInSession, person.session_id)).revoked_at = utcnow()  # and then it died
    assert (await person.http.post("/auth/logout")).status_code == 204
    assert (await person.http.post("/auth/logout")).status_code == 204
    await world.parts[Directory].refresh()
    assert (await person.http.get("/v1/me")).status_code == 401


async def test_logout_ends_the_token_everywhere(world: World) -> None:
    person = await world.person("coordinator")
    assert (await person.http.get("/v1/me")).status_code == 200
    assert (await person.http.post("/auth/logout")).status_code == 204
    await world.parts[Directory].refresh()
    assert (await person.http.get("/v1/me")).status_code == 401


async def test_all_sessions_of_a_person_end_at_once_and_nobody_elses(world: World) -> None:
    first, second = [await world.person("coordinator", login="leaver") for _ in range(2)]
    other = await world.person("coordinator")
    scope = world.tenant().scope
    assert await end_sessions_of(world.database, scope, first.user_id, None, "deactivated") == 2
    assert await end_sessions_of(world.database, scope, first.user_id, None, "deactivated") == 0
    await world.parts[Directory].refresh()
    answers = [(await each.http.get("/v1/me")).status_code for each in (first, second, other)]
    assert answers == [401, 401, 200]


async def test_what_is_remembered_is_bounded_and_still_holds(
    world: World, person: Person, key: ECKey
) -> None:
    verifier = TokenVerifier(world.database, world.parts[Directory], generation=10)
    tenant = world.tenant()
    origin = world.settings.origin_of(tenant.home_host)
    header, claims = parts_of(person.token)
    tokens = [compact(header, claims | {"jti": str(number)}, key) for number in range(45)]
    for token in (*tokens, *reversed(tokens)):
        assert (await verifier.verify(token, tenant, origin)).subject == person.user_id
        assert len(verifier) <= 20
