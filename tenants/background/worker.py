"""The background worker: leases doorbells, lets the tenant's due work be done, and rings recurring work.

Any number of workers may run. A bell that a crashed worker had leased rings again when the lease ends, so every
handler must be able to run twice.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta

from sqlalchemy import bindparam, text

from core import telemetry
from core.clock import utcnow
from core.database import Database, TenantScope

log = logging.getLogger(__name__)

Handler = Callable[[TenantScope], Awaitable[object]]

LEASE = timedelta(minutes=5)
MAX_BACKOFF = timedelta(hours=1)
CONCURRENCY = 4
SCHEDULE_S = 30

_LEASE = text(
    """
    UPDATE control.doorbells SET leased_until = now() + :lease, attempts = attempts + 1
    WHERE id = (
        SELECT id FROM control.doorbells
        WHERE due_at <= now() AND (leased_until IS NULL OR leased_until <= now()) AND kind = ANY(:kinds)
        ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED
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
    """Runs `handlers` (by doorbell kind) when their bell rings, and rings `recurring` kinds at their period."""

    def __init__(
        self,
        database: Database,
        handlers: Mapping[str, Handler],
        recurring: Mapping[str, timedelta],
        *,
        idle_s: float = 1.0,
    ) -> None:
        self._database = database
        self._handlers = handlers
        self._recurring = recurring
        self._idle_s = idle_s

    async def run_one(self) -> bool:
        """Do the work of one due bell. Returns False when none is due."""
        async with self._database.control() as session:
            bell = (await session.execute(_LEASE, {"kinds": list(self._handlers)})).one_or_none()
        if bell is None:
            return False
        telemetry.bind(tenant=bell.tenant_key)
        lease = {"id": bell.id, "attempts": bell.attempts}
        try:
            async with asyncio.timeout(LEASE.total_seconds() * 0.9):
                await self._handlers[bell.kind](TenantScope(bell.tenant_key))
        except Exception:  # whatever the work raised, it is tried again later and the worker goes on
            wait = min(MAX_BACKOFF, timedelta(seconds=5 * 2 ** min(bell.attempts, 10)))
            log.exception("background work failed", extra={"kind": bell.kind, "attempt": bell.attempts})
            async with self._database.control() as session:
                await session.execute(_LATER, lease | {"wait": wait})
        else:
            async with self._database.control() as session:
                await session.execute(_DONE, lease)
        return True

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
        others'. A database that is away is waited for."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._loop(stop, self._schedule_now_and_then()))
            for _ in range(CONCURRENCY):
                group.create_task(self._loop(stop, self.run_one))

    def _schedule_now_and_then(self) -> Callable[[], Awaitable[bool]]:
        next_time = 0.0

        async def schedule() -> bool:
            nonlocal next_time
            if asyncio.get_running_loop().time() >= next_time:
                await self.schedule()
                next_time = asyncio.get_running_loop().time() + SCHEDULE_S
            return False

        return schedule

    async def _loop(self, stop: asyncio.Event, work: Callable[[], Awaitable[bool]]) -> None:
        while not stop.is_set():
            try:
                worked = await work()
            except Exception:  # the database is away, or a lease could not be returned; both pass
                log.exception("worker cannot reach its database")
                worked = False
            if not worked:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), self._idle_s)
