"""The audit logs: who may write what, each row sealed once and soon, and every way of tampering named."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from core.database import TenantScope
from gateway.assembly import background_worker
from tenants.audit import service
from tenants.audit.service import audit, record, seal
from tenants.audit.verification import Verdict, verify
from tests.fixtures.world import World


@pytest.fixture
async def log(world: World) -> TenantScope:
    """A tenant whose log holds a sealed event for each of five seals."""
    slug = f"sealed{len(await keys(world))}"
    tenant = (await world.create_tenant(slug)).scope
    await seal(world.database, tenant)  # what provisioning wrote
    for number in range(4):
        await note(world, tenant, f"test.{number}")
        await seal(world.database, tenant)
    return tenant


async def keys(world: World) -> list[str]:
    async with world.admin.control() as session:
        return list(await session.scalars(text("SELECT key FROM control.tenants")))


async def note(world: World, tenant: TenantScope, *actions: str) -> None:
    async with world.database.tenant(tenant) as session:
        for action in actions:
            audit(session, None, action)


@asynccontextmanager
async def owner(world: World) -> AsyncIterator[asyncpg.Connection]:
    """The operator's connection, whom no right holds back from tampering."""
    async with world.admin.connection() as connection:
        await connection.execute("SET TimeZone = 'UTC'; SET ROLE dermadetect_owner")
        yield connection


async def verdict(world: World, log: TenantScope | None, known: tuple[int, str] | None = None) -> Verdict:
    async with owner(world) as connection:
        schema = log.schema if log else "control"
        return await verify(connection, schema, overdue_after=timedelta(seconds=60), known=known)


async def test_an_untouched_log_is_intact(world: World, log: TenantScope) -> None:
    found = await verdict(world, log)
    assert (found.seals, found.events, found.overdue, found.wrong) == (5, 5, 0, None)


REWRITTEN = """
    UPDATE {log}.audit_seals SET {change} WHERE seq = {seq};
    UPDATE {log}.audit_seals SET hash = sha256(convert_to(concat_ws('|', seq, extract(epoch FROM sealed_at), events,
        encode(digest, 'hex'), encode(previous, 'hex')), 'UTF8')) WHERE seq = {seq}
"""


@pytest.mark.parametrize(
    ("tampering", "broken", "said"),
    [
        ("UPDATE {log}.audit_events SET action = 'test.x' WHERE seal = 3", 3, "was changed"),
        ("UPDATE {log}.audit_events SET detail = '{{\"a\": 1}}' WHERE seal = 2", 2, "was changed"),
        (
            "UPDATE {log}.audit_events SET created_at = created_at - interval '1 us' WHERE seal = 5",
            5,
            "was changed",
        ),
        ("DELETE FROM {log}.audit_events WHERE seal = 3", 3, "1 of 1 rows are missing"),
        (
            "INSERT INTO {log}.audit_events (id, action, detail, seal) VALUES (gen_random_uuid(), 'x', '{{}}', 4)",
            4,
            "1 rows were added",
        ),
        (
            "INSERT INTO {log}.audit_events (id, action, detail, seal) VALUES (gen_random_uuid(), 'x', '{{}}', 99)",
            6,
            "missing",
        ),
        (
            "INSERT INTO {log}.audit_events (id, action, detail, seal) VALUES (gen_random_uuid(), 'x', '{{}}', 0)",
            0,
            "missing",
        ),
        ("DELETE FROM {log}.audit_seals WHERE seq = 2", 2, "missing; 1 rows say"),
        ("DELETE FROM {log}.audit_seals WHERE seq = 5", 5, "missing; 1 rows say"),
        ("UPDATE {log}.audit_events SET seal = NULL WHERE seal = 4", 4, "1 of 1 rows are missing"),
        ("UPDATE {log}.audit_events SET seal = 2 WHERE seal = 4", 2, "1 rows were added"),
        ("UPDATE {log}.audit_seals SET sealed_at = now() WHERE seq = 3", 3, "the seal was changed"),
        (REWRITTEN.replace("{change}", "sealed_at = now()").replace("{seq}", "3"), 4, "does not follow"),
        (REWRITTEN.replace("{change}", "previous = digest").replace("{seq}", "3"), 3, "does not follow"),
    ],
)
async def test_tampering_is_named_with_the_first_seal_it_breaks(
    world: World, log: TenantScope, tampering: str, broken: int, said: str
) -> None:
    async with owner(world) as connection:
        await connection.execute(tampering.format(log=log.schema))
    found = await verdict(world, log)
    assert (found.seal, said in (found.wrong or "")) == (broken, True), found


async def test_a_note_kept_elsewhere_shows_that_a_chain_was_cut_or_written_anew(
    world: World, log: TenantScope
) -> None:
    before = await verdict(world, log)
    known = (before.seals, before.head)
    await note(world, log, "test.later")
    await seal(world.database, log)
    assert (await verdict(world, log, known)).wrong is None
    cut = "DELETE FROM {log}.audit_events WHERE seal >= 5; DELETE FROM {log}.audit_seals WHERE seq >= 5"
    async with owner(world) as connection:
        await connection.execute(cut.format(log=log.schema))
    assert (await verdict(world, log)).wrong is None
    assert (await verdict(world, log, known)).seal == 5
    await note(world, log, "test.instead")
    await seal(world.database, log)
    found = await verdict(world, log, known)
    assert (found.seal, found.wrong) == (5, "the seal is another than was noted earlier")


