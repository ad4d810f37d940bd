"""More tenants than one login serves: the next group has a login of its own, and nobody notices."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from core.logins import Logins, group_url
from gateway.assembly import background_worker
from tenants.directory.service import TENANTS_PER_LOGIN
from tests.clinic.journey import NEW_CASE, ok
from tests.fixtures.fleet import eventually
from tests.fixtures.postgres import PostgresServer
from tests.fixtures.world import World, open_world, settings_for

FILL = """
    INSERT INTO control.tenants (id, key, slug, name, home_host, plan, state)
    SELECT gen_random_uuid(), 'filler' || i, 'filler-' || i, 'Filler', 'filler-' || i, 'trial', 'suspended'
    FROM generate_series(1, $1) AS i
"""


@pytest.fixture(scope="module")
async def logins(postgres: PostgresServer) -> AsyncIterator[Logins]:
    yield await postgres.create_database("groups")
    await postgres.drop_database("groups")


@pytest.fixture(scope="module")
async def crowded(logins: Logins, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """A gateway whose first login serves as many tenants as it may, `first` among them; `second` came after."""
    settings = settings_for(logins.admin_url, logins.gateway_url, tmp_path_factory.mktemp("blobs"))
    async with open_world(settings, "first") as world:
        async with world.admin.connection() as connection:
            await connection.execute(FILL, TENANTS_PER_LOGIN - 1)
        await world.create_tenant("second")
        yield world


async def refused(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
    finally:
        await connection.close()


async def test_the_next_group_has_a_login_of_its_own(crowded: World, logins: Logins) -> None:
    first, second = crowded.tenant("first").scope, crowded.tenant("second").scope
    assert (first.group, second.group) == (0, 1)
    further = group_url(logins.gateway_url, 1)
    await refused(logins.gateway_url, f"SET ROLE {second.role}")
    await refused(further, f"SET ROLE {first.role}")
    await refused(further, "SELECT * FROM control.tenants")
    await refused(further, f"SELECT * FROM {second.schema}.cases")  # not without becoming the tenant
    await refused(further, "CREATE TEMPORARY TABLE mine (a int)")


async def test_requests_and_background_work_are_as_with_the_first(crowded: World) -> None:
    for slug in ("second", "first"):
        referrer = await crowded.person("referrer", tenant=slug)
        case = ok(await referrer.http.post("/v1/cases", json=NEW_CASE), 201)
        assert ok(await referrer.http.get(f"/v1/cases/{case['id']}"))["id"] == case["id"]
    worker, second = background_worker(crowded.parts), crowded.tenant("second").scope

    async def done() -> bool:
        while await worker.run_one():
            pass
        async with crowded.admin.connection() as connection:
            waiting = "SELECT count(*) FROM control.doorbells WHERE tenant_key = $1 AND due_at <= now()"
            left = await connection.fetchval(waiting, second.key)
            await connection.execute("SET ROLE dermadetect_owner")
            sealed = f"SELECT count(*) FROM {second.schema}.audit_events WHERE seal IS NOT NULL"
            return left == 0 and await connection.fetchval(sealed) > 0

    await eventually(done)  # a gateway rings a moment after the commit


async def test_a_place_that_is_free_again_is_taken(crowded: World) -> None:
    async with crowded.admin.connection() as connection:
        await connection.execute("UPDATE control.tenants SET state = 'rolled-back' WHERE slug = 'filler-7'")
    assert (await crowded.create_tenant("third")).login_group == 0
    assert (await crowded.create_tenant("fourth")).login_group == 1


def test_the_url_of_a_group_differs_in_the_user_alone() -> None:
    url = "postgresql://gate%40way:p%40ss@[::1]:5432/db?sslmode=require"
    assert group_url(url, 0) == url
    assert group_url(url, 3) == "postgresql://gate%40way_3:p%40ss@[::1]:5432/db?sslmode=require"
    assert group_url("postgresql://gateway@host/db", 1) == "postgresql://gateway_1@host/db"
