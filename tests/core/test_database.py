"""One transaction, one tenant: what a tenant session may see, and what it leaves on a pooled connection."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from sqlalchemy import TextClause, text
from sqlalchemy.exc import DBAPIError, ProgrammingError

from core.database import AdminDatabase, Database, TenantScope, TenantSession
from core.statements import compiled
from gateway.assembly import open_admin_database
from tenants.directory.service import next_epoch
from tests.fixtures.world import World

WHO = text("SELECT current_user, current_setting('search_path')")


@pytest.fixture
async def one_connection(world: World) -> AsyncIterator[Database]:
    """A pool of one, so that every transaction meets what the one before left behind."""
    assert world.settings.database_url
    database = Database(world.settings.database_url.get_secret_value(), pool_size=1)
    yield database
    await database.close()


Ask = Callable[[Database, TenantScope, TextClause], Awaitable[Sequence[Any]]]


async def ask_in_session(database: Database, scope: TenantScope, query: TextClause) -> Sequence[Any]:
    async with database.tenant(scope) as session:
        return (await session.execute(query)).one()


async def ask_by_driver(database: Database, scope: TenantScope, query: TextClause) -> Sequence[Any]:
    [row] = await database.fetch(scope, compiled(query), {})
    return list(row.values())


both_ways = pytest.mark.parametrize("ask", [ask_in_session, ask_by_driver])


def scopes(world: World) -> tuple[TenantScope, TenantScope]:
    return world.tenant("acme").scope, world.tenant("globex").scope


@both_ways
async def test_role_and_path_are_the_tenants_and_public_is_in_no_path(
    world: World, one_connection: Database, ask: Ask
) -> None:
    for scope in scopes(world) * 2:
        user, path = await ask(one_connection, scope, WHO)
        assert user == scope.role
        assert path == f"{scope.schema}, extensions, pg_temp"


async def test_they_are_set_again_after_a_commit_a_rollback_and_a_savepoint(
    world: World, one_connection: Database
) -> None:
    acme, _ = scopes(world)
    async with one_connection.tenant(acme) as session:
        await session.execute(WHO)
        await session.commit()
        assert (await session.execute(WHO)).one()[0] == acme.role
        await session.rollback()
        async with session.begin_nested():
            assert (await session.execute(WHO)).one()[0] == acme.role
        assert (await session.execute(WHO)).one()[0] == acme.role


async def test_a_qualified_name_does_not_reach_another_tenant(world: World, one_connection: Database) -> None:
    acme, globex = scopes(world)
    async with one_connection.tenant(acme) as session:
        with pytest.raises(ProgrammingError, match="permission denied"):
            await session.execute(text(f"SELECT id FROM {globex.schema}.cases"))


async def test_a_tenant_reaches_no_control_table_and_makes_no_temporary_one(
    world: World, one_connection: Database
) -> None:
    acme, _ = scopes(world)
    for statement in (
        "SELECT key FROM control.tenants",
        "CREATE TEMP TABLE t (a int)",
        "CREATE TABLE t (a int)",
    ):
        async with one_connection.tenant(acme) as session:
            with pytest.raises(ProgrammingError, match="permission denied"):
                await session.execute(text(statement))


async def test_audit_and_case_events_only_grow(world: World, one_connection: Database) -> None:
    acme, _ = scopes(world)
    for statement in (
        "DELETE FROM audit_events",
        "UPDATE case_events SET reason = ''",
        "DELETE FROM alembic_version",
    ):
        async with one_connection.tenant(acme) as session:
            with pytest.raises(ProgrammingError, match="permission denied"):
                await session.execute(text(statement))


@both_ways
async def test_a_failed_begin_poisons_no_later_transaction(
    world: World, one_connection: Database, ask: Ask
) -> None:
    acme, globex = scopes(world)
    for scope in (acme, globex, acme):
        with pytest.raises(DBAPIError, match="does not exist"):
            await ask(one_connection, TenantScope("nosuchtenant"), WHO)
        assert (await ask(one_connection, scope, WHO))[0] == scope.role


@both_ways
async def test_cancelled_requests_leave_nothing_behind(
    world: World, one_connection: Database, ask: Ask
) -> None:
    acme, globex = scopes(world)
    for delay in (0.0, 0.001, 0.005, 0.02, 0.05):
        task = asyncio.ensure_future(ask(one_connection, acme, text("SELECT pg_sleep(5)")))
        await asyncio.sleep(delay)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await ask(one_connection, globex, WHO))[0] == globex.role


@both_ways
async def test_a_killed_backend_costs_no_later_request(
    world: World, one_connection: Database, ask: Ask
) -> None:
    acme, globex = scopes(world)
    [pid] = await ask(one_connection, acme, text("SELECT pg_backend_pid()"))
    async with world.database.control() as control:
        assert await control.scalar(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
    await asyncio.sleep(0.1)  # the driver hears of it
    assert (await ask(one_connection, globex, WHO))[0] == globex.role


@both_ways
async def test_a_backend_that_kills_itself_fails_its_own_request_alone(
    world: World, one_connection: Database, ask: Ask
) -> None:
    acme, globex = scopes(world)
    with pytest.raises(DBAPIError):
        await ask(one_connection, acme, text("SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(5)"))
    assert (await ask(one_connection, globex, WHO))[0] == globex.role


@both_ways
async def test_the_statement_timeout_is_the_tenants(world: World, ask: Ask) -> None:
    assert world.settings.database_url
    database = Database(world.settings.database_url.get_secret_value(), pool_size=1, statement_timeout_ms=100)
    with pytest.raises(DBAPIError, match="statement timeout"):
        await ask(database, scopes(world)[0], text("SELECT pg_sleep(3)"))
    await database.close()


@both_ways
async def test_mixed_tenants_under_load_see_only_their_own(world: World, ask: Ask) -> None:
    assert world.settings.database_url
    database = Database(world.settings.database_url.get_secret_value(), pool_size=3)

    async def look(scope: TenantScope) -> None:
        await asyncio.sleep(0)
        assert (await ask(database, scope, WHO))[0] == scope.role

    await asyncio.gather(*(look(scopes(world)[number % 2]) for number in range(300)))
    await database.close()


def test_a_session_without_a_tenant_cannot_be_made(world: World) -> None:
    with pytest.raises(TypeError):
        TenantSession(world.database._tenants, "acme", 1000)  # type: ignore[arg-type]


@pytest.mark.parametrize("key", ["", "A", "1a", "a-b", 'a"; DROP ROLE x', "a" * 41, "ä", "a\n"])
def test_a_scope_takes_no_key_that_needs_quoting(key: str) -> None:
    with pytest.raises(ValueError, match="not a tenant key"):
        TenantScope(key)


async def test_the_gateway_login_alone_sees_no_tenant(world: World) -> None:
    acme, _ = scopes(world)
    async with world.database.control() as session:
        with pytest.raises(ProgrammingError, match="permission denied"):
            await session.execute(text(f"SELECT id FROM {acme.schema}.cases"))


async def test_a_held_control_row_holds_up_its_waiters_alone(world: World) -> None:
    """Suspending, logging out and the like wait for the epoch's row; requests of other tenants must not."""
    person = await world.person("coordinator", tenant="globex")
    assert world.settings.admin_database_url
    holder = await asyncpg.connect(world.settings.admin_database_url.get_secret_value())
    try:
        await holder.execute("BEGIN; SELECT value FROM control.epoch FOR UPDATE")

        async def wait_for_the_row() -> None:
            async with world.database.control() as session:
                with pytest.raises(DBAPIError, match="lock timeout"):
                    await next_epoch(session)

        waiters = [asyncio.create_task(wait_for_the_row()) for _ in range(8)]
        await asyncio.sleep(1.5)
        assert (await person.http.get("/v1/me")).status_code == 200
        await asyncio.wait_for(asyncio.gather(*waiters), 15)
    finally:
        await holder.close()


