"""One transaction of a fleet's migration: some tenants, each completely or not at all."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import asyncpg

from core.cells import HOME
from core.database import AdminDatabase
from migrations import ledger
from migrations.failures import cause_of, is_shared, may_pass, told
from migrations.in_process import upgrade_in_process
from migrations.ledger import Leased
from migrations.rendering import Branch, after, head, history, render
from migrations.runner import revision_of
from tenants.provisioning.roles import OWNER

COMPANY_LOCK_TIMEOUT_MS = 100  # while one tenant's lock is awaited, those already changed are locked too
LEDGER_LOCK_TIMEOUT_MS = 10_000

# The rendered SQL must meet the revision that it starts from; the directory's word alone is not enough. Where it
# does not, this divides by zero: a DO block that raises would cost a tenth of the migration of a small schema.
_EXPECT = "SELECT 1 / count(*) FROM alembic_version WHERE version_num = '{}';"


@dataclass
class Taken:
    """Slugs of the tenants that one transaction brought to head, set aside, or put back to be tried again."""

    done: list[str] = field(default_factory=list)
    quarantined: list[str] = field(default_factory=list)
    postponed: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.done or self.quarantined or self.postponed)


class Batches:
    """Takes tenants from the ledger and brings them to head; shared by the workers of one process."""

    def __init__(self, database: AdminDatabase, branch: Branch, lock_timeout_ms: int) -> None:
        self.known = [revision.id for revision in history(branch)[:-1]]
        self._database = database
        self._branch = branch
        self._lock_timeout_ms = lock_timeout_ms
        self._rendered: dict[str | None, str] = {}
        self._alembic = asyncio.Lock()

    async def take(self, connection: asyncpg.Connection, at_most: int, only: list[str] | None) -> Taken:
        """Bring up to `at_most` waiting tenants to head (of the slugs `only`, None: of all). Raises what is no
        tenant's fault, and then nothing was done."""
        taken = Taken()
        async with connection.transaction():
            await connection.execute(f"SET LOCAL ROLE {OWNER}")
            leased = await ledger.lease(connection, self.known, only, at_most)
            if not leased:
                return taken
            tenants = self._company(leased)
            async with self._at(connection, tenants[0].scope.cell) as there:
                done, failed, cause = await self._bring(there, tenants)
            await connection.execute(f"SET LOCAL lock_timeout = {LEDGER_LOCK_TIMEOUT_MS}")
            if failed and cause:
                aside = await ledger.fail(connection, failed, told(cause), may_pass=may_pass(cause))
                (taken.quarantined if aside else taken.postponed).append(failed.slug)
            if done:
                await ledger.finish(connection, done, head(self._branch))
        taken.done = [tenant.slug for tenant in done]
        return taken

    def _company(self, leased: list[Leased]) -> list[Leased]:
        """Those of the leased that go together, in one cell: who failed before, or needs Python, goes alone."""

        def sociable(tenant: Leased) -> bool:
            return not tenant.attempts and not any(r.in_python for r in after(self._branch, tenant.revision))

        together = [tenant for tenant in leased if sociable(tenant)] or leased[:1]
        return [tenant for tenant in together if tenant.scope.cell == together[0].scope.cell]

    @asynccontextmanager
    async def _at(self, connection: asyncpg.Connection, cell: str) -> AsyncIterator[asyncpg.Connection]:
        """The connection to work on in a cell. In another than the home it is a transaction of its own, which ends before
        the ledger's: what a crash between the two leaves is found to be done when it is taken again."""
        if cell == HOME:
            yield connection
            return
        async with self._database.kept_connection(cell) as there, there.transaction():
            await there.execute(f"SET LOCAL ROLE {OWNER}")
            yield there

    async def _bring(
        self, connection: asyncpg.Connection, tenants: list[Leased]
    ) -> tuple[list[Leased], Leased | None, BaseException | None]:
        """Change the schemas one after the other until one fails: those done, the one that failed, and why."""
        alone = len(tenants) == 1
        patience = self._lock_timeout_ms if alone else min(self._lock_timeout_ms, COMPANY_LOCK_TIMEOUT_MS)
        # Constraints that may be deferred are checked while it is known whose they are.
        await connection.execute(f"SET LOCAL lock_timeout = {patience}; SET CONSTRAINTS ALL IMMEDIATE")
        scripts = [] if alone else [await self._script(tenant, tenant.revision) for tenant in tenants]
        try:
            if alone:
                await self._bring_alone(connection, tenants[0])
            else:
                await connection.execute("\n".join(scripts))
        except Exception as error:
            cause = cause_of(error)
            if is_shared(cause):
                raise
            await connection.execute("ROLLBACK TO SAVEPOINT tenant")
            path = await connection.fetchval("SELECT current_setting('search_path')")
            schemas = [tenant.scope.schema for tenant in tenants]
            broken = schemas.index(path.partition(",")[0])
            return tenants[:broken], tenants[broken], cause
        return tenants, None, None

    async def _bring_alone(self, connection: asyncpg.Connection, tenant: Leased) -> None:
        await connection.execute(_enter(tenant))
        revision = await revision_of(connection, tenant.scope.schema)
        lacking = after(self._branch, revision)  # none: done before, by one that was killed before it said so
        if any(each.in_python for each in lacking):
            async with self._alembic:
                await upgrade_in_process(self._database, self._branch, tenant.scope, self._lock_timeout_ms)
        elif lacking:
            await connection.execute(await self._script(tenant, revision))

    async def _script(self, tenant: Leased, revision: str | None) -> str:
        if revision not in self._rendered:
            async with self._alembic:
                self._rendered[revision] = render(self._branch, revision)
        return f"{_enter(tenant)}{_EXPECT.format(revision)}\n{self._rendered[revision]}\nRELEASE SAVEPOINT tenant;"


def _enter(tenant: Leased) -> str:
    # The path is set before the savepoint, so that it still tells whose turn it was after going back there.
    return f"SET LOCAL search_path = {tenant.scope.schema}, extensions, pg_temp; SAVEPOINT tenant;\n"
