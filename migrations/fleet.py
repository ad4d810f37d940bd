"""Bringing every tenant's schema to head, many at a time.

Several workers, in one process or in many, take tenants from the ledger. One transaction locks some of its rows
with SKIP LOCKED, sends the SQL of all those schemas as one message with a savepoint for each, and writes ledger,
directory and epoch. Killed at any point it leaves nothing half-done, and its rows are free for others at once.

A tenant that fails is set aside ("quarantined") and the others go on. What may pass by itself, a lock that is not
given above all, is tried again alone and with more patience, so that nobody else waits meanwhile.
"""

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import asyncpg
from sqlalchemy import select

from core.database import AdminDatabase
from migrations import ledger
from migrations.batch import Batches, Taken
from migrations.rendering import Branch, Revision, head, history
from migrations.runner import LOCK_TIMEOUT_MS, migrate_control, revision_of
from tenants.directory.models import Tenant
from tenants.directory.service import find_tenant

BATCH = 50  # a subtransaction each; a backend shows 64 of its own without looking at the disk
BATCH_S = 0.2  # a transaction longer than this takes fewer tenants next time: they all wait for its end
POLL_S = 0.03
TRANSACTIONS_A_CONNECTION = 40  # a backend keeps the catalog of every schema that it has touched

Stop = Literal["paused", "canary", "failures", "waves"]


@dataclass(frozen=True)
class Pace:
    """How a fleet is migrated. The slugs in `canaries` must come to head before any other is touched; then
    `waves` waves of `wave_size` tenants (None: all); it stops once `max_failures` tenants have failed."""

    workers: int = 4
    lock_timeout_ms: int = LOCK_TIMEOUT_MS
    canaries: tuple[str, ...] = ()
    wave_size: int | None = None
    waves: int | None = None
    max_failures: int | None = None


@dataclass
class Migrated:
    """What a run did: revisions of the control schema before and after, the tenants it brought to head, all that
    are in quarantine now with the reason, others that are not at head with their revision, and why it stopped
    before the end. Tenants are named by their slugs."""

    control: tuple[str | None, str]
    tenants: list[str] = field(default_factory=list)
    quarantined: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    stopped: Stop | None = None


@dataclass(frozen=True)
class Pending:
    """What a run would do: the control schema's revisions before and after; the tenants that are behind with
    their revision, those in quarantine with the reason, by slug; and the revisions they lack."""

    control: tuple[str | None, str]
    tenants: dict[str, str]
    quarantined: dict[str, str]
    revisions: tuple[Revision, ...]


async def pending(database: AdminDatabase, branch: Branch = "tenant") -> Pending:
    """What `migrate` would do now."""
    async with database.connection() as connection:
        control = (await revision_of(connection, "control"), head("control"))
    if control[0] is None:
        return Pending(control, {}, {}, ())
    async with database.control() as session:
        found = await ledger.status(session, head(branch))
    known = [revision.id for revision in history(branch)]
    oldest = min((known.index(r) for r in found.behind.values() if r in known), default=len(known))
    return Pending(control, found.behind, found.quarantined, history(branch)[oldest + 1 :])


async def migrate(
    database: AdminDatabase,
    gateway_login: str,
    *,
    pace: Pace = Pace(),
    branch: Branch = "tenant",
    progress: Callable[[str, int, int], None] = lambda slug, done, of: None,
) -> Migrated:
    """Bring the control schema and all tenants to head, also those that join meanwhile. Run again, or twice at
    once, it does what is left. `progress` hears a slug, how many are done, and of how many.

    Raises `TenantNotFound` for a canary, `UnknownRevision` where the control schema is a newer release's, and
    what ends the connection; what was finished before stays.
    """
    home, *others = database.cells
    done = Migrated(control=await migrate_control(database, gateway_login, home))
    for cell in others:
        await migrate_control(database, gateway_login, cell)
    run = _Run(database, pace, branch, progress, done)
    await run.canaries()
    await run.waves()
    async with database.control() as session:
        found = await ledger.status(session, head(branch))
    done.quarantined, done.left = found.quarantined, found.behind
    return done


class _Run:
    """What the workers of one `migrate` share."""

    def __init__(
        self,
        database: AdminDatabase,
        pace: Pace,
        branch: Branch,
        progress: Callable[[str, int, int], None],
        done: Migrated,
    ) -> None:
        self._database = database
        self._pace = pace
        self._head = head(branch)
        self._batches = Batches(database, branch, pace.lock_timeout_ms)
        self._progress = progress
        self._done = done
        self._failures = self._settled = 0
        self._known = 0  # tenants settled, or waiting when last counted
        self._free: float = 0  # how many tenants this wave may still take
        self._only: list[str] | None = None

    async def canaries(self) -> None:
        """Migrate the canaries, and stop unless all are at head then."""
        if not self._pace.canaries:
            return
        async with self._database.control() as session:
            for slug in self._pace.canaries:
                await find_tenant(session, slug)
        await self._enrol()
        self._only, self._free = list(self._pace.canaries), math.inf
        await self._wave()
        self._only = None
        async with self._database.control() as session:
            failed = await session.scalar(
                select(Tenant.slug)
                .where(Tenant.slug.in_(self._pace.canaries), Tenant.schema_revision != self._head)
                .limit(1)
            )
        if failed and not self._done.stopped:
            self._done.stopped = "canary"

    async def waves(self) -> None:
        """Migrate wave after wave until nobody is left, or something stops it."""
        number = 0
        while not self._done.stopped and await self._enrol():
            if number == self._pace.waves:
                self._done.stopped = "waves"
                return
            self._free = self._pace.wave_size or math.inf
            await self._wave()
            number += 1

    async def _enrol(self) -> int:
        async with self._database.connection() as connection:
            await ledger.enrol(connection, self._head, self._batches.known)
            waiting, _ = await ledger.unfinished(connection, self._batches.known, None)
        self._known = self._settled + waiting
        return waiting

    async def _wave(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._pace.workers):
                    group.create_task(self._work())
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None  # the others failed for the same reason: no tenant's

    async def _work(self) -> None:
        size = 1
        while size:
            async with self._database.connection() as connection:
                await connection.execute(f"SET application_name = '{ledger.WORKER}'")
                size = await self._work_on(connection, size)

    async def _work_on(self, connection: asyncpg.Connection, size: int) -> int:
        """Transactions of `size` tenants and then more or fewer. Returns the size to go on with on another
        connection, 0 once there is nothing to take."""
        for _ in range(TRANSACTIONS_A_CONNECTION):
            wanted = int(min(size, self._free))
            if self._done.stopped or not wanted:
                return 0
            self._free -= wanted
            started = time.monotonic()
            taken = await self._batches.take(connection, wanted, self._only)
            smooth = time.monotonic() - started < BATCH_S and not taken.postponed
            self._free += wanted - len(taken.done) - len(taken.quarantined)
            if taken:
                self._note(taken)
                size = min(BATCH, 2 * size) if smooth else max(1, size // 2)
                continue
            waiting, paused = await ledger.unfinished(connection, self._batches.known, self._only)
            if waiting and paused:
                self._done.stopped = "paused"
            if not waiting:
                return 0
            await asyncio.sleep(POLL_S)  # others have them, or they are to be tried again in a moment
        return size

    def _note(self, taken: Taken) -> None:
        self._done.tenants += taken.done
        self._failures += len(taken.quarantined)
        if self._pace.max_failures and self._failures >= self._pace.max_failures:
            self._done.stopped = "failures"
        for slug in taken.done + taken.quarantined:
            self._settled += 1
            self._progress(slug, self._settled, self._known)
