"""Two cells, each a PostgreSQL server and a blob store of its own: tenants live in either, and move between them."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import asyncpg
import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from core.blobs import BlobNotFound, BlobStores
from core.cells import CellUnknown
from core.clock import utcnow
from core.database import TenantScope
from core.settings import Cell
from gateway.assembly import database_url, provisioning_steps
from gateway.lifecycle import move_tenant, purge_tenant
from migrations.drift import find_drift
from migrations.rendering import head
from migrations.runner import create_schema
from tenants.background.worker import Worker
from tenants.directory.cache import Directory
from tenants.directory.models import Tenant
from tenants.directory.service import suspend
from tenants.lifecycle.service import close
from tenants.moving import service as moving
from tenants.moving.errors import CopyDiffers, MoveRefused
from tenants.provisioning.service import provision
from tests.clinic.journey import NEW_CASE, ok, photograph
from tests.fixtures.postgres import PostgresServer
from tests.fixtures.world import World, open_world, settings_for

FAR = "eu-2"


@pytest.fixture(scope="module")
async def cells(
    postgres: PostgresServer, far_postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    """A gateway of two cells; the tenant near lives in the home, far in the other."""
    home, far = await postgres.create_database("cells"), await far_postgres.create_database("cells")
    settings = settings_for(
        home.admin_url,
        home.gateway_url,
        tmp_path_factory.mktemp("home-blobs"),
        cells={
            FAR: Cell(
                database_url=far.gateway_url,
                admin_database_url=far.admin_url,
                blob_directory=tmp_path_factory.mktemp("far-blobs"),
            )
        },
    )
    async with open_world(settings, "near") as world:
        await create(world, "far", FAR)
        yield world
    await postgres.drop_database("cells")


async def create(world: World, slug: str, cell: str) -> Tenant:
    made = await provision(
        world.admin,
        provisioning_steps(world.settings, world.admin, world.parts[BlobStores]),
        slug=slug,
        name=slug,
        plan="enterprise",
        base_domain="localhost",
        cell=cell,
        schema_revision=head("tenant"),
    )
    await world.parts[Directory].refresh()
    return made


async def move(world: World, slug: str, to: str, **options: object) -> Tenant:
    moved = await move_tenant(
        world.settings,
        world.admin,
        world.parts[BlobStores],
        slug,
        to,
        **options,  # type: ignore[arg-type]
    )
    await world.parts[Directory].refresh()
    return moved


async def holds(world: World, cell: str, key: str) -> tuple[bool, bool]:
    """Whether a cell has schemas and a container of a tenant."""
    scope = TenantScope(key, cell)
    async with world.admin.connection(cell) as connection:
        schemas = await connection.fetchval(
            "SELECT count(*) FROM pg_namespace WHERE nspname IN ($1, $2)",
            scope.schema,
            f"moving_{scope.schema}",
        )
    try:
        async for _ in world.parts[BlobStores].of(scope).list():
            break
    except BlobNotFound:
        return bool(schemas), False
    return bool(schemas), True


async def test_a_tenant_lives_in_the_cell_that_it_was_made_in(cells: World) -> None:
    key = cells.tenant("far").scope.key
    assert (await holds(cells, "default", key), await holds(cells, FAR, key)) == (
        (False, False),
        (True, True),
    )
    referrer = await cells.person("referrer", tenant="far")
    case = ok(await referrer.http.post("/v1/cases", json=NEW_CASE), 201)
    image = ok(await referrer.http.post(f"/v1/cases/{case['id']}/images", json=photograph()), 201)
    read = await referrer.http.get(f"/v1/cases/{case['id']}/images/{image['id']}/content?variant=display")
    assert read.status_code == 200
    assert (await find_drift(cells.admin)).differences == []
    health = (await (await cells.http("far.localhost")).get("/health")).json()
    assert health["components"][f"database {FAR}"]["status"] == "up"
    with pytest.raises(CellUnknown):
        await create(cells, "nowhere", "mars")


async def test_work_is_done_where_the_tenant_lives_wherever_its_bell_rings(cells: World) -> None:
    done: list[TenantScope] = []

    async def handler(tenant: TenantScope) -> None:
        done.append(tenant)

    worker = Worker(cells.database, {"test-cells": handler}, {})
    tenant = cells.tenant("far").scope
    async with cells.database.tenant(tenant) as session:
        await session.execute(text("SELECT doorbell.ring('test-cells', now())"))
    async with cells.database.control() as control:  # as recurring work is rung, and as it rang before a move
        await control.execute(
            text(
                "INSERT INTO control.doorbells (id, tenant_key, kind, due_at) "
                "VALUES (gen_random_uuid(), :key, 'test-cells', now())"
            ),
            {"key": tenant.key},
        )
    while await worker.run_one():
        pass
    assert done == [tenant, tenant]


async def write_until(
    stop: asyncio.Event, http: httpx.AsyncClient, acknowledged: list[str], refused: list[float]
) -> None:
    while not stop.is_set():
        answer = await http.post("/v1/cases", json=NEW_CASE)
        if answer.status_code == 201:
            acknowledged.append(answer.json()["id"])
        else:
            assert answer.status_code == 503, answer.text
            assert answer.json()["type"].endswith(":tenant-moving")
            assert int(answer.headers["Retry-After"]) > 0
            refused.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0.005)


async def test_nothing_that_was_acknowledged_is_lost_by_a_move(cells: World) -> None:
    tenant = await cells.create_tenant("mover")
    referrer = await cells.person("referrer", tenant="mover")
    neighbour = await cells.person("referrer", tenant="near")
    case = ok(await referrer.http.post("/v1/cases", json=NEW_CASE), 201)
    image = ok(await referrer.http.post(f"/v1/cases/{case['id']}/images", json=photograph()), 201)
    content = f"/v1/cases/{case['id']}/images/{image['id']}/content?variant=original"
    before = (await referrer.http.get(content)).content
    stop, acknowledged, refused = asyncio.Event(), [case["id"]], list[float]()
    writers = [asyncio.create_task(write_until(stop, referrer.http, acknowledged, refused)) for _ in range(3)]
    steps: list[str] = []
    moved = await move(cells, "mover", FAR, progress=steps.append)
    during = len(acknowledged)
    while len(acknowledged) < during + 5:
        await asyncio.sleep(0.01)
    stop.set()
    await asyncio.gather(*writers)
    assert moved.cell == FAR
    assert moved.epoch > tenant.epoch
    assert refused, "the freeze was seen"
    assert refused[-1] - refused[0] < 10
    assert len(set(acknowledged)) == len(acknowledged)
    for case_id in acknowledged:
        assert (await referrer.http.get(f"/v1/cases/{case_id}")).status_code == 200, case_id
    async with cells.database.tenant(cells.tenant("mover").scope) as session:
        assert await session.scalar(text("SELECT count(*) FROM cases")) == len(acknowledged)
    assert (await referrer.http.get(content)).content == before
    assert await holds(cells, "default", tenant.key) == (False, False)
    assert (await neighbour.http.get("/v1/cases")).status_code == 200
    assert (await find_drift(cells.admin, "mover")).differences == []
    assert (await move(cells, "mover", FAR)).id == tenant.id, "again: nothing to do"

    assert (await move(cells, "mover", "default")).cell == "default"
    assert (await referrer.http.get(content)).content == before
    assert await holds(cells, FAR, tenant.key) == (False, False)


async def test_who_does_not_know_of_the_move_cannot_write_at_the_old_place(cells: World) -> None:
    """A gateway that was paused, or a transaction that had begun: the fence does not rest on what they believe."""
    scope = (await cells.create_tenant("paused")).scope
    write = text("UPDATE pools SET name = name || :mark")
    fenced, results = asyncio.Event(), {}

    async def late(written: bool) -> None:
        try:
            async with cells.database.tenant(scope) as session:
                await session.execute(text("SELECT name FROM pools"))
                if written:
                    await session.execute(write, {"mark": " early"})
                    await asyncio.sleep(3)  # the fence waits for it
                else:
                    await fenced.wait()
                    await session.execute(write, {"mark": " late"})
            results[written] = "committed"
        except DBAPIError as error:
            results[written] = type(error.orig.__cause__).__name__ if error.orig else ""

    tasks = [asyncio.create_task(late(True)), asyncio.create_task(late(False))]
    await asyncio.sleep(0.2)

    def heard(step: str) -> None:
        if step == "fenced":
            assert results == {True: "committed"}
        if step == "blobs":
            fenced.set()

    await move(cells, "paused", FAR, progress=heard)
    await asyncio.gather(*tasks)
    assert results == {True: "committed", False: "UndefinedTableError"}
    with pytest.raises(DBAPIError):  # whoever kept the old scope
        async with cells.database.tenant(scope) as session:
            await session.execute(write, {"mark": " much later"})
    async with cells.database.tenant(cells.tenant("paused").scope) as session:
        names = (await session.scalars(text("SELECT name FROM pools"))).all()
    assert names
    assert all(name.endswith(" early") for name in names)


async def test_a_request_that_a_move_overtakes_is_told_so(cells: World) -> None:
    """Both were routed before the freeze, and their bodies came late: while the old place is fenced, and when it is
    gone."""
    await cells.create_tenant("overtaken")
    referrer = await cells.person("referrer", tenant="overtaken")
    fenced, gone = asyncio.Event(), asyncio.Event()

    async def create_when(event: asyncio.Event) -> httpx.Response:
        async def body() -> AsyncIterator[bytes]:
            await event.wait()
            yield json.dumps(NEW_CASE).encode()

        return await referrer.http.post(
            "/v1/cases", content=body(), headers={"Content-Type": "application/json"}
        )

    while_fenced, afterwards = (asyncio.create_task(create_when(event)) for event in (fenced, gone))
    await asyncio.sleep(0.2)

    def heard(step: str) -> None:
        if step == "fenced":
            fenced.set()

    await move(cells, "overtaken", FAR, progress=heard)
    gone.set()
    for answer in (await while_fenced, await afterwards):
        assert answer.status_code == 503, answer.text
        assert answer.json()["type"].endswith(":tenant-moving")
        assert int(answer.headers["Retry-After"]) > 0
    assert ok(await referrer.http.get("/v1/cases"))["items"] == []


async def test_a_suspended_tenant_is_moved_and_stays_suspended(cells: World) -> None:
    await cells.create_tenant("resting")
    async with cells.admin.control() as session:
        await suspend(session, "resting", "unpaid")
    stopped = RuntimeError("the operator's machine went away")

    def stop(step: str) -> None:
        if step == "frozen":
            raise stopped

    with pytest.raises(RuntimeError):
        await move(cells, "resting", FAR, progress=stop)
    back = await moving.roll_back(cells.admin, cells.parts[BlobStores], "resting")
    assert (back.cell, back.state, back.state_reason) == ("default", "suspended", "unpaid")
    moved = await move(cells, "resting", FAR)
    assert (moved.cell, moved.state, moved.state_reason) == (FAR, "suspended", "unpaid")
    async with cells.admin.control() as session:
        await close(session, "resting", "over", timedelta(days=1))
    with pytest.raises(MoveRefused, match="only one that is active or suspended"):
        await move(cells, "resting", "default")


@pytest.mark.parametrize("what", ["row", "blob"])
async def test_a_copy_that_is_not_the_same_is_not_switched_to(cells: World, what: str) -> None:
    slug = f"spoilt-{what}"
    tenant = await cells.create_tenant(slug)
    home = cells.parts[BlobStores].of(tenant.scope)
    await home.put("images/one", b"1" * 1000, content_type="image/png")

    async def make_schema(scope: TenantScope) -> None:
        await create_schema(cells.admin, scope, database_url(cells.settings, scope.cell))
        if what == "blob":
            return
        async with cells.admin.connection(FAR) as connection:
            await connection.execute(
                f"SET ROLE dermadetect_owner; SET search_path = {scope.schema};"
                "CREATE OR REPLACE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN NEW.name := NEW.name || '!'; RETURN NEW; END $$;"
                "CREATE OR REPLACE TRIGGER spoil BEFORE INSERT ON pools FOR EACH ROW EXECUTE FUNCTION spoil()"
            )

    def progress(step: str) -> None:
        if what == "blob" and step == "rows":
            far = Path(str(cells.settings.cells[FAR].blob_directory)) / tenant.scope.container
            next(path for path in far.rglob("*") if path.is_file() and path.stat().st_size >= 1000).unlink()

    with pytest.raises(CopyDiffers):
        await moving.move(
            cells.admin,
            cells.parts[BlobStores],
            slug,
            FAR,
            make_schema=make_schema,
            schema_revision=head("tenant"),
            progress=progress,
        )
    await moving.roll_back(cells.admin, cells.parts[BlobStores], slug)
    await cells.parts[Directory].refresh()
    assert cells.tenant(slug).scope == tenant.scope
    assert cells.tenant(slug).state == "active"
    assert await (await home.open("images/one")).read() == b"1" * 1000
    assert await holds(cells, FAR, tenant.key) == (False, False)


async def test_what_is_not_safe_is_refused(cells: World) -> None:
    tenant = await cells.create_tenant("refused")
    with pytest.raises(CellUnknown):
        await move(cells, "refused", "mars")
    await cells.parts[BlobStores].at(FAR).create_container(tenant.scope.container)
    with pytest.raises(MoveRefused, match="container"):
        await move(cells, "refused", FAR)
    await cells.parts[BlobStores].at(FAR).delete_container(tenant.scope.container)
    async with cells.admin.connection(FAR) as connection:
        await connection.execute(f"CREATE SCHEMA {tenant.scope.schema}")
    with pytest.raises(MoveRefused, match="schema"):
        await move(cells, "refused", FAR)
    with pytest.raises(MoveRefused, match="not being moved"):
        await moving.roll_back(cells.admin, cells.parts[BlobStores], "refused")


async def test_a_tenant_is_purged_in_its_cell(cells: World) -> None:
    tenant = await create(cells, "purged", FAR)
    async with cells.admin.control() as session:
        await close(session, "purged", "over", utcnow() - utcnow())
    await purge_tenant(cells.settings, cells.admin, cells.parts[BlobStores], "purged", now=True)
    assert await holds(cells, FAR, tenant.key) == (False, False)
    async with cells.admin.connection(FAR) as connection:
        with pytest.raises(asyncpg.UndefinedObjectError):
            await connection.fetchval("SELECT $1::text::regrole", tenant.scope.role)
