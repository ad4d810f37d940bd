"""Making a tenant: steps that are each idempotent, with a durable ledger.

A crash at any point is finished by calling `provision` again with the same slug, name and plan, or undone by
`roll_back`, which a crash does not stop either. A tenant from the pool (`tenants.provisioning.pool`) has had its
steps done before, and is claimed in one transaction.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence, Set
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert

from core.cells import HOME, CellUnknown
from core.database import AdminDatabase, ControlSession
from core.ids import new_id
from tenants.directory import service as directory
from tenants.directory.errors import WrongState
from tenants.directory.models import Tenant
from tenants.plans.service import get_plan
from tenants.provisioning.models import ProvisioningStep

Progress = Callable[[str], None]

ADMINISTRATOR = "administrator"
"""The step that invites the first administrator; not every creation has it. A rollback takes it with the schema."""


@dataclass(frozen=True)
class Step:
    """One thing a tenant needs. `run` and `undo` may be called again after a crash at any point inside them; with
    `always`, `run` is called at every attempt, because what it makes may have become out of date since."""

    name: str
    run: Callable[[Tenant], Awaitable[None]]
    undo: Callable[[Tenant], Awaitable[None]] | None = None
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
    cell: str = HOME,
    successor_of: str | None = None,
    last: Step | None = None,
    progress: Progress = lambda step: None,
) -> Tenant:
    """The active tenant `slug`, made now in `cell` or before. `progress` hears each step as it is finished;
    `schema_revision` is what the steps bring its schema to; `successor_of` is for `reserve_tenant`, and has
    the steps done one after the other instead of all at once. `last` builds on all of them, and is done at every call:
    what it made may have been lost on its way to whoever called.

    Raises `BadSlug`, `SlugTaken`, `PlanNotFound`, `WrongState` while a rollback is unfinished, and what a step
    raises; then the tenant stays in state `provisioning` and the next call does what is left.
    """
    directory.check_slug(slug)
    if cell not in database.cells:
        raise CellUnknown(f"The cell {cell!r} is not among the settings (DERMADETECT_CELLS).")
    async with database.one_at_a_time("provision", slug):
        async with database.control() as session:
            await get_plan(session, plan)
            tenant = await directory.reserve_tenant(
                session,
                slug=slug,
                name=name,
                plan=plan,
                base_domain=base_domain,
                schema_revision=schema_revision,
                cell=cell,
                successor_of=successor_of,
            )
            done = await steps_in_ledger(session, tenant.id, "done")
        if done - {step.name for step in steps} - {ADMINISTRATOR}:
            raise WrongState(
                f"{tenant.slug} was made in another way, or from another bundle; choose another slug, or finish that."
            )
        if tenant.state != "provisioning":
            if last and tenant.state == "active":
                await do_steps(database, [last], tenant, done, progress)
            return tenant
        if successor_of:
            for step in steps:  # each builds on those before it
                await do_steps(database, [step], tenant, done, progress)
        else:
            await do_steps(database, steps, tenant, done, progress)
        if last:
            await do_steps(database, [last], tenant, done, progress)
        async with database.control() as session:
            return await directory.activate(session, tenant, schema_revision)


async def roll_back(
    database: AdminDatabase,
    steps: Sequence[Step],
    *,
    slug: str,
    name: str,
    plan: str,
    progress: Progress = lambda step: None,
) -> Tenant:
    """Undo an unfinished creation; slug and host are then free. Returns what is left: a row that keeps the key.

    Raises `TenantNotFound`, `SlugTaken`, `WrongState` where the creation has finished, and what undoing a step
    raises; then the next call goes on.
    """
    async with database.one_at_a_time("provision", slug):
        async with database.control() as session:
            tenant = await directory.begin_rollback(session, slug, name, plan)
            undone = await steps_in_ledger(session, tenant.id, "undone")
        for step in reversed(steps):
            if step.undo and step.name not in undone:
                await step.undo(tenant)
                await _record(database, tenant.id, step, "undone")
            progress(step.name)
        async with database.control() as session:
            return await directory.finish_rollback(session, tenant)


async def do_steps(
    database: AdminDatabase,
    steps: Sequence[Step],
    tenant: Tenant,
    done: Set[str],
    progress: Progress = lambda step: None,
) -> None:
    """Do those steps that are not `done`, all at once: the database is at work on the schema while the keys are made.
    A step that fails does not stop the others; then raises what it raised."""

    async def attempt(step: Step) -> None:
        if step.always or step.name not in done:
            await step.run(tenant)
            await _record(database, tenant.id, step, "done")
        progress(step.name)

    for outcome in await asyncio.gather(*map(attempt, steps), return_exceptions=True):
        if outcome:
            raise outcome


async def steps_in_ledger(session: ControlSession, tenant_id: UUID, act: str) -> set[str]:
    """The names of a tenant's steps that are `done`, or `undone`."""
    of_tenant = select(ProvisioningStep.step).where(ProvisioningStep.tenant_id == tenant_id)
    return set(await session.scalars(of_tenant.where(ProvisioningStep.act == act)))


async def _record(database: AdminDatabase, tenant_id: UUID, step: Step, act: str) -> None:
    async with database.control() as session:
        # Not waited for on the disk: what a power cut takes from the ledger is done again, and the commit that activates
        # the tenant waits for all before it.
        await session.execute(text("SET LOCAL synchronous_commit = off"))
        await session.execute(
            insert(ProvisioningStep)
            .values(id=new_id(), tenant_id=tenant_id, step=step.name, act=act)
            .on_conflict_do_nothing()
        )
