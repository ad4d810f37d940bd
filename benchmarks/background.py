"""What it costs to know that nothing is due, and that one tenant's work is: doorbells against polling every queue.

There are 2,000 tenants. Ours is the worker's own look into the one table of doorbells, where 2,000 bells wait that are
not due yet. The baseline asks 2,000 schemas, each with a queue of that shape, all in one message of the bare driver.
`idle` is the processor time of a whole worker and its server while nothing is due, against a look at every queue once
a second; the worker looks four times a second for what is prompt and once for the rest.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncpg
from sqlalchemy import text

from benchmarks.measure import Result, compare, medians
from benchmarks.stage import Stage, open_stage
from core.database import Database, TenantScope
from gateway.assembly import background_worker
from tenants.background.worker import Worker

TENANTS = 2_000
LOOKS = 50  # in a round, since one is too short to time
IDLE_S = 15
_TICKS = 100  # a second of Linux's processor time


async def _prepare(stage: Stage, server: asyncpg.Connection) -> None:
    await stage.visitor("tenant")  # its key is what a bell needs that is answered
    for first in range(0, TENANTS, 100):
        await server.execute(
            ";".join(
                f"CREATE SCHEMA queue_{number};"
                f"CREATE TABLE queue_{number}.jobs (LIKE control.doorbells INCLUDING ALL)"
                for number in range(first, first + 100)
            )
        )
    await server.execute(
        f"""
        INSERT INTO control.tenants (id, key, slug, name, state, home_host, plan)
        SELECT gen_random_uuid(), 'key' || n, 'slug-' || n, 'Name', 'active', n || '.example', 'standard'
        FROM generate_series(1, {TENANTS}) AS n;
        INSERT INTO control.doorbells (id, tenant_key, kind, due_at)
        SELECT gen_random_uuid(), key, 'tidy', now() + interval '1 day' FROM control.tenants;
        ANALYZE control.tenants, control.doorbells
        """
    )


async def _processor_s(server: asyncpg.Connection) -> float:
    """Processor seconds that this process and all backends of the database have used."""
    used = time.process_time()
    for row in await server.fetch("SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'"):
        fields = Path(f"/proc/{row['pid']}/stat").read_text().rpartition(")")[2].split()
        used += (int(fields[11]) + int(fields[12])) / _TICKS
    return used


async def _idle(
    server: asyncpg.Connection, act: Callable[[asyncio.Event], Awaitable[None]]
) -> tuple[float, float]:
    """Processor time in % of one core, and transactions a second, while `act` runs."""
    stop = asyncio.Event()
    task = asyncio.ensure_future(act(stop))
    await asyncio.sleep(2)
    commits = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
    before, began, committed = await _processor_s(server), time.perf_counter(), await server.fetchval(commits)
    await asyncio.sleep(IDLE_S)
    used, seconds = await _processor_s(server) - before, time.perf_counter() - began
    committed = await server.fetchval(commits) - committed
    stop.set()
    await task
    return 100 * used / seconds, committed / seconds


async def run() -> list[Result]:
    async with open_stage() as stage:
        server = await asyncpg.connect(stage.logins.superuser_url)
        polling = await asyncpg.connect(stage.logins.superuser_url)
        try:
            await _prepare(stage, server)
            return await _measure(stage, server, polling)
        finally:
            await polling.close()
            await server.close()


async def _measure(stage: Stage, server: asyncpg.Connection, polling: asyncpg.Connection) -> list[Result]:
    async def nothing(tenant: TenantScope) -> None:
        pass

    looker = Worker(stage.parts[Database], {"bench": nothing}, {})
    sweep_all = ";".join(
        f"SELECT id FROM queue_{number}.jobs WHERE due_at <= now() ORDER BY due_at LIMIT 1"
        for number in range(TENANTS)
    )
    key = await server.fetchval("SELECT key FROM control.tenants WHERE slug = 'tenant'")
    bell = text(
        "INSERT INTO control.doorbells (id, tenant_key, kind, due_at) "
        "VALUES (gen_random_uuid(), :key, 'bench', now())"
    )

    async def look() -> float:
        started = time.perf_counter()
        for _ in range(LOOKS):
            assert not await looker.run_one()
        return (time.perf_counter() - started) / LOOKS * 1000

    async def answer() -> float:
        async with stage.parts[Database].control() as session:
            await session.execute(bell, {"key": key})
        started = time.perf_counter()
        assert await looker.run_one()
        return (time.perf_counter() - started) * 1000

    async def sweep() -> float:
        started = time.perf_counter()
        await polling.execute(sweep_all)
        return (time.perf_counter() - started) * 1000

    async def sweep_every_second(stop: asyncio.Event) -> None:
        while not stop.is_set():
            await polling.execute(sweep_all)
            await asyncio.sleep(1)

    seen = await medians({"look": look, "answer": answer, "sweep": sweep})
    worker = background_worker(stage.parts)
    await worker.schedule()  # takes the slots; the bells it rings are not this benchmark's
    await server.execute("DELETE FROM control.doorbells WHERE due_at < now() + interval '12 h'")
    ours, per_second = await _idle(server, worker.run)
    theirs, _ = await _idle(server, sweep_every_second)
    return [
        compare(
            "background.look",
            f"one look of a worker for due work, nothing due, against asking {TENANTS} queues",
            ours=seen["look"],
            baseline=seen["sweep"],
            unit="ms",
            target=0.02,
            better="lower",
        ),
        compare(
            "background.answer",
            "one bell taken, answered and deleted, against only finding it by asking all queues",
            ours=seen["answer"],
            baseline=seen["sweep"],
            unit="ms",
            target=0.05,
            better="lower",
        ),
        compare(
            "background.idle",
            f"processor time of worker and server with nothing due ({per_second:.1f} transactions a second), against "
            "asking all queues once a second",
            ours=ours,
            baseline=theirs,
            unit="% of a core",
            target=0.2,
            better="lower",
        ),
    ]
