"""Five tenants, and every combination of whose host is asked, whose key signs, whose `kid` the header names, and whose `iss`
and `tid` the claims hold. Each token is really signed; only what is one tenant's throughout may enter."""

import itertools
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from joserfc.jwk import ECKey

from auth.keys.service import KeyRing
from tests.auth.test_tokens import compact, parts_of
from tests.fixtures.world import World

TENANTS = 5


@dataclass(frozen=True)
class Side:
    """One tenant as a forger knows it who has stolen all its secrets."""

    http: httpx.AsyncClient
    key: ECKey
    header: dict[str, Any]
    claims: dict[str, Any]


@pytest.fixture(scope="module")
async def sides(world: World) -> AsyncIterator[list[Side]]:
    made = []
    for number in range(TENANTS):
        slug = f"confused-{number}"
        await world.create_tenant(slug)
        person = await world.person("tenant_admin", tenant=slug)
        key = await world.parts[KeyRing].token_key(world.tenant(slug).scope)
        made.append(Side(await world.http(f"{slug}.localhost"), key, *parts_of(person.token)))
    yield made


async def test_no_tenants_token_opens_another(sides: list[Side]) -> None:
    """3,125 tokens: 5 hosts, keys, key ids, issuers and tenant claims."""
    answers: Counter[int] = Counter()
    for host, key, kid, iss, tid in itertools.product(range(TENANTS), repeat=5):
        header = sides[kid].header
        # Whoever `sub` and `sid` are, they are somebody at the tenant that the claims name.
        claims = sides[tid].claims | {"iss": sides[iss].claims["iss"]}
        token = compact(header, claims, sides[key].key)
        answer = await sides[host].http.get("/v1/me", headers={"Authorization": f"Bearer {token}"})
        one = len({host, key, kid, iss, tid}) == 1
        assert answer.status_code == (200 if one else 401), (host, key, kid, iss, tid)
        answers[answer.status_code] += 1
    assert answers == {200: TENANTS, 401: TENANTS**5 - TENANTS}


async def test_a_forgery_is_not_let_in_by_a_token_that_was_remembered(sides: list[Side]) -> None:
    """Each tenant's own token at each host, asked again and again, so that hosts with a warm cache are asked as well."""
    for _ in range(3):
        for host, owner in itertools.product(range(TENANTS), repeat=2):
            token = compact(sides[owner].header, sides[owner].claims, sides[owner].key)
            answer = await sides[host].http.get("/v1/me", headers={"Authorization": f"Bearer {token}"})
            assert answer.status_code == (200 if host == owner else 401)
            assert (owner == host) == (answer.status_code == 200)
