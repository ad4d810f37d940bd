"""Doorbells: rung with the tenant's own transaction, answered once, and again after a failure."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from core.clock import utcnow
from core.database import TenantScope
from tenants.background.worker import CONCURRENCY, Worker
from tests.fixtures.world import World

RING = text("SELECT doorbell.ring(:kind, :due_at)")


async def ring(world: World, slug: str, kind: str, *, roll_back: bool = False, due_in_s: float = 0) -> None:
    async with world.database.tenant(world.tenant(slug).scope) as session:
        await session.execute(RING, {"kind": kind, "due_at": utcnow() + timedelta(seconds=due_in_s)})
        if roll_back:
            await session.rollback()


async def drain(worker: Worker) -> None:
    while await worker.run_one():
        pass


async def test_work_is_done_for_the_tenant_that_rang(world: World) -> None:
    done: list[TenantScope] = []

    async def handler(tenant: TenantScope) -> None:
        done.append(tenant)

    worker = Worker(world.database, {"test-one": handler}, {})
    await ring(world, "acme", "test-one")
    await ring(world, "globex", "test-one")
    await ring(world, "globex", "test-one", roll_back=True)
    await ring(world, "globex", "test-one", due_in_s=3600)
    await ring(world, "globex", "test-of-nobody")
    await drain(worker)
    assert done == [world.tenant("acme").scope, world.tenant("globex").scope]


async def test_many_workers_do_each_work_once(world: World) -> None:
    done: list[TenantScope] = []

    async def handler(tenant: TenantScope) -> None:
        await asyncio.sleep(0.01)
        done.append(tenant)

    for _ in range(30):
        await ring(world, "acme", "test-many")
    await asyncio.gather(*(drain(Worker(world.database, {"test-many": handler}, {})) for _ in range(4)))
    assert len(done) == 30


async def test_failed_work_is_tried_again_later_and_does_not_stop_the_worker(world: World) -> None:
    async def failing(tenant: TenantScope) -> None:
        raise ConnectionError("away")

    worker = Worker(world.database, {"test-failing": failing}, {})
    await ring(world, "acme", "test-failing")
    assert await worker.run_one()
    assert not await worker.run_one()
    async with world.database.control() as session:
        attempts, later = (
            await session.execute(
                text(
                    "SELECT attempts, due_at > now() + interval '5 s' FROM control.doorbells WHERE kind = 'test-failing'"
                )
            )
        ).one()
    assert (attempts, later) == (1, True)


async def test_a_crashed_workers_lease_ends_and_the_work_is_done_by_another(world: World) -> None:
    started = asyncio.Event()

    async def crashing(tenant: TenantScope) -> None:
        started.set()
        await asyncio.sleep(3600)

    await ring(world, "acme", "test-crash")
    task = asyncio.create_task(Worker(world.database, {"test-crash": crashing}, {}).run_one())
    await started.wait()
    task.cancel()
    done: list[TenantScope] = []

    async def handler(tenant: TenantScope) -> None:
        done.append(tenant)

    other = Worker(world.database, {"test-crash": handler}, {})
    assert not await other.run_one()
    async with world.database.control() as session:
        await session.execute(
            text(
                "UPDATE control.doorbells SET leased_until = now() - interval '1 s' WHERE kind = 'test-crash'"
            )
        )
    assert await other.run_one()
    assert len(done) == 1


async def test_a_late_worker_does_not_touch_the_lease_of_another(world: World) -> None:
    started, go_on = asyncio.Event(), asyncio.Event()

    async def late(tenant: TenantScope) -> None:
        started.set()
        await go_on.wait()
        raise ConnectionError("too late")

    await ring(world, "acme", "test-late")
    first = asyncio.create_task(Worker(world.database, {"test-late": late}, {}).run_one())
    await started.wait()
    async with world.database.control() as session:
        # Its lease ended, and another worker has taken the bell.
        await session.execute(
            text(
                "UPDATE control.doorbells SET attempts = attempts + 1, leased_until = 'infinity' WHERE kind = 'test-late'"
            )
        )
    go_on.set()
    await first
    async with world.database.control() as session:
        still_leased = await session.scalar(
            text("SELECT leased_until = 'infinity' FROM control.doorbells WHERE kind = 'test-late'")
        )
    assert still_leased


async def test_slow_work_of_one_tenant_does_not_hold_up_another(world: World) -> None:
    done, stop, release = asyncio.Event(), asyncio.Event(), asyncio.Event()
    slow = world.tenant("acme").scope

    async def handler(tenant: TenantScope) -> None:
        if tenant == slow:
            await release.wait()
        else:
            done.set()

    await ring(world, "acme", "test-slow")
    await ring(world, "globex", "test-slow")
    running = asyncio.create_task(Worker(world.database, {"test-slow": handler}, {}).run(stop))
    await asyncio.wait_for(done.wait(), 5)
    release.set()
    stop.set()
    await asyncio.wait_for(running, 5)


async def test_what_is_prompt_waits_for_no_other_work(world: World) -> None:
    done, stop, release = asyncio.Event(), asyncio.Event(), asyncio.Event()
    busy = 0

    async def slow(tenant: TenantScope) -> None:
        nonlocal busy
        busy += 1
        await release.wait()

    async def prompt(tenant: TenantScope) -> None:
        done.set()

    for _ in range(CONCURRENCY + 1):
        await ring(world, "acme", "test-hog")
    worker = Worker(world.database, {"test-hog": slow, "test-prompt": prompt}, {}, prompt={"test-prompt"})
    running = asyncio.create_task(worker.run(stop))
    async with asyncio.timeout(5):
        while busy < CONCURRENCY:
            await asyncio.sleep(0.01)
    await ring(world, "acme", "test-prompt")
    await asyncio.wait_for(done.wait(), 1)
    assert busy == CONCURRENCY
    stop.set()
    release.set()
    await asyncio.wait_for(running, 5)


async def test_a_worker_that_is_cancelled_leaves_its_bells_to_others(world: World) -> None:
    started, ended = asyncio.Event(), asyncio.Event()

    async def endless(tenant: TenantScope) -> None:
        started.set()
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()

    await ring(world, "acme", "test-endless")
    running = asyncio.create_task(Worker(world.database, {"test-endless": endless}, {}).run(asyncio.Event()))
    await asyncio.wait_for(started.wait(), 5)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert ended.is_set()


async def test_recurring_work_is_rung_once_a_slot_whoever_schedules(world: World) -> None:
    recurring = {"test-hourly": timedelta(hours=1)}
    workers = [Worker(world.database, {}, recurring) for _ in range(4)]
    now = utcnow()
    rung = await asyncio.gather(*(worker.schedule(now) for worker in workers))
    assert sorted(rung) == [[], [], [], ["test-hourly"]]
    assert await workers[0].schedule(now + timedelta(hours=1)) == ["test-hourly"]
    async with world.database.control() as session:
        per_tenant = await session.execute(
            text(
                "SELECT tenant_key, count(*) AS count FROM control.doorbells WHERE kind = 'test-hourly' GROUP BY 1"
            )
        )
        counts = {row[0]: row[1] for row in per_tenant}
    assert counts[world.tenant("acme").scope.key] == 1, "a bell that still rings is not rung again"


async def test_only_a_tenant_rings_and_only_its_own_bell(world: World) -> None:
    async with world.database.control() as session:
        with pytest.raises(ProgrammingError, match="only a tenant"):
            await session.execute(RING, {"kind": "x", "due_at": utcnow()})
    async with world.database.tenant(world.tenant("acme").scope) as session:
        with pytest.raises(ProgrammingError, match="permission denied"):
            await session.execute(text("INSERT INTO control.doorbells (id) VALUES (gen_random_uuid())"))


async def test_the_worker_stops_when_told(world: World) -> None:
    stop = asyncio.Event()
    task = asyncio.create_task(Worker(world.database, {}, {}).run(stop))
    await asyncio.sleep(0.1)
    stop.set()
    await asyncio.wait_for(task, 2)
