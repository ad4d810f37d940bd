"""Making tenants and undoing what was half made, and `dermadetect tenants warm`, which prepares some in advance."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from cli.output import Json, err, show, tell
from cli.run import admin_database, run, settings

if TYPE_CHECKING:
    from core.database import AdminDatabase
    from core.settings import Settings
    from tenants.directory.models import Tenant
    from tenants.provisioning.service import Progress, Step


@asynccontextmanager
async def provisioner(configured: "Settings") -> AsyncIterator[tuple["AdminDatabase", list["Step"]]]:
    """The operator's login and the steps that make a tenant, with the parts that the settings name."""
    from gateway.assembly import blob_stores, provisioning_steps

    stores = blob_stores(configured)
    try:
        async with admin_database(configured) as database:
            yield database, provisioning_steps(configured, database, stores)
    finally:
        await stores.close()


async def create_tenant(
    configured: "Settings",
    slug: str,
    name: str,
    plan: str,
    progress: "Progress",
    *,
    cell: str = "default",
    last: "Step | None" = None,
) -> "Tenant":
    """Create a tenant in a cell, or finish one."""
    from migrations.rendering import head
    from tenants.provisioning.service import provision

    async with provisioner(configured) as (database, steps):
        return await provision(
            database,
            steps,
            slug=slug,
            name=name,
            plan=plan,
            base_domain=configured.base_domain,
            schema_revision=head("tenant"),
            cell=cell,
            last=last,
            progress=progress,
        )


async def roll_back_tenant(
    configured: "Settings", slug: str, name: str, plan: str, progress: "Progress"
) -> "Tenant":
    """Undo an unfinished creation, or finish undoing it."""
    from tenants.provisioning.service import roll_back

    async with provisioner(configured) as (database, steps):
        return await roll_back(database, steps, slug=slug, name=name, plan=plan, progress=progress)


def warm(
    size: Annotated[
        int | None, typer.Option(min=0, max=100, help="How many; by default DERMADETECT_WARM_TENANTS.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count, and prepare none.")] = False,
    as_json: Json = False,
) -> None:
    """Prepare tenants in advance: role, schema, container and keys, so that `tenants create` only names one.

    Run it regularly, and after `dermadetect migrate`. What an interrupted run left is finished first.

      dermadetect tenants warm --size 5
    """
    configured = settings()
    wanted = configured.warm_tenants if size is None else size

    async def work() -> dict[str, int]:
        from migrations.rendering import head
        from tenants.provisioning.pool import count_ready, fill_pool

        revision = head("tenant")
        async with provisioner(configured) as (database, steps):
            made = 0
            if not dry_run:
                with err.status("Preparing tenants") as status:
                    made = await fill_pool(
                        database,
                        steps,
                        wanted,
                        revision,
                        lambda ready: status.update(f"{ready} of {wanted} ready"),
                    )
            async with database.control() as session:
                return {"size": wanted, "ready": await count_ready(session, revision), "made": made}

    found = run(work)
    if dry_run:
        tell(f"Would prepare {max(0, wanted - found['ready'])}.")
    show(found, as_json=as_json, title="Warm tenants")
