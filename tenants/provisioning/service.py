"""Making a tenant: a list of steps, each idempotent, with a durable ledger.

A crash after any step is finished by calling `provision` again with the same slug and name.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from core.database import AdminDatabase
from tenants.directory import service as directory
from tenants.directory.errors import WrongState
from tenants.directory.models import Tenant
from tenants.plans.service import get_plan
from tenants.provisioning.models import ProvisioningStep


@dataclass(frozen=True)
class Step:
    """One thing a tenant needs. `run` may be called again after a crash at any point inside it; with `always` it is
    called at every attempt, because what it makes may have become out of date since."""

    name: str
    run: Callable[[Tenant], Awaitable[None]]
    always: bool = False


async def provision(
    database: AdminDatabase,
    steps: Sequence[Step],
    *,
    slug: str,
    name: str,
    plan: str,
    base_domain: str,
    schema_revision: str,
    successor_of: str | None = None,
    progress: Callable[[str], None] = lambda step: None,
) -> Tenant:
    """The active tenant `slug`, made now or before. `progress` hears each step as it is finished;
    `schema_revision` is what the steps bring its schema to; `successor_of` is for `reserve_tenant`.

    Raises `BadSlug`, `SlugTaken`, `PlanNotFound`, and what a step raises; then the tenant stays in state
    `provisioning` and the next call goes on behind the last finished step.
    """
    directory.check_slug(slug)
    async with database.connection() as lock:
        # Two commands for one slug run one after the other; a killed one's lock ends with its connection.
        await lock.execute("SELECT pg_advisory_lock(hashtext('dermadetect provision'), hashtext($1))", slug)
        async with database.control() as session:
            await get_plan(session, plan)
            tenant = await directory.reserve_tenant(
                session, slug=slug, name=name, plan=plan, base_domain=base_domain, successor_of=successor_of
            )
        async with database.control() as session:
            finished = set(
                await session.scalars(
                    select(ProvisioningStep.step).where(ProvisioningStep.tenant_id == tenant.id)
                )
            )
        if finished - {step.name for step in steps}:
            raise WrongState(
                f"{tenant.slug} was made in another way, or from another bundle; choose another slug, or finish that."
            )
        if tenant.state != "provisioning":
            return tenant
        for step in steps:
            if step.always or step.name not in finished:
                await step.run(tenant)
                async with database.control() as session:
                    await session.execute(
                        insert(ProvisioningStep)
                        .values(tenant_id=tenant.id, step=step.name)
                        .on_conflict_do_nothing()
                    )
            progress(step.name)
        async with database.control() as session:
            return await directory.activate(session, tenant, schema_revision)
