"""Database sessions: one transaction, one tenant.

A `TenantSession` cannot be made without a tenant. Role and search path are set inside the transaction, in the
same message as the driver's `BEGIN`, so that nothing is left on a pooled connection, no round trip is spent,
and PgBouncer in transaction mode cannot mix tenants up. Should that message fail, the connection is closed:
half a `BEGIN` must never be anybody else's transaction.
"""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from copy import copy
from dataclasses import dataclass
from typing import Any

import asyncpg
from sqlalchemy import event
from sqlalchemy.engine import Connection, ExceptionContext
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session, SessionTransaction
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.sql.compiler import SQLCompiler

from core.cells import HOME, find
from core.logins import group_url
from core.statements import Statements, translated

_KEY = re.compile(r"[a-z][a-z0-9]{0,39}")

# Before it is told a tenant, a tenant connection sees the catalog and nothing else.
_NO_TENANT = "SET LOCAL search_path = pg_catalog, pg_temp;"

# Whoever holds the control epoch's row must not hold all processes up for longer than this.
_CONTROL = (
    "SET LOCAL statement_timeout = 10000; SET LOCAL lock_timeout = 3000; "
    "SET LOCAL idle_in_transaction_session_timeout = 20000;"
)

# A backend that had created 2,000 schemas held 500 MB.
_KEPT_USES = 50


@dataclass(frozen=True)
class TenantScope:
    """Where one tenant's data lives. `key` is opaque and never changes, and all other names follow from it; `cell`, and
    with it `group`, may change, so a scope is asked for anew with each request or job and not kept.

    `group` says which of the gateway's logins may become the tenant's role (`core.logins.group_login`).
    """

    key: str
    cell: str = HOME
    group: int = 0

    def __post_init__(self) -> None:
        if not _KEY.fullmatch(self.key):
            raise ValueError(f"not a tenant key: {self.key!r}")

    @property
    def schema(self) -> str:
        return f"t_{self.key}"

    @property
    def role(self) -> str:
        return f"t_{self.key}"

    @property
    def container(self) -> str:
        return f"t-{self.key}"


class _Connection(asyncpg.Connection):
    """A driver connection whose `BEGIN` carries settings of the transaction, in the same message."""

    standing: str
    settings: str | None = None

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:
        if args or not query.startswith("BEGIN"):
            return await super().execute(query, *args, timeout=timeout)
        settings, self.settings = self.settings or self.standing, None
        try:
            return await super().execute(f"{query} {settings}", timeout=timeout)
        except BaseException:
            self.terminate()
            raise


class TenantConnection(_Connection):
    """Its transactions are a tenant's: role, path and time limits."""

    standing = _NO_TENANT


class ControlConnection(_Connection):
    """Its transactions have time limits."""

    standing = _CONTROL


def _tenant_settings(tenant: TenantScope, statement_timeout_ms: int) -> str:
    return (
        f"SET LOCAL ROLE {tenant.role}; "
        # `pg_temp` last: unless named it is searched first, before the tenant's own tables.
        f"SET LOCAL search_path = {tenant.schema}, extensions, pg_temp; "
        f"SET LOCAL statement_timeout = {statement_timeout_ms}; "
        f"SET LOCAL idle_in_transaction_session_timeout = {2 * statement_timeout_ms};"
    )


class _TenantSyncSession(Session):
    pass


class _ControlSyncSession(Session):
    pass


class TenantSession(AsyncSession):
    """A session in one tenant's schema, as that tenant's role."""

    sync_session_class = _TenantSyncSession

    def __init__(self, engine: AsyncEngine, tenant: TenantScope, statement_timeout_ms: int) -> None:
        if not isinstance(tenant, TenantScope):
            raise TypeError("a tenant session needs a TenantScope")
        super().__init__(engine, expire_on_commit=False)
        self.tenant = tenant
        self.bells: set[str] = set()  # kinds of work to be done for the tenant once this is committed
        self.sync_session.info["begin"] = _tenant_settings(tenant, statement_timeout_ms)


class ControlSession(AsyncSession):
    """A session on the tables all tenants share, as the gateway's own login."""

    sync_session_class = _ControlSyncSession


@event.listens_for(_TenantSyncSession, "after_begin")
def _name_tenant(session: Session, transaction: SessionTransaction, connection: Connection) -> None:
    if not transaction.nested:  # a savepoint sends no BEGIN
        driver = connection.connection.driver_connection
        assert isinstance(driver, TenantConnection)
        driver.settings = session.info["begin"]


