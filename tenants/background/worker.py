"""The background worker: leases doorbells, lets the tenant's due work be done, and rings recurring work.

A bell rings in the home cell, or in the cell where the tenant's transaction rang it; the work is done where the tenant
lives when the bell is answered. Any number of workers may run. A bell that a crashed worker had leased rings again when the lease ends, so every
handler must be able to run twice.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence, Set
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Row, bindparam, select, text

from core import telemetry
from core.clock import utcnow
from core.database import Database, TenantScope
from tenants.directory.models import Tenant

log = logging.getLogger(__name__)

Handler = Callable[[TenantScope], Awaitable[object]]

LEASE = timedelta(minutes=5)
MAX_BACKOFF = timedelta(hours=1)
MOVING = timedelta(seconds=5)  # how long the work of a tenant that is being moved is put off
CONCURRENCY = 4  # bells under way at once, in each of a cell's two lanes
SCHEDULE_S = 30
PROMPT_S, IDLE_S = 0.25, 1.0  # between two looks for bells where none was due

_LEASE = text(
    """
    UPDATE control.doorbells SET leased_until = now() + :lease, attempts = attempts + 1
    WHERE id IN (
        SELECT id FROM control.doorbells
        WHERE due_at <= now() AND (leased_until IS NULL OR leased_until <= now()) AND kind = ANY(:kinds)
        ORDER BY due_at LIMIT :most FOR UPDATE SKIP LOCKED
    )
    RETURNING id, tenant_key, kind, attempts
    """
).bindparams(bindparam("lease", LEASE))
# `attempts` tells our lease from one that another worker took after ours had ended.
_DONE = text("DELETE FROM control.doorbells WHERE id = :id AND attempts = :attempts")
_LATER = text(
    "UPDATE control.doorbells SET leased_until = NULL, due_at = now() + :wait WHERE id = :id AND attempts = :attempts"
)
_SLOT = text(
    "INSERT INTO control.schedule_slots (kind, slot) VALUES (:kind, :slot) ON CONFLICT DO NOTHING RETURNING 1"
)
_RING_ALL = text(
    """
    INSERT INTO control.doorbells (id, tenant_key, kind, due_at)
    SELECT gen_random_uuid(), key, :kind, now() + random() * (:spread)::interval
    FROM control.tenants AS t WHERE state = 'active'
    AND NOT EXISTS (SELECT 1 FROM control.doorbells AS d WHERE d.tenant_key = t.key AND d.kind = :kind)
    """
)
_FORGET_SLOTS = text("DELETE FROM control.schedule_slots WHERE slot < now() - interval '30 days'")
_FORGET_REVOCATIONS = text("DELETE FROM control.revocations WHERE expires_at < now()")


class Worker:
    """Runs `handlers` (by doorbell kind) when their bell rings, and rings `recurring` kinds at their period. Kinds that
    are `prompt` have a lane of their own."""

    def __init__(
        self,
        database: Database,
        handlers: Mapping[str, Handler],
        recurring: Mapping[str, timedelta],
        *,
        prompt: Set[str] = frozenset(),
    ) -> None:
        self._database = database
        self._handlers = handlers
        self._recurring = recurring
        self._prompt = prompt

    async def run_one(self) -> bool:
        """Do the work of one due bell. Returns False when none is due."""
        for cell in self._database.cells:
            for bell in await self._lease(cell, self._handlers, 1):
                await self._answer(cell, bell)
                return True
        return False

    async def _lease(self, cell: str, kinds: Collection[str], most: int) -> Sequence[Row[Any]]:
        async with self._database.control(cell) as session:
            return (await session.execute(_LEASE, {"kinds": list(kinds), "most": most})).all()

    async def _answer(self, cell: str, bell: Row[Any]) -> None:
        telemetry.bind(tenant=bell.tenant_key)
        lease = {"id": bell.id, "attempts": bell.attempts}
        tenant = await self._find(bell.tenant_key)
        if tenant is None:
            async with self._database.control(cell) as session:
                await session.execute(_LATER, lease | {"wait": MOVING})
            return
        try:
            async with asyncio.timeout(LEASE.total_seconds() * 0.9):
                await self._handlers[bell.kind](tenant)
        except Exception:  # whatever the work raised, it is tried again later and the worker goes on
            wait = min(MAX_BACKOFF, timedelta(seconds=5 * 2 ** min(bell.attempts, 10)))
            log.exception("background work failed", extra={"kind": bell.kind, "attempt": bell.attempts})
            async with self._database.control(cell) as session:
                await session.execute(_LATER, lease | {"wait": wait})
        else:
            async with self._database.control(cell) as session:
                await session.execute(_DONE, lease)

    async def _find(self, key: str) -> TenantScope | None:
        """Where the tenant lives; None while it is being moved."""
        async with self._database.control() as session:
            tenant = await session.scalar(select(Tenant).where(Tenant.key == key, Tenant.state != "moving"))
        return tenant.scope if tenant else None

    async def schedule(self, now: datetime | None = None) -> list[str]:
        """Ring the recurring work whose time slot nobody has taken yet. Returns the kinds rung."""
        now = now or utcnow()
        rung = []
        for kind, period in self._recurring.items():
            seconds = period.total_seconds()
            slot = datetime.fromtimestamp(now.timestamp() // seconds * seconds, UTC)
            async with self._database.control() as session:
                if await session.scalar(_SLOT, {"kind": kind, "slot": slot}):
                    # Spread over the period's first tenth, so that thousands of tenants are not due at once.
                    await session.execute(_RING_ALL, {"kind": kind, "spread": period / 10})
                    await session.execute(_FORGET_SLOTS)
                    await session.execute(_FORGET_REVOCATIONS)
                    rung.append(kind)
        return rung

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, on several bells at once, so that one tenant's slow work does not hold up the
        others', nor any work what is prompt. A database that is away is waited for."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._schedule_now_and_then(stop))
            for cell in self._database.cells:  # one that is away does not hold up the others
                group.create_task(self._work(stop, cell, self._handlers.keys() - self._prompt, IDLE_S))
                if self._prompt:
                    group.create_task(self._work(stop, cell, self._prompt, PROMPT_S))

    async def _schedule_now_and_then(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            with _told():
                await self.schedule()
            await _pause(stop, SCHEDULE_S)

    async def _work(self, stop: asyncio.Event, cell: str, kinds: Collection[str], idle_s: float) -> None:
        """Only this looks for bells, however many are under way: an idle lane is one statement a look."""
        async with asyncio.TaskGroup() as group:
            under_way: set[asyncio.Task[None]] = set()
            while not stop.is_set():
                bells: Sequence[Row[Any]] = ()
                with _told():
                    bells = await self._lease(cell, kinds, CONCURRENCY - len(under_way))
                under_way |= {group.create_task(self._told_answer(cell, bell)) for bell in bells}
                if len(under_way) == CONCURRENCY:
                    await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                elif not bells:
                    await _pause(stop, idle_s)
                under_way = {task for task in under_way if not task.done()}

    async def _told_answer(self, cell: str, bell: Row[Any]) -> None:
        with _told():
            await self._answer(cell, bell)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except Exception:  # the database is away, or a lease could not be returned; both pass
        log.exception("worker cannot reach its database")


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
