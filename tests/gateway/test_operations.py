"""Creating, moving and purging tenants over the platform's API: ordered, done in the background, told."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import pytest

from core.database import AdminDatabase
from core.problems import Unavailable
from core.settings import Cell
from tenants.directory.cache import Directory
from tenants.operations.service import MOST_ATTEMPTS, OperationRunner, Progress, order
from tests.clinic.journey import ok
from tests.fixtures.postgres import PostgresServer
from tests.fixtures.world import World, open_world, settings_for
from tests.gateway.test_platform import client


@pytest.fixture(scope="module")
async def operated(
    postgres: PostgresServer, far_postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    here, far = await postgres.create_database("ordered"), await far_postgres.create_database("ordered")
    cell = Cell(
        database_url=far.gateway_url,
        admin_database_url=far.admin_url,
        blob_directory=tmp_path_factory.mktemp("far-blobs"),
    )
    settings = settings_for(
        here.admin_url,
        here.gateway_url,
        tmp_path_factory.mktemp("blobs"),
        platform_api=True,
        cells={"eu-2": cell},
    )
    async with open_world(settings) as opened:
        yield opened
    await postgres.drop_database("ordered")


async def ended(http: httpx.AsyncClient, ordered: httpx.Response) -> dict[str, Any]:
    """The operation, once it has ended."""
    ok(ordered, 202)
    async with asyncio.timeout(60):
        while True:
            operation: dict[str, Any] = ok(await http.get(ordered.headers["Location"]))
            if operation["state"] in ("done", "failed"):
                return operation
            await asyncio.sleep(0.1)


async def test_a_tenants_whole_life_over_http(operated: World) -> None:
    http = await client(operated, "life")
    asked = {"slug": "acme", "name": "Acme Clinic", "plan": "standard"}
    made = await ended(http, await http.post("/platform/v1/tenants", json=asked))
    assert (made["state"], made["kind"], made["actor"]) == ("done", "create", "token:life"), made
    assert set(made["steps"]) == {"schema", "container", "keys"}
    acme = "/platform/v1/tenants/acme"
    assert made["result"] == ok(await http.get(acme))
    assert made["result"]["state"] == "active"
    again = await ended(http, await http.post("/platform/v1/tenants", json=asked))
    assert again["result"]["key"] == made["result"]["key"]
    await operated.parts[Directory].refresh()
    person = await operated.person("tenant_admin", tenant="acme")
    ok(await person.http.get("/v1/me"))

    moved = await ended(http, await http.post(f"{acme}/move", json={"to_cell": "eu-2"}))
    assert (moved["state"], moved["steps"][-1]) == ("done", "cleaned"), moved
    await operated.parts[Directory].refresh()
    assert operated.tenant("acme").scope.cell == "eu-2"
    ok(await person.http.get("/v1/me"))
    back = await ended(http, await http.delete(f"{acme}/move"))
    assert (back["state"], back["problem"]["type"].rpartition(":")[2]) == ("failed", "move-refused")

    ok(await http.post(f"{acme}/close", json={"reason": "left", "grace_days": 1}))
    ok(await http.get(f"{acme}/certificate"), 404)
    ok(await http.post(f"{acme}/purge", json={"confirm": "acne"}), 422)
    early = await ended(http, await http.post(f"{acme}/purge", json={"confirm": "acme"}))
    assert early["problem"]["type"].endswith(":grace-not-over")
    gone = await ended(http, await http.post(f"{acme}/purge", json={"confirm": "acme", "now": True}))
    assert gone["state"] == "done", gone
    assert gone["result"] == ok(await http.get(f"{acme}/certificate"))
    assert ok(await http.get(acme))["state"] == "closed"

    listed = ok(await http.get("/platform/v1/operations", params={"limit": 3}))
    assert listed["items"][0] == gone
    assert listed["next_cursor"]
    async with operated.admin.connection() as connection:
        actors = await connection.fetch(
            "SELECT DISTINCT e.actor FROM control.audit_events e JOIN control.tenants t ON t.id = tenant_id "
            "WHERE t.slug = 'acme'"
        )
    assert [actor for (actor,) in actors] == ["token:life"], (
        "what is done in the background is theirs as well"
    )


async def test_what_cannot_be_done_is_refused_at_once(operated: World) -> None:
    http = await client(operated, "refused")
    asked = {"slug": "www", "name": "Name", "plan": "standard"}
    ok(await http.post("/platform/v1/tenants", json=asked), 422)
    ok(await http.post("/platform/v1/tenants", json=asked | {"slug": "fine", "plan": "platinum"}), 404)
    ok(await http.post("/platform/v1/tenants/nobody/purge", json={"confirm": "nobody"}), 404)
    ok(await http.get("/platform/v1/operations/00000000-0000-7000-8000-000000000000"), 404)
    there = ok(await http.post("/platform/v1/tenants", json=asked | {"slug": "fine", "cell": "mars"}), 422)
    assert there["detail"] == "No cell is called 'mars': there are default, eu-2."
    ok(await http.post("/platform/v1/tenants/nobody/move", json={"to_cell": "mars"}), 422)
    reader = await client(operated, "reads-only", "read")
    ok(await reader.post("/platform/v1/tenants", json=asked), 403)


def runner(world: World, verb: Any) -> OperationRunner:
    return OperationRunner(world.admin, {"test": verb})


async def test_one_order_at_a_time_for_a_tenant_and_each_is_done_once(operated: World) -> None:
    done: list[str] = []

    async def verb(_: AdminDatabase, asked: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
        await asyncio.sleep(0.05)
        done.append(asked["name"])
        return {}

    # The application's own runner, which is at work too, does not know the verb and leaves it alone.
    async with operated.admin.control() as session:
        for name in ("a", "b", "c"):
            await order(session, "test", name, {"name": name})
    workers = [runner(operated, verb) for _ in range(3)]

    async def drain(worker: OperationRunner) -> None:
        while await worker.run_one():
            pass

    await asyncio.gather(*map(drain, workers))
    assert sorted(done) == ["a", "b", "c"]


async def test_what_a_dead_process_had_is_taken_up_when_its_lease_ends(operated: World) -> None:
    begun, ends = asyncio.Event(), asyncio.Event()

    async def hangs(_: AdminDatabase, asked: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
        progress("half")
        begun.set()
        await ends.wait()
        return {"by": "the first"}

    async def works(_: AdminDatabase, asked: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
        progress("whole")
        return {"by": "the second"}

    async with operated.admin.control() as session:
        ordered = await order(session, "test", "dead", {})
    first = asyncio.create_task(runner(operated, hangs).run_one())
    await begun.wait()
    second = runner(operated, works)
    assert not await second.run_one(), "it is the first one's"
    async with operated.admin.connection() as connection:
        await connection.execute(
            "UPDATE control.operations SET leased_until = now() - interval '1 second' WHERE id = $1",
            ordered.id,
        )
    assert await second.run_one()
    ends.set()
    await first  # it was not dead but slow: what it brings comes too late
    async with operated.admin.connection() as connection:
        row = await connection.fetchrow(
            "SELECT state, steps, result->>'by' AS by, attempts FROM control.operations WHERE id = $1",
            ordered.id,
        )
    assert tuple(row or ()) == ("done", ["whole"], "the second", 2)


async def test_what_fails_for_a_while_is_tried_again_but_not_for_ever(operated: World) -> None:
    tries = 0

    async def fails(_: AdminDatabase, asked: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
        nonlocal tries
        tries += 1
        raise (
            Unavailable("The store does not answer.") if tries < MOST_ATTEMPTS else ConnectionError("secret")
        )

    async with operated.admin.control() as session:
        ordered = await order(session, "test", "fails", {})
    worker = runner(operated, fails)
    while await worker.run_one():
        async with operated.admin.connection() as connection:
            await connection.execute(
                "UPDATE control.operations SET leased_until = NULL WHERE id = $1", ordered.id
            )
    async with operated.admin.connection() as connection:
        row = await connection.fetchrow(
            "SELECT state, problem::text FROM control.operations WHERE id = $1", ordered.id
        )
    assert row
    assert (row["state"], tries) == ("failed", MOST_ATTEMPTS)
    assert "secret" not in row["problem"]
