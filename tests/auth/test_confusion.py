"""Five tenants, and every combination of whose host is asked, whose key signs, whose `kid` the header names, and whom the
claims name. Each token is really signed by a tenant's own key; only what is one tenant's throughout may enter."""

import itertools
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
async def sides(world: World) -> list[Side]:
    made = []
    for number in range(TENANTS):
        slug = f"confused-{number}"
        await world.create_tenant(slug)
        person = await world.person("tenant_admin", tenant=slug)
        key = await world.parts[KeyRing].token_key(world.tenant(slug).scope)
        made.append(Side(await world.http(f"{slug}.localhost"), key, *parts_of(person.token)))
    return made


async def enters(host: Side, token: str) -> bool:
    answer = await host.http.get("/v1/me", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code in (200, 401)
    return answer.status_code == 200


async def test_no_tenants_token_opens_another(sides: list[Side]) -> None:
    """625 tokens. Whoever `sub` and `sid` are, they are somebody at the tenant that the claims name."""
    entered = [
        combination
        for combination in itertools.product(range(TENANTS), repeat=4)
        for host, key, kid, claims in [combination]
        if await enters(sides[host], compact(sides[kid].header, sides[claims].claims, sides[key].key))
    ]
    assert entered == [(each,) * 4 for each in range(TENANTS)]


async def test_nor_does_one_whose_claims_are_two_tenants(sides: list[Side]) -> None:
    """125 tokens by the key of the host's own tenant."""
    entered = [
        (host, iss, tid)
        for host, iss, tid in itertools.product(range(TENANTS), repeat=3)
        if await enters(
            sides[host],
            compact(
                sides[host].header, sides[tid].claims | {"iss": sides[iss].claims["iss"]}, sides[host].key
            ),
        )
    ]
    assert entered == [(each,) * 3 for each in range(TENANTS)]


async def test_nor_where_a_host_remembers_a_token_of_its_own(sides: list[Side]) -> None:
    tokens = [compact(side.header, side.claims, side.key) for side in sides]
    for _ in range(2):
        for host, owner in itertools.product(range(TENANTS), repeat=2):
            assert await enters(sides[host], tokens[owner]) == (host == owner)
