"""The database goes away under a running gateway, and comes back."""

import asyncio
from pathlib import Path

import httpx
import pytest

from core.embedded_postgres import EmbeddedPostgres
from tenants.directory.cache import Directory
from tenants.plans.service import set_quota
from tests.clinic.journey import NEW_CASE, ok
from tests.fixtures.world import Person, World, open_world, settings_for

ATTEMPTS = 100


@pytest.fixture
def server(tmp_path: Path) -> EmbeddedPostgres:
    """A server of the test's own, which it stops and starts."""
    return EmbeddedPostgres(tmp_path / "postgres", fast=True)


async def test_an_outage_is_told_as_one_and_passes(server: EmbeddedPostgres, tmp_path: Path) -> None:
    await asyncio.to_thread(server.start)
    try:
        logins = await server.bootstrap()
        settings = settings_for(logins.admin_url, logins.gateway_url, tmp_path / "blobs")
        async with open_world(settings, "acme") as world:
            person = await world.person("coordinator")
            assert (await person.http.get("/v1/users")).status_code == 200
            await asyncio.to_thread(server.stop)
            await refuses_calmly(world, person)
            await asyncio.to_thread(server.start)
            await comes_back(world, person)
    finally:
        await asyncio.to_thread(server.stop)


async def refuses_calmly(world: World, person: Person) -> None:
    await asyncio.sleep(1.1)  # what the gateway knew is stale by then
    answer = await person.http.get("/v1/users")
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]
    assert answer.json()["type"].endswith(":unavailable")
    http = await world.http("10.0.0.1")
    assert (await http.get("/healthy")).status_code == 200
    health = await http.get("/health")
    assert health.status_code == 503
    assert health.json()["status"] == "down"
    assert health.json()["components"]["database"]["status"] == "down"
    assert health.json()["components"]["blobs"]["status"] == "up"


async def comes_back(world: World, person: Person) -> None:
    for _ in range(ATTEMPTS):
        answer = await person.http.get("/v1/users")
        if answer.status_code == 200:
            break
        assert answer.status_code == 503
        await asyncio.sleep(0.1)
    assert answer.status_code == 200
    assert {(await person.http.get("/v1/users")).status_code for _ in range(20)} == {200}


async def restart(server: EmbeddedPostgres) -> None:
    await asyncio.to_thread(server.stop)
    await asyncio.to_thread(server.start)


@pytest.mark.soak
async def test_tenants_stay_apart_while_the_database_restarts_under_load(
    server: EmbeddedPostgres, tmp_path: Path
) -> None:
    """Two tenants, each with a case of its own, read by many clients of both at once, some of which give up in the
    middle; meanwhile the server restarts. Every answer is the tenant's own, or a 503."""
    await asyncio.to_thread(server.start)
    try:
        logins = await server.bootstrap()
        settings = settings_for(
            logins.admin_url, logins.gateway_url, tmp_path / "blobs", database_pool_size=4
        )
        async with open_world(settings, "acme", "globex") as world:
            cases = [
                await open_case(await world.person("referrer", tenant=slug)) for slug in ("acme", "globex")
            ]
            for slug in ("acme", "globex"):
                await unlimited(world, slug)
            stop = asyncio.Event()
            readers = [asyncio.create_task(read(*cases[number % 2], stop, number)) for number in range(24)]
            for _ in range(3):
                await asyncio.sleep(8)
                await restart(server)
            await asyncio.sleep(8)
            stop.set()
            counts = [await reader for reader in readers]
            assert sum(counts) > 1000
            assert min(counts) > 0
    finally:
        await asyncio.to_thread(server.stop)


async def open_case(person: Person) -> tuple[httpx.AsyncClient, str, str]:
    secret = f"complaint of {person.user_id}"
    case = ok(await person.http.post("/v1/cases", json=NEW_CASE | {"complaint": secret}), 201)
    return person.http, case["id"], secret


async def unlimited(world: World, slug: str) -> None:
    async with world.admin.control() as session:
        for metric in ("requests_per_minute_user", "requests_per_minute_tenant", "requests"):
            await set_quota(session, slug, metric, 10_000_000)
    await world.parts[Directory].refresh()


async def read(http: httpx.AsyncClient, case_id: str, secret: str, stop: asyncio.Event, number: int) -> int:
    """Read the case until `stop`; every seventh request is given up early. Returns how often it was seen."""
    seen = turn = 0
    while not stop.is_set():
        turn += 1
        try:
            async with asyncio.timeout(0.004 if (turn + number) % 7 == 0 else 30):
                answer = await http.get(f"/v1/cases/{case_id}")
        except TimeoutError:
            continue
        if answer.status_code == 200:
            assert answer.json()["complaint"] == secret
            seen += 1
        else:
            assert answer.status_code == 503, answer.text
            await asyncio.sleep(0.05)
    return seen
