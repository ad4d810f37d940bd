"""Doorbells for work that a lost bell only delays, rung after the transaction and not in it.

A transaction names kinds in `TenantSession.bells`. Ringing them inside it would cost a busy tenant a row for each
transaction; here all that a process committed within a moment becomes one bell. What a crash takes with it, the
recurring bell of the same kind brings back.
"""

import asyncio
import contextlib
import logging

from sqlalchemy import text

from core.database import Database

log = logging.getLogger(__name__)

INTERVAL_S = 0.25

# A bell that is leased does not count: its worker may have looked before our transactions were committed.
_RING = text(
    """
    INSERT INTO control.doorbells (id, tenant_key, kind, due_at)
    SELECT gen_random_uuid(), tenant_key, kind, now()
    FROM unnest(CAST(:keys AS text[]), CAST(:kinds AS text[])) AS wanted (tenant_key, kind)
    WHERE NOT EXISTS (
        SELECT FROM control.doorbells AS d
        WHERE d.tenant_key = wanted.tenant_key AND d.kind = wanted.kind AND d.leased_until IS NULL AND d.due_at <= now()
    )
    """
)


async def ring(database: Database) -> None:
    """Ring what committed transactions asked for since the last time."""
    bells, database.bells = database.bells, set()
    if not bells:
        return
    keys, kinds = zip(*sorted(bells), strict=True)
    try:
        async with database.control() as session:
            await session.execute(_RING, {"keys": list(keys), "kinds": list(kinds)})
    except BaseException:
        database.bells |= bells
        raise


class Bells:
    """Rings all the time while a process runs."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="bells")

    async def stop(self) -> None:
        """Ring what is left, and end."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            await self._try()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL_S)
            await self._try()

    async def _try(self) -> None:
        try:
            await ring(self._database)
        except Exception as error:  # the database is away; what is to be rung is kept
            log.warning("doorbells cannot be rung", extra={"error": type(error).__name__})
