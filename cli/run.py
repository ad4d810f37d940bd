"""Between the synchronous command line and the asynchronous rooms: settings, sessions, and what an error becomes.

The rooms are imported inside functions, here and in every command: help and shell completion answer in 0.2 s,
while the rooms with everything they stand on take more than a second to import.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar

import typer

from cli.output import warn

if TYPE_CHECKING:
    from core.database import AdminDatabase, ControlSession, Database, TenantScope, TenantSession
    from core.settings import Settings

FAILED, USAGE, PARTLY_FAILED, NOT_CONFIGURED, STOPPED = 1, 2, 3, 4, 5

T = TypeVar("T")


def run(main: Callable[[], Awaitable[T]], *, fast: bool = False) -> T:
    """The result of `main()` in an event loop of its own (`fast`: uvloop where it is installed).

    What the product can name becomes one line on standard error and an exit code; anything else is a defect of
    ours and keeps its traceback.
    """
    from asyncpg import InterfaceError, PostgresError
    from pydantic import ValidationError
    from sqlalchemy.exc import DBAPIError

    from core.embedded_cluster import EmbeddedPostgresError
    from core.problems import Problem

    async def work() -> T:
        return await main()

    try:
        with asyncio.Runner(loop_factory=_fast_loop() if fast else None) as runner:
            return runner.run(work())
    except Problem as problem:
        fail(problem.title, problem.detail, NOT_CONFIGURED if problem.slug == "not-configured" else FAILED)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        fail("A setting is not valid", f"{wrong} (docs/configuration.md)", NOT_CONFIGURED)
    except EmbeddedPostgresError as error:
        fail("PostgreSQL cannot be started", str(error))
    except (OSError, InterfaceError, PostgresError) as error:
        fail("Something this needs did not answer as it should", told(error))
    except DBAPIError as error:
        fail("The database refused", told(error.orig or error))
    except LookupError as error:
        if "dermadetect migrate" not in str(error):
            raise
        fail("The database is not ready", str(error))
    except KeyboardInterrupt:
        fail("Interrupted", "what was finished stays; run the same command again to go on", 130)


def fail(title: str, detail: str, code: int = FAILED) -> NoReturn:
    """End the command with a problem."""
    warn(title, detail)
    raise typer.Exit(code)


def told(error: BaseException) -> str:
    """An error of another library in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def settings() -> "Settings":
    """The environment's settings."""
    from core.settings import Settings

    return Settings()


@asynccontextmanager
async def admin_database(configured: "Settings") -> AsyncIterator["AdminDatabase"]:
    """The operator's login, closed at the end."""
    from gateway.assembly import open_admin_database

    database = open_admin_database(configured)
    try:
        yield database
    finally:
        await database.close()


def in_control(verb: Callable[["ControlSession"], Awaitable[T]]) -> T:
    """The result of `verb` in one transaction on the control tables, as the operator."""

    async def work() -> T:
        async with admin_database(settings()) as database, database.control() as session:
            return await verb(session)

    return run(work)


def at_tenant(slug: str, verb: Callable[["Database", "TenantScope"], Awaitable[T]]) -> T:
    """The result of `verb` at a tenant, for verbs of several transactions."""

    async def work() -> T:
        from gateway.assembly import open_database
        from tenants.background.bells import ring
        from tenants.directory.service import find_tenant

        database = open_database(settings())
        try:
            async with database.control() as control:
                scope = (await find_tenant(control, slug)).scope
            result = await verb(database, scope)
            await ring(database)
            return result
        finally:
            await database.close()

    return run(work)


def in_tenant(slug: str, verb: Callable[["TenantSession"], Awaitable[T]]) -> T:
    """The result of `verb` in one transaction in a tenant's schema, as that tenant."""

    async def work(database: "Database", scope: "TenantScope") -> T:
        async with database.tenant(scope) as session:
            return await verb(session)

    return at_tenant(slug, work)


def read_file(path: Path, *, at_most: int) -> bytes:
    """The bytes of a small file. Ends the command where it is larger than `at_most` bytes."""
    with path.open("rb") as file:
        content = file.read(at_most + 1)
    if len(content) > at_most:
        fail("The file is too large", f"{path} has more than {at_most} bytes")
    return content


def span(text: str, option: str) -> timedelta:
    """How long `30d`, `12h`, `10m` or `0s` is. Ends the command where the option's value is none of these."""
    units = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
    if not (match := re.fullmatch(r"(\d{1,5})([dhms])", text)):
        raise typer.BadParameter(f"{text!r} is no time such as 30d, 12h, 10m or 0s", param_hint=option)
    return timedelta(**{units[match[2]]: int(match[1])})


def _fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # Windows
        return None
    return uvloop.new_event_loop