@pytest.mark.parametrize(("mode", "works"), [("disable", True), ("prefer", True), ("verify-full", False)])
async def test_a_url_may_demand_encryption(world: World, mode: str, works: bool) -> None:
    """The tests' server speaks no TLS, so that a demand for it must fail rather than be ignored."""
    assert world.settings.database_url
    separator = "&" if "?" in world.settings.database_url.get_secret_value() else "?"
    url = f"{world.settings.database_url.get_secret_value()}{separator}sslmode={mode}"
    database = Database(url, pool_size=1)
    try:
        async with database.tenant(scopes(world)[0]) as session:
            await session.execute(WHO)
        assert works
    except (OSError, DBAPIError):
        assert not works
    finally:
        await database.close()


@both_ways
async def test_a_server_that_vanished_without_a_word_is_given_up(world: World, ask: Ask) -> None:
    assert world.settings.database_url
    url = urlsplit(world.settings.database_url.get_secret_value())
    silent = asyncio.Event()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if silent.is_set():
                await asyncio.sleep(3600)
            writer.write(data)

    tasks: list[asyncio.Task[None]] = []
    writers: list[asyncio.StreamWriter] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream = await asyncio.open_connection(url.hostname, url.port)
        writers.extend((writer, upstream[1]))
        tasks.extend(
            asyncio.create_task(pump(*pair)) for pair in ((reader, upstream[1]), (upstream[0], writer))
        )

    proxy = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = proxy.sockets[0].getsockname()[1]
    through = url._replace(netloc=f"{url.username}:{url.password}@127.0.0.1:{port}").geturl()
    database = Database(through, pool_size=1, statement_timeout_ms=100)
    try:
        await ask(database, scopes(world)[0], WHO)
        silent.set()
        started = asyncio.get_running_loop().time()
        with pytest.raises((TimeoutError, DBAPIError)):
            await ask(database, scopes(world)[0], WHO)
        assert asyncio.get_running_loop().time() - started < 12
    finally:
        await database.close()
        proxy.close()
        await asyncio.sleep(0.1)  # the driver may just have come once more, to have its statement cancelled
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for writer in writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)