def _refuse_closed(driver: Any, record: ConnectionPoolEntry, proxy: Any) -> None:
    # The driver already knows when its server went away; asking it costs no round trip, unlike a pre-ping.
    if record.driver_connection is not None and record.driver_connection.is_closed():
        raise DisconnectionError("the server closed this connection")


def _discard_closed(context: ExceptionContext) -> None:
    connection = context.connection
    if connection is None or connection.invalidated:
        return
    driver = connection.connection.driver_connection
    if driver is not None and driver.is_closed():
        context.is_disconnect = True
        context.invalidate_pool_on_disconnect = False


def make_engine(
    url: str,
    connection_class: type[_Connection],
    *,
    pool_size: int,
    pooler: str = "none",
    answer_s: float = 15,
) -> AsyncEngine:
    """An engine on a libpq URL (`postgresql://…?sslmode=verify-full`, passed to the driver as it is).

    A statement that has no answer after `answer_s` seconds ends with its connection: where the server vanished
    without a word, its own time limits cannot help.
    """
    arguments: dict[str, Any] = {
        "dsn": re.sub(r"^postgres(ql)?(\+asyncpg)?://", "postgresql://", url),
        "connection_class": connection_class,
        "server_settings": {"application_name": "dermadetect"},
        "timeout": 10,
        "command_timeout": answer_s,
    }
    if pooler == "transaction":
        arguments |= {"statement_cache_size": 0, "prepared_statement_cache_size": 0}
    engine = create_async_engine(
        "postgresql+asyncpg://",
        connect_args=arguments,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=10,
        pool_recycle=900,  # a backend grows with the number of schemas it has touched
    )
    event.listen(engine.sync_engine, "checkout", _refuse_closed)
    event.listen(engine.sync_engine, "handle_error", _discard_closed)
    return engine


