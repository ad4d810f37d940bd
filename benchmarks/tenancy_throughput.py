"""What the number of tenants costs: `GET /v1/cases/{id}` with 10, 200 and 2,000 tenants, against the same
application without tenancy; and what memory they take.

64 connections ask for a case of another tenant each time, through a pool of 16. The baseline is the gateway itself,
with a pool whose connections belong to one schema for good, and one case that all connections ask for. Every size of
the fleet has a fresh gateway. When its rounds are over memory is read: of the gateway's process what is resident, and
of its PostgreSQL backends what each has for itself (USS).
"""

import asyncio
import time

import asyncpg
import httpx
import psutil  # type: ignore[import-untyped]  # no types are published with it

from benchmarks.load import get_request, load
from benchmarks.measure import Result, compare, medians
from benchmarks.request import environment_of, length_of_case
from benchmarks.serve import serving
from benchmarks.stage import Stage, Visitor, open_stage
from core.database import Database
from tenants.directory.cache import Directory

FLEETS = (10, 200, 2_000)
DIRECTORY = 10_000
CONNECTIONS = 64
SECONDS = 1.0
MAKERS = 3

GATEWAY_MIB = 200.0
BACKEND_MIB = 60.0  # of one: a small server with 8 GiB then has room for a hundred


async def _grow(stage: Stage, visitors: list[Visitor], size: int) -> None:
    """Provision tenants, several at once, until there are `size`."""
    wanted = iter(range(len(visitors), size))

    async def make() -> None:
        for number in wanted:
            visitors.append(await stage.visitor(f"tenant{number}"))
            if len(visitors) % 100 == 0:
                print(f"  {len(visitors):,} tenants", flush=True)

    async with asyncio.TaskGroup() as group:
        for _ in range(MAKERS):
            group.create_task(make())
    await _superuser(stage, "VACUUM ANALYZE")


async def _superuser(stage: Stage, statement: str, *arguments: object) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(stage.logins.superuser_url)
    try:
        return await connection.fetch(statement, *arguments)
    finally:
        await connection.close()


async def _requests(port: int, visitors: list[Visitor]) -> list[tuple[bytes, int | None]]:
    """Each visitor's request and its answer's length, after each has seen their own case."""
    sent: list[tuple[bytes, int | None]] = []
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as http:
        for visitor in visitors:
            token = f"Bearer {visitor.token}"
            answer = await http.get(visitor.path, headers={"Host": visitor.host, "Authorization": token})
            assert answer.json()["id"] == str(visitor.case_id)
            sent.append((get_request(visitor.path, visitor.host, authorization=token), len(answer.content)))
    return sent


async def _memory_mib(stage: Stage, pid: int) -> tuple[float, float]:
    """What is resident of the server's process, and the mean of what its backends have for themselves."""
    process = psutil.Process(pid)
    ports = [
        each.laddr.port for each in process.net_connections("tcp") if each.status == psutil.CONN_ESTABLISHED
    ]
    rows = await _superuser(stage, "SELECT pid FROM pg_stat_activity WHERE client_port = ANY($1)", ports)
    backends = [psutil.Process(row["pid"]).memory_full_info().uss for row in rows]
    return process.memory_info().rss / 2**20, sum(backends) / len(backends) / 2**20


async def _measure(stage: Stage, visitors: list[Visitor]) -> list[Result]:
    size = f"{len(visitors):,}"
    environment = environment_of(stage, visitors[0])
    with (
        serving("gateway", environment, stage.directory / "gateway.log") as gateway,
        serving("untenanted", environment, stage.directory / "untenanted.log") as untenanted,
    ):
        await length_of_case(gateway.port, visitors[0])
        await length_of_case(untenanted.port, visitors[0])
        ours, plain = await _requests(gateway.port, visitors), await _requests(untenanted.port, visitors[:1])
        seen = await medians(
            {
                "ours": lambda: load(gateway.port, ours, seconds=SECONDS, connections=CONNECTIONS),
                "plain": lambda: load(untenanted.port, plain, seconds=SECONDS, connections=CONNECTIONS),
            }
        )
        resident, backend = await _memory_mib(stage, gateway.pid)
        plain_resident, plain_backend = await _memory_mib(stage, untenanted.pid)
    name = f"tenancy-throughput.{len(visitors)}"
    return [
        compare(
            name,
            f"GET /v1/cases/{{id}} of {size} tenants in turn against the gateway without tenancy",
            ours=seen["ours"],
            baseline=seen["plain"],
            unit="requests/s",
            target=0.7,
        ),
        compare(
            f"{name}-memory",
            f"resident memory of the gateway that served {size} tenants ({plain_resident:.0f} MiB without tenancy), "
            "against what it may have",
            ours=resident,
            baseline=GATEWAY_MIB,
            unit="MiB",
            target=1,
            better="lower",
        ),
        compare(
            f"{name}-backends",
            f"memory of one of its database backends ({plain_backend:.0f} MiB without tenancy), against what it may have",
            ours=backend,
            baseline=BACKEND_MIB,
            unit="MiB",
            target=1,
            better="lower",
        ),
    ]


async def _directory(stage: Stage) -> Result:
    """How long a process that starts takes to know everybody, with rows enough for a directory of 10,000."""
    await _superuser(
        stage,
        """
        WITH made AS (
            INSERT INTO control.tenants (id, key, slug, name, state, home_host, plan)
            SELECT gen_random_uuid(), 'spare' || n, 'spare' || n, 'Spare ' || n, 'active', 'spare' || n, 'standard'
            FROM generate_series(1, $1 - (SELECT count(*) FROM control.tenants)) AS n
            RETURNING id, home_host
        )
        INSERT INTO control.hosts (host, tenant_id) SELECT home_host, id FROM made
        """,
        DIRECTORY,
    )
    database = stage.parts[Database]
    reader = await asyncpg.connect(stage.logins.superuser_url)

    async def ours() -> float:
        started = time.perf_counter()
        directory = Directory(database)
        await directory.refresh()
        assert len(directory) == DIRECTORY
        return time.perf_counter() - started

    async def plain() -> float:
        started = time.perf_counter()
        await reader.fetch("SELECT key, slug, name, state, home_host, plan, epoch FROM control.tenants")
        await reader.fetch("SELECT host, tenant_id FROM control.hosts")
        return time.perf_counter() - started

    try:
        seen = await medians({"ours": ours, "plain": plain})
    finally:
        await reader.close()
    return compare(
        "tenancy-throughput.directory",
        f"loading a directory of {DIRECTORY:,} tenants against reading its rows with asyncpg",
        ours=seen["ours"],
        baseline=seen["plain"],
        unit="s",
        target=10,
        better="lower",
    )


async def run() -> list[Result]:
    results: list[Result] = []
    async with open_stage() as stage:
        visitors: list[Visitor] = []
        for size in FLEETS:
            await _grow(stage, visitors, size)
            results += await _measure(stage, visitors)
        results.append(await _directory(stage))
    return results