@pytest.fixture
async def admin(world: World) -> AsyncIterator[AdminDatabase]:
    """The operator's login with no connection kept yet."""
    opened = open_admin_database(world.settings)
    yield opened
    await opened.close()


async def test_a_connection_for_ddl_is_used_again_with_nothing_left_on_it_but_not_for_ever(
    admin: AdminDatabase,
) -> None:
    seen = []
    for _ in range(60):
        async with admin.kept_connection() as connection:
            seen.append(await connection.fetchval("SELECT pg_backend_pid()"))
            assert await connection.fetchval("SELECT current_user = session_user")
            held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
            assert await connection.fetchval(held) == 0
            await connection.execute("SET ROLE dermadetect_owner; SELECT pg_advisory_lock(4711)")
    assert 1 < len(set(seen)) <= 3
    async with admin.kept_connection() as connection:
        left = await connection.fetchval("SELECT pg_backend_pid()")
        await connection.execute("BEGIN")
        with pytest.raises(asyncpg.PostgresSyntaxError):
            await connection.execute("nonsense")
        await connection.execute("ROLLBACK")

    async def break_off() -> None:
        async with admin.kept_connection() as connection:
            assert await connection.fetchval("SELECT pg_backend_pid()") == left
            await connection.execute("BEGIN; nonsense")

    with pytest.raises(asyncpg.PostgresSyntaxError):
        await break_off()
    async with admin.kept_connection() as connection:
        assert await connection.fetchval("SELECT pg_backend_pid()") != left
