"""What migrating a fleet costs: one `ADD COLUMN` in 1,000 schemas of the whole product.

Ours is `migrations.fleet.migrate`, everything included: rendering, ledger, checks, directory. The baselines are the
same rendered SQL, revision row included, sent in a loop on one connection, one transaction a schema, which knows
nothing of failures; and Alembic in process, on one connection too, for a few tenants of each round. All are told in
milliseconds a schema. Every turn adds another column.
"""

import asyncio
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncpg
from alembic import command
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine

from benchmarks.measure import Result, compare, medians
from benchmarks.stage import Stage, open_stage
from core.ids import new_id
from migrations import rendering
from migrations.fleet import Pace, migrate
from migrations.runner import create_schema, login_of
from tenants.directory.models import Tenant
from tenants.provisioning.roles import OWNER

SCHEMAS = 1000
CREATORS = 4
BY_ALEMBIC = 10

_REVISION = """
import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = {id!r}, {before!r}, None, None


def upgrade() -> None:
    {body}
"""


@dataclass
class Fleet:
    """Tenants that are all at one revision; each contender brings them to the next."""

    stage: Stage
    tenants: Sequence[Tenant]
    revision: str
    turns: int = 0

    def next_release(self) -> Path:
        """A history of two revisions, so that loading it costs Alembic as little as it can."""
        before, self.turns = self.revision, self.turns + 1
        self.revision = f"turn{self.turns}"
        folder = self.stage.directory / self.revision
        (folder / "versions").mkdir(parents=True)
        shutil.copy(Path(rendering.__file__).parent / "tenant" / "env.py", folder)
        column = f'op.add_column("pools", sa.Column("{self.revision}", sa.Text()))'
        for name, below, body in ((before, None, "pass"), (self.revision, before, column)):
            (folder / "versions" / f"{name}.py").write_text(
                _REVISION.format(id=name, before=below, body=body)
            )
        return folder

    async def ours(self, workers: int) -> float:
        release = self.next_release()
        started = time.perf_counter()
        await self._migrate(release, workers)
        return 1000 * (time.perf_counter() - started) / len(self.tenants)

    async def loop(self) -> float:
        before, release = self.revision, self.next_release()
        started = time.perf_counter()
        sql = rendering.render(release, before)
        async with self.stage.admin.connection() as connection:
            for tenant in self.tenants:
                await connection.execute(
                    f"BEGIN; SET LOCAL ROLE {OWNER}; "
                    f"SET LOCAL search_path = {tenant.scope.schema}, extensions, pg_temp;\n{sql}\nCOMMIT;"
                )
            took = time.perf_counter() - started
            await self._say_so(connection, self.tenants)
        return 1000 * took / len(self.tenants)

    async def alembic(self) -> float:
        release, some = self.next_release(), self.tenants[:BY_ALEMBIC]
        config = rendering.config(release)

        def upgrade(connection: Connection) -> None:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

        url = self.stage.logins.admin_url.replace("postgresql://", "postgresql+asyncpg://")
        engine = create_async_engine(url, connect_args={"server_settings": {"role": OWNER}})
        async with engine.connect() as connection:
            started = time.perf_counter()
            for tenant in some:
                await connection.execute(
                    text(f"SET search_path = {tenant.scope.schema}, extensions, pg_temp")
                )
                await connection.commit()
                await connection.run_sync(upgrade)
                await connection.commit()
            took = time.perf_counter() - started
        await engine.dispose()
        async with self.stage.admin.connection() as driver:
            await self._say_so(driver, some)
        await self._migrate(release, CREATORS)  # the others, so that all are at one revision again
        return 1000 * took / len(some)

    async def _say_so(self, connection: asyncpg.Connection, tenants: Sequence[Tenant]) -> None:
        await connection.execute(
            "UPDATE control.tenants SET schema_revision = $1 WHERE id = ANY($2)",
            self.revision,
            [tenant.id for tenant in tenants],
        )

    async def _migrate(self, release: Path, workers: int) -> None:
        login = login_of(self.stage.logins.gateway_url)
        done = await migrate(self.stage.admin, login, pace=Pace(workers=workers), branch=release)
        assert not done.quarantined
        assert not done.left


async def _tenants(stage: Stage) -> list[Tenant]:
    """Rows of the directory, and a schema of the product's for each."""
    made = []
    for number in range(SCHEMAS):
        slug = f"tenant{number}"
        made.append(
            Tenant(
                id=new_id(),
                key=slug,
                slug=slug,
                name=slug,
                plan="enterprise",
                state="active",
                home_host=slug,
                schema_revision=rendering.head("tenant"),
            )
        )
    async with stage.admin.control() as session:
        session.add_all(made)
    waiting = list(made)

    async def create() -> None:
        while waiting:
            await create_schema(stage.admin, waiting.pop().scope, stage.logins.gateway_url)

    await asyncio.gather(*(create() for _ in range(CREATORS)))
    return made


async def run() -> list[Result]:
    async with open_stage() as stage:
        fleet = Fleet(stage, await _tenants(stage), rendering.head("tenant"))
        seen = await medians(
            {
                "one": lambda: fleet.ours(1),
                "loop": fleet.loop,
                "four": lambda: fleet.ours(4),
                "alembic": fleet.alembic,
            }
        )
    what = f"one ADD COLUMN in {SCHEMAS:,} schemas"
    return [
        compare(
            "fleet-migration.one-worker",
            f"{what}: migrate with one worker, against the same SQL in a loop on one connection",
            ours=seen["one"],
            baseline=seen["loop"],
            unit="ms/schema",
            target=1.3,
            better="lower",
        ),
        compare(
            "fleet-migration.four-workers",
            "the same with four workers",
            ours=seen["four"],
            baseline=seen["loop"],
            unit="ms/schema",
            target=0.8,
            better="lower",
        ),
        compare(
            "fleet-migration.alembic",
            "the same with four workers, against Alembic in process",
            ours=1000 / seen["four"],
            baseline=1000 / seen["alembic"],
            unit="schemas/s",
            target=20,
        ),
    ]