class Database:
    """The gateway's pools, in each cell: tenants' transactions, by login, and control transactions; and one connection
    that watches the control epoch, which must not wait for either. `cells` are the URLs of the other cells."""

    def __init__(
        self,
        url: str,
        *,
        cells: Mapping[str, str] = {},
        pool_size: int = 16,
        pooler: str = "none",
        statement_timeout_ms: int = 15_000,
    ) -> None:
        self._urls = {HOME: url, **cells}
        self._tenants: dict[
            tuple[str, int], AsyncEngine
        ] = {}  # by cell and login, each made when first needed
        self._pool_size, self._pooler = pool_size, pooler
        self._control = {
            cell: make_engine(at, ControlConnection, pool_size=max(2, pool_size // 4), pooler=pooler)
            for cell, at in self._urls.items()
        }
        self._watch = make_engine(url, ControlConnection, pool_size=1, pooler=pooler)
        self._statement_timeout_ms = statement_timeout_ms
        self.bells: set[tuple[str, str]] = set()  # tenant key and kind, of committed transactions

    @property
    def cells(self) -> list[str]:
        """The names of all cells, the home first."""
        return list(self._control)

    def _engine(self, tenant: TenantScope) -> AsyncEngine:
        """The pool whose login may become the tenant's role. Raises `CellUnknown`."""
        engine = self._tenants.get((tenant.cell, tenant.group))
        if engine is None:
            engine = self._tenants[tenant.cell, tenant.group] = make_engine(
                group_url(find(self._urls, tenant.cell), tenant.group),
                TenantConnection,
                pool_size=self._pool_size,
                pooler=self._pooler,
                answer_s=self._statement_timeout_ms / 1000 + 5,
            )
        return engine

    @asynccontextmanager
    async def tenant(self, tenant: TenantScope) -> AsyncIterator[TenantSession]:
        """One transaction of `tenant`: committed at the end of the block, rolled back when it raises."""
        async with TenantSession(self._engine(tenant), tenant, self._statement_timeout_ms) as session:
            yield session
            await session.commit()
            self.bells.update((tenant.key, kind) for kind in session.bells)

    @asynccontextmanager
    async def statements(self, tenant: TenantScope) -> AsyncIterator[Statements]:
        """One transaction of `tenant`, as `tenant()` opens it, of statements that were made ready before.

        For the busiest verbs: SQLAlchemy lends the driver's connection and stays out of the way, which takes a third
        of a session's time.
        """
        async with self._engine(tenant).connect() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            assert isinstance(driver, TenantConnection)
            statements = Statements(driver)
            try:
                driver.settings = _tenant_settings(tenant, self._statement_timeout_ms)
                with translated(driver, "BEGIN or COMMIT"):
                    async with driver.transaction():
                        yield statements
            finally:
                if not driver.is_closed() and driver.is_in_transaction():
                    driver.terminate()  # its end was cancelled, or never confirmed
        self.bells.update((tenant.key, kind) for kind in statements.bells)

    async def fetch(
        self, tenant: TenantScope, statement: SQLCompiler, values: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """The rows of one statement that is a transaction of `tenant` by itself, committed when this returns."""
        async with self.statements(tenant) as statements:
            return await statements.fetch(statement, values)

    @asynccontextmanager
    async def control(self, cell: str = HOME) -> AsyncIterator[ControlSession]:
        """One transaction on the control tables: committed at the end, rolled back when it raises. In another cell than
        the home only doorbells are kept."""
        async with ControlSession(find(self._control, cell), expire_on_commit=False) as session:
            yield session
            await session.commit()

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[ControlSession]:
        """A control transaction on the connection kept for watching the epoch."""
        async with ControlSession(self._watch, expire_on_commit=False) as session:
            yield session
            await session.commit()

    async def close(self) -> None:
        """Close all pools."""
        for engine in (*self._tenants.values(), *self._control.values(), self._watch):
            await engine.dispose()


class AdminDatabase:
    """The operator's login: owner of the schemas, may create roles. Never part of the gateway. `cells` are the URLs of
    the other cells."""

    def __init__(self, url: str, cells: Mapping[str, str] = {}) -> None:
        self._urls = {HOME: url, **cells}
        self._actor: str | None = None
        self._engine = make_engine(url, ControlConnection, pool_size=2)
        # Connections, and how often each was used.
        self._idle: dict[str, list[tuple[asyncpg.Connection, int]]] = {cell: [] for cell in self._urls}

    @property
    def cells(self) -> list[str]:
        """The names of all cells, the home first."""
        return list(self._urls)

    def acting_as(self, actor: str) -> "AdminDatabase":
        """The same login and connections, for acts of which the audit log is to say that `actor` did them."""
        theirs = copy(self)
        theirs._actor = actor
        return theirs

    @asynccontextmanager
    async def control(self) -> AsyncIterator[ControlSession]:
        """One transaction on the control tables, as the operator."""
        async with ControlSession(self._engine, expire_on_commit=False) as session:
            session.info["actor"] = self._actor
            yield session
            await session.commit()

    @asynccontextmanager
    async def connection(self, cell: str = HOME) -> AsyncIterator[asyncpg.Connection]:
        """A driver connection of its own for DDL in a cell, closed at the end: a backend that has created many schemas
        keeps their catalog in memory."""
        connection = await asyncpg.connect(find(self._urls, cell), timeout=10)
        try:
            yield connection
        finally:
            await connection.close()

    @asynccontextmanager
    async def kept_connection(self, cell: str = HOME) -> AsyncIterator[asyncpg.Connection]:
        """The same for what is short and done often: it is used again when nothing went wrong, with nothing left on
        it, but not for ever."""
        idle = find(self._idle, cell)
        connection, uses = idle.pop() if idle else (None, 0)
        if connection is None or connection.is_closed():
            # DISCARD forgets prepared statements, so the driver must not remember them.
            connection = await asyncpg.connect(self._urls[cell], timeout=10, statement_cache_size=0)
            uses = 0
        try:
            yield connection
            await connection.execute("DISCARD ALL")
        except BaseException:
            await connection.close(timeout=10)
            raise
        if uses + 1 < _KEPT_USES:
            idle.append((connection, uses + 1))
        else:
            await connection.close()

    @asynccontextmanager
    async def one_at_a_time(self, command: str, subject: str) -> AsyncIterator[None]:
        """Two commands of one kind on one subject run one after the other; a killed one's lock ends with its
        connection."""
        async with self.kept_connection() as lock:
            await lock.execute(
                "SELECT pg_advisory_lock(hashtext($1), hashtext($2))", f"dermadetect {command}", subject
            )
            yield

    async def close(self) -> None:
        """Close all connections."""
        for idle in self._idle.values():
            while idle:
                await idle.pop()[0].close()
        await self._engine.dispose()
