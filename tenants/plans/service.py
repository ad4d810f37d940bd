"""Verbs on plans, overrides and usage."""

from dataclasses import dataclass
from datetime import UTC, date, datetime

from sqlalchemy import and_, delete, func, select
from sqlalchemy.dialects.postgresql import insert

from core.clock import utcnow
from core.database import ControlSession, TenantScope
from tenants.audit.service import record
from tenants.directory.models import Tenant
from tenants.directory.service import find_tenant, next_epoch
from tenants.plans.errors import PlanNotFound, UnknownMetric
from tenants.plans.models import METRICS, MONTHLY, Plan, QuotaOverride, Usage


@dataclass(frozen=True)
class Quota:
    """One limit of a tenant. `used` counts this month, or is what is stored or taken now; None for what is not counted."""

    metric: str
    limit: int
    source: str  # "plan" or "override"
    used: int | None


def this_month(now: datetime | None = None) -> date:
    """The first day of the current month, UTC: the period of monthly quotas."""
    return (now or utcnow()).date().replace(day=1)


def next_reset(month: date) -> datetime:
    """When the quota of `month` starts anew."""
    year, number = (month.year + 1, 1) if month.month == 12 else (month.year, month.month + 1)
    return datetime(year, number, 1, tzinfo=UTC)


async def get_plan(session: ControlSession, name: str) -> Plan:
    """Raises `PlanNotFound`, naming the plans there are."""
    plan = await session.get(Plan, name)
    if plan is None:
        names = await session.scalars(select(Plan.name).order_by(Plan.name))
        raise PlanNotFound(f"No plan is called {name!r}; there are {', '.join(names)}.")
    return plan


async def set_quota(session: ControlSession, slug: str, metric: str, limit: int | None) -> Tenant:
    """Override one limit of a tenant, or (None) return to its plan's. Raises `UnknownMetric`."""
    if metric not in METRICS:
        raise UnknownMetric(f"No quota is called {metric!r}; there are {', '.join(METRICS)}.")
    if limit is not None and limit < 0:
        raise UnknownMetric("A limit is 0 or more.")
    tenant = await find_tenant(session, slug, lock=True)
    if limit is None:
        await session.execute(
            delete(QuotaOverride).where(QuotaOverride.tenant_id == tenant.id, QuotaOverride.metric == metric)
        )
    else:
        await session.execute(
            insert(QuotaOverride)
            .values(tenant_id=tenant.id, metric=metric, limit=limit)
            .on_conflict_do_update(index_elements=["tenant_id", "metric"], set_={"limit": limit})
        )
    tenant.epoch = await next_epoch(session)
    record(session, tenant, "quota.set", metric=metric, limit=limit)
    await session.flush()
    return tenant


async def tenant_of(session: ControlSession, scope: TenantScope) -> Tenant:
    """The row of the tenant that a request is for."""
    return (await session.scalars(select(Tenant).where(Tenant.key == scope.key))).one()


async def limit_of(session: ControlSession, scope: TenantScope, metric: str) -> int:
    """One limit of a tenant, as it is now."""
    own = QuotaOverride.tenant_id == Tenant.id, QuotaOverride.metric == metric
    query = (
        select(func.coalesce(QuotaOverride.limit, Plan.limits[metric].as_integer()))
        .select_from(Tenant)
        .join(Plan, Plan.name == Tenant.plan)
        .outerjoin(QuotaOverride, and_(*own))
        .where(Tenant.key == scope.key)
    )
    return (await session.scalars(query)).one()


async def list_quotas(
    session: ControlSession, tenant: Tenant, stored: int | None = None, seated: int | None = None
) -> list[Quota]:
    """Every limit of a tenant, with this month's use, and the bytes `stored` and people `seated`, which its own schema
    knows."""
    plan = await get_plan(session, tenant.plan)
    overrides = {
        row.metric: row.limit
        for row in await session.scalars(select(QuotaOverride).where(QuotaOverride.tenant_id == tenant.id))
    }
    used: dict[str, int | None] = {
        row.metric: row.used
        for row in await session.scalars(
            select(Usage).where(Usage.tenant_id == tenant.id, Usage.month == this_month())
        )
    }
    used = dict.fromkeys(MONTHLY, 0) | used | {"storage_bytes": stored, "seats": seated}
    return [
        Quota(
            metric=metric,
            limit=overrides.get(metric, plan.limits[metric]),
            source="override" if metric in overrides else "plan",
            used=used.get(metric),
        )
        for metric in METRICS
    ]
