"""What a tenant's transaction costs: role and path in the driver's `BEGIN`, against statements of their own and
against no tenancy at all.

Each act is a whole transaction that reads one row by its primary key through a Core `select`: 32 tasks, 16
connections, 50 tenants uniformly.
"""

import random
from collections.abc import Awaitable, Callable

from sqlalchemy import Connection, event, select, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session, SessionTransaction

from benchmarks.measure import Result, compare, medians, rate
from benchmarks.stage import Visitor, open_stage
from clinic.cases.models import Case
from core.database import Database

TENANTS = 50
TASKS = 32
CONNECTIONS = 16
SECONDS = 0.7

Act = Callable[[Visitor], Awaitable[None]]


class SeparateSyncSession(Session):
    """Sets role and path by statements of their own when a transaction begins: the usual way."""


class SeparateSession(AsyncSession):
    sync_session_class = SeparateSyncSession


@event.listens_for(SeparateSyncSession, "after_begin")
def _set_role_and_path(session: Session, transaction: SessionTransaction, connection: Connection) -> None:
    scope = session.info["scope"]
    connection.execute(text(f"SET LOCAL ROLE {scope.role}"))
    connection.execute(text(f"SET LOCAL search_path = {scope.schema}, extensions, pg_temp"))


async def _read(session: AsyncSession, visitor: Visitor) -> None:
    """The one row; that it is the tenant's own is checked, since the ids differ."""
    found = await session.execute(select(Case.id, Case.reference).where(Case.id == visitor.case_id))
    assert found.one().id == visitor.case_id


def _merged(database: Database) -> Act:
    async def act(visitor: Visitor) -> None:
        async with database.tenant(visitor.scope) as session:
            await _read(session, visitor)

    return act


def _separate(engine: AsyncEngine) -> Act:
    async def act(visitor: Visitor) -> None:
        async with SeparateSession(engine, expire_on_commit=False, info={"scope": visitor.scope}) as session:
            await _read(session, visitor)
            await session.commit()

    return act


def _plain(engine: AsyncEngine, only: Visitor) -> Act:
    async def act(visitor: Visitor) -> None:
        async with AsyncSession(engine, expire_on_commit=False) as session:
            await _read(session, only)
            await session.commit()

    return act


async def run() -> list[Result]:
    async with open_stage() as stage:
        visitors = [await stage.visitor(f"tenant{number}") for number in range(TENANTS)]
        url = stage.logins.gateway_url.replace("postgresql://", "postgresql+asyncpg://")
        database = Database(stage.logins.gateway_url, pool_size=CONNECTIONS)
        separate = create_async_engine(url, pool_size=CONNECTIONS, max_overflow=0)
        # Every tenant's `SET` is a statement of its own, and the driver's cache of 100 does not hold those of 50
        # tenants. A cache that does makes the strongest baseline, for as long as the tenants are few.
        cached = create_async_engine(
            url, pool_size=CONNECTIONS, max_overflow=0, connect_args={"prepared_statement_cache_size": 1000}
        )
        first = visitors[0]
        # Role and path as the connection's own defaults: no tenancy, and the same rights and table.
        plain = create_async_engine(
            url,
            pool_size=CONNECTIONS,
            max_overflow=0,
            connect_args={"server_settings": {"role": first.scope.role, "search_path": first.scope.schema}},
        )

        def transactions(act: Act) -> Callable[[], Awaitable[float]]:
            async def measure() -> float:
                chosen = random.Random(1)
                return await rate(lambda _: act(chosen.choice(visitors)), tasks=TASKS, seconds=SECONDS)

            return measure

        try:
            seen = await medians(
                {
                    "merged": transactions(_merged(database)),
                    "separate": transactions(_separate(separate)),
                    "cached": transactions(_separate(cached)),
                    "plain": transactions(_plain(plain, first)),
                }
            )
        finally:
            await database.close()
            for engine in (separate, cached, plain):
                await engine.dispose()
    return [
        compare(
            "session.separate",
            "tenant transaction, role and path in one message with BEGIN, against statements of their own",
            ours=seen["merged"],
            baseline=seen["separate"],
            unit="transactions/s",
            target=1.0,
        ),
        compare(
            "session.separate-cached",
            "the same, the baseline with a statement cache that holds every tenant's statements",
            ours=seen["merged"],
            baseline=seen["cached"],
            unit="transactions/s",
            target=1.0,
        ),
        compare(
            "session.plain",
            "tenant transaction against a SQLAlchemy transaction without tenancy",
            ours=seen["merged"],
            baseline=seen["plain"],
            unit="transactions/s",
            target=0.8,
        ),
    ]
