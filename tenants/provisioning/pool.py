"""The pool of warm tenants: prepared before anybody asks, so that creating one is naming it.

A warm tenant is a row of the directory whose steps are done and that is nobody's yet. `directory.reserve_tenant`
claims it. Migrations treat it as any other tenant; while its schema is behind, nobody can claim it.
"""

from collections.abc import Callable, Sequence

from sqlalchemy import func, select

from core.cells import HOME
from core.database import AdminDatabase, ControlSession
from tenants.directory.models import Tenant
from tenants.directory.service import free_group, new_key
from tenants.plans.models import Plan
from tenants.provisioning.service import Step, do_steps, steps_in_ledger


async def fill_pool(
    database: AdminDatabase,
    steps: Sequence[Step],
    size: int,
    schema_revision: str,
    progress: Callable[[int], None] = lambda ready: None,
) -> int:
    """Prepare tenants until `size` are ready to be claimed, first those that an earlier attempt left and those whose
    schema is behind `schema_revision`, which the steps bring it to. Returns how many it made ready; `progress` hears
    how many there are. Raises what a step raises; the next call goes on."""
    made = 0
    async with database.one_at_a_time("provision", "warm:"):
        while True:
            async with database.control() as session:
                ready = await count_ready(session, schema_revision)
                progress(ready)
                if ready >= size:
                    return made
                tenant = await _unready(session, schema_revision) or await _reserve(session)
                done = await steps_in_ledger(session, tenant.id, "done")
            await do_steps(database, steps, tenant, done)
            async with database.control() as session:
                row = await session.get_one(Tenant, tenant.id, with_for_update=True)
                row.schema_revision = schema_revision
                if (
                    row.state == "preparing"
                ):  # else it was warm, and a gateway of an older release may have claimed it
                    row.state = "warm"
            made += 1


async def count_ready(session: ControlSession, schema_revision: str) -> int:
    """How many tenants can be claimed by a release whose schemas are at `schema_revision`."""
    ready = select(func.count()).where(Tenant.state == "warm", Tenant.schema_revision == schema_revision)
    return await session.scalar(ready) or 0


async def _unready(session: ControlSession, schema_revision: str) -> Tenant | None:
    behind = (Tenant.state == "warm") & (Tenant.schema_revision != schema_revision)
    found = await session.scalars(select(Tenant).where((Tenant.state == "preparing") | behind).limit(1))
    return found.one_or_none()


async def _reserve(session: ControlSession) -> Tenant:
    key, any_plan = new_key(), await session.scalar(select(func.min(Plan.name)))
    nobody = f"warm:{key}"
    tenant = Tenant(
        key=key,
        slug=nobody,
        name=nobody,
        home_host=nobody,
        plan=any_plan,
        login_group=await free_group(session, HOME),
        state="preparing",
    )
    session.add(tenant)
    await session.flush()
    return tenant