async def test_a_row_that_waits_too_long_for_its_seal_is_a_fault(world: World, log: TenantScope) -> None:
    async with owner(world) as connection:
        await connection.execute(
            f"INSERT INTO {log.schema}.audit_events (id, action, detail, created_at) "
            "VALUES (gen_random_uuid(), 'x', '{}', now() - interval '61 s')"
        )
    found = await verdict(world, log)
    assert (found.overdue, found.seal, found.wrong) == (1, None, "1 rows have no seal yet")


async def test_rows_of_transactions_that_end_late_are_sealed_like_all_others(
    world: World, log: TenantScope
) -> None:
    # Many writers, each with an id made long before its commit, while two workers seal all the time.
    async def write(number: int) -> None:
        async with world.database.tenant(log) as session:
            audit(session, None, f"late.{number}")
            await session.flush()
            await asyncio.sleep(0.4 if number % 4 == 0 else 0.01 * number)

    async def keep_sealing() -> None:
        while not written.done():
            await seal(world.database, log)
            await asyncio.sleep(0.005)

    written = asyncio.gather(*(write(number) for number in range(24)))
    await asyncio.gather(written, keep_sealing(), keep_sealing())
    await seal(world.database, log)
    async with world.database.tenant(log) as session:
        rows = await service.list_events(session, service.EventFilter(), 100, None)
    late = [row.seal for row in sorted(rows, key=lambda row: row.id) if row.action.startswith("late.")]
    assert len(late) == 24
    assert None not in late
    assert late != sorted(late, key=lambda number: number or 0), (
        "no row was committed after a younger one was sealed"
    )
    found = await verdict(world, log)
    assert (found.wrong, found.events) == (None, 29)


async def test_sealing_that_is_killed_half_way_leaves_nothing(world: World, log: TenantScope) -> None:
    await note(world, log, "test.killed")
    async with owner(world) as holder:
        transaction = holder.transaction()
        await transaction.start()
        # The sealer has marked the row, and waits to write the seal.
        await holder.execute(f"LOCK TABLE {log.schema}.audit_seals IN SHARE MODE")
        sealing = asyncio.create_task(seal(world.database, log))
        kill = text(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE wait_event_type = 'Lock' AND query LIKE '%audit.seal%'"
        )
        async with asyncio.timeout(60), world.database.control() as session:
            while not await session.scalar(kill):
                await asyncio.sleep(0.01)
        with pytest.raises(Exception, match=r"terminat|closed"):
            await sealing
        await transaction.rollback()
    assert (await verdict(world, log)).events == 5
    await seal(world.database, log)
    found = await verdict(world, log)
    assert (found.events, found.wrong) == (6, None)


async def test_more_rows_than_one_seal_covers_are_all_sealed(world: World, log: TenantScope) -> None:
    async with owner(world) as connection:
        await connection.execute(
            f"INSERT INTO {log.schema}.audit_events (id, action, detail) "
            "SELECT gen_random_uuid(), 'x', '{}' FROM generate_series(1, 10001)"
        )
    await seal(world.database, log)
    found = await verdict(world, log)
    assert (found.seals, found.events, found.wrong) == (7, 10006, None)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_events SET detail = '{}'",
        "UPDATE audit_events SET seal = 1",
        "DELETE FROM audit_events",
        "TRUNCATE audit_events",
        "INSERT INTO audit_events (id, action, detail, seal) VALUES (gen_random_uuid(), 'x', '{}', 1)",
        "INSERT INTO audit_events (id, action, detail, created_at) VALUES (gen_random_uuid(), 'x', '{}', now())",
        "INSERT INTO audit_seals (seq, events, digest, previous, hash) VALUES (9, 0, '', '', '')",
        "UPDATE audit_seals SET events = 0",
        "DELETE FROM audit_seals",
    ],
)
async def test_nobody_who_serves_can_change_a_log_or_write_a_seal(
    world: World, log: TenantScope, statement: str
) -> None:
    with pytest.raises(ProgrammingError, match="permission denied"):
        async with world.database.tenant(log) as session:
            await session.execute(text(statement))
    with pytest.raises(ProgrammingError, match="permission denied"):
        async with world.database.control() as control:
            await control.execute(text(statement.replace("audit_", "control.audit_", 1)))


async def test_the_platforms_log_is_sealed_with_the_act(world: World, log: TenantScope) -> None:
    async def act(number: int) -> None:
        async with world.admin.control() as session:
            record(session, None, "test.act", number=number)
            await session.flush()
            await asyncio.sleep(0.01 * (8 - number))

    await asyncio.gather(*(act(number) for number in range(8)))
    async with world.admin.control() as session:
        record(session, None, "test.undone")
        await session.flush()
        await session.rollback()
    async with world.admin.control() as session:
        acts = await service.list_platform_events(session, service.EventFilter(action="test.act"), 100, None)
        undone = await service.list_platform_events(
            session, service.EventFilter(action="test.undone"), 9, None
        )
    assert len(acts) >= 8
    assert all(row.seal for row in acts)
    assert not undone
    assert (await verdict(world, None)).wrong is None
    async with owner(world) as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(
            "UPDATE control.audit_events SET actor = 'cli:nobody' WHERE action = 'test.act'"
        )
        found = await verify(connection, "control", overdue_after=timedelta(seconds=60))
        assert "was changed" in (found.wrong or "")
        await transaction.rollback()


async def test_a_running_worker_seals_within_a_second(world: World, log: TenantScope) -> None:
    stop = asyncio.Event()
    working = asyncio.create_task(background_worker(world.parts).run(stop))
    try:
        await asyncio.sleep(0.3)
        for number in range(3):
            await note(world, log, f"test.soon.{number}")
            committed = asyncio.get_running_loop().time()
            while (await verdict(world, log)).events < 6 + number:
                assert asyncio.get_running_loop().time() - committed < 1
                await asyncio.sleep(0.02)
    finally:
        stop.set()
        await working
