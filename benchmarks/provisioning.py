"""Tenant creation, against `psql` sending the script that makes the tenant's schema.

Ours is `provision`, which is what `dermadetect tenants create` calls, in a process that is connected: directory row,
host, audit, role, schema, container in a directory, keys (an RSA key among them) and ledger; and the same from the
pool of warm tenants. The baseline is PostgreSQL's own client, started anew, into which the role and the same script are
piped, in one transaction. For scale, the same client with the script as one argument, which it sends as one message, as
we do: its statements do not wait for each other's answers.
"""

import asyncio
import time
from itertools import count
from pathlib import Path
from subprocess import DEVNULL, PIPE

from benchmarks.measure import Result, compare, medians
from benchmarks.stage import Stage, open_stage
from core.blobs import BlobStores
from core.database import TenantScope
from core.embedded_cluster import find_binaries
from gateway.assembly import provisioning_steps
from migrations.rendering import head
from migrations.runner import login_of, schema_script
from tenants.provisioning.pool import fill_pool
from tenants.provisioning.service import provision


class Creations:
    """The contenders; each call makes one more tenant, or its schema, and gives the milliseconds it took."""

    def __init__(self, stage: Stage, psql: Path) -> None:
        self._stage = stage
        self._psql = psql
        self._steps = provisioning_steps(stage.settings, stage.admin, stage.parts[BlobStores])
        self._numbers = count()

    async def piped(self) -> float:
        return await self._by_psql("-f", "-", piped=True)

    async def one_message(self) -> float:
        return await self._by_psql("-c", self._script())

    def _script(self) -> str:
        scope = TenantScope(f"psql{next(self._numbers)}")
        return (
            f"BEGIN; CREATE ROLE {scope.role} NOLOGIN; GRANT {scope.role} "
            f"TO {login_of(self._stage.logins.gateway_url)} WITH INHERIT FALSE, SET TRUE;\n"
            f"{schema_script(scope)}\nCOMMIT;"
        )

    async def _by_psql(self, *how: str, piped: bool = False) -> float:
        script = self._script().encode() if piped else None
        options = ("-X", "-q", "-v", "ON_ERROR_STOP=1", *how)
        started = time.perf_counter()
        process = await asyncio.create_subprocess_exec(
            self._psql, *options, self._stage.logins.admin_url, stdin=PIPE, stdout=DEVNULL, stderr=DEVNULL
        )
        await process.communicate(script)
        assert process.returncode == 0
        return 1000 * (time.perf_counter() - started)

    async def whole(self) -> float:
        slug = f"tenant{next(self._numbers)}"
        started = time.perf_counter()
        tenant = await provision(
            self._stage.admin,
            self._steps,
            slug=slug,
            name=slug.title(),
            plan="standard",
            base_domain=self._stage.settings.base_domain,
            schema_revision=head("tenant"),
        )
        assert tenant.state == "active"
        return 1000 * (time.perf_counter() - started)

    async def from_pool(self) -> float:
        await fill_pool(self._stage.admin, self._steps, 1, head("tenant"))
        return await self.whole()

    async def check(self) -> None:
        """All schemas hold the same number of relations, and half of those that are ours came from the pool."""
        async with self._stage.admin.connection() as connection:
            sizes = await connection.fetch(
                "SELECT DISTINCT count(*) FROM pg_class WHERE relnamespace::regnamespace::text ~ '^t_' "
                "GROUP BY relnamespace"
            )
            pooled = await connection.fetchval(
                "SELECT avg((detail ? 'warm')::int) FROM control.audit_events WHERE action = 'tenant.active'"
            )
        assert len(sizes) == 1
        assert pooled == 0.5, "one of two contenders was to find the pool empty"


async def run() -> list[Result]:
    async with open_stage() as stage:
        creations = Creations(stage, find_binaries(stage.directory) / "psql")
        seen = await medians(
            {
                "piped": creations.piped,
                "message": creations.one_message,
                "whole": creations.whole,
                "pool": creations.from_pool,
            }
        )
        await creations.check()
    return [
        compare(
            "provisioning",
            "a tenant created whole (role, schema, container, keys, host, audit, ledger), against piping the script of "
            "its schema alone into psql",
            ours=seen["whole"],
            baseline=seen["piped"],
            unit="ms",
            target=1.0,
            better="lower",
        ),
        compare(
            "provisioning.one-message",
            "the same against psql sending the script as one message (for scale, without a target)",
            ours=seen["whole"],
            baseline=seen["message"],
            unit="ms",
            target=100,
            better="lower",
        ),
        compare(
            "provisioning.pool",
            "the same from the pool of warm tenants, against piping the script",
            ours=seen["pool"],
            baseline=seen["piped"],
            unit="ms",
            target=0.1,
            better="lower",
        ),
    ]
