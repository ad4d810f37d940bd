"""Counting against monthly quotas: never more than the limit, whoever counts."""

import asyncio

import pytest

from core.database import Database
from tenants.directory.cache import Directory
from tenants.directory.service import find_tenant
from tenants.plans import service as plans
from tenants.plans.counter import UsageCounter
from tenants.plans.errors import QuotaExceeded, UnknownMetric
from tests.fixtures.world import World


async def set_quota(world: World, slug: str, metric: str, limit: int | None) -> None:
    async with world.admin.control() as session:
        await plans.set_quota(session, slug, metric, limit)
    await world.parts[Directory].refresh()


async def used(world: World, slug: str, metric: str = "requests") -> int:
    async with world.admin.control() as session:
        quotas = await plans.list_quotas(session, await find_tenant(session, slug))
    return next(quota.used or 0 for quota in quotas if quota.metric == metric)


async def test_counters_of_several_processes_grant_exactly_the_limit(world: World) -> None:
    await world.create_tenant("counted")
    await set_quota(world, "counted", "requests", 500)
    assert world.settings.database_url
    url = world.settings.database_url.get_secret_value()
    # Each process has a pool and a counter of its own.
    databases = [Database(url, pool_size=2) for _ in range(4)]
    counters = [UsageCounter(database) for database in databases]
    tenant = world.tenant("counted")

    async def consume(counter: UsageCounter) -> bool:
        try:
            await counter.consume(tenant, "requests")
        except QuotaExceeded:
            return False
        return True

    granted = await asyncio.gather(*(consume(counters[number % 4]) for number in range(800)))
    # What a counter still holds is granted to it alone; together they never exceed the limit.
    held = sum(lease.left for counter in counters for lease in counter._leases.values())
    assert sum(granted) + held == 500
    assert sum(granted) >= 480
    for counter in counters:
        await counter.close()
    assert await used(world, "counted") == sum(granted)
    for database in databases:
        await database.close()


async def test_a_request_beyond_the_quota_is_429_and_says_when_it_ends(world: World) -> None:
    await world.create_tenant("thrifty")
    await set_quota(world, "thrifty", "requests", 3)
    person = await world.person("tenant_admin", tenant="thrifty")
    assert [(await person.http.get("/v1/users")).status_code for _ in range(5)] == [200, 200, 200, 429, 429]
    refused = (await person.http.get("/v1/users")).json()
    assert refused["type"].endswith(":quota-exceeded")
    assert refused["metric"] == "requests"
    assert refused["limit"] == 3
    assert "resets_at" in refused


async def test_use_can_be_seen_beyond_the_quota_and_is_counted(world: World) -> None:
    await world.create_tenant("watchful")
    await set_quota(world, "watchful", "requests", 1)
    person = await world.person("tenant_admin", tenant="watchful")
    for expected in (1, 2, 3):
        answer = await person.http.get("/v1/usage")
        assert answer.status_code == 200
        by_metric = {quota["metric"]: quota for quota in answer.json()["quotas"]}
        assert by_metric["requests"]["used"] == expected
        assert by_metric["requests"]["limit"] == 1
        assert by_metric["requests"]["source"] == "override"


async def test_raising_the_quota_lets_requests_through_again(world: World) -> None:
    await world.create_tenant("growing")
    await set_quota(world, "growing", "requests", 1)
    person = await world.person("tenant_admin", tenant="growing")
    assert [(await person.http.get("/v1/users")).status_code for _ in range(2)] == [200, 429]
    await set_quota(world, "growing", "requests", 10)
    assert (await person.http.get("/v1/users")).status_code == 200
    await set_quota(world, "growing", "requests", None)
    assert (await person.http.get("/v1/users")).status_code == 200


async def test_an_unknown_quota_is_named(world: World) -> None:
    async with world.admin.control() as session:
        with pytest.raises(UnknownMetric, match="there are requests"):
            await plans.set_quota(session, "acme", "requestz", 1)
