"""Exact counting against monthly quotas, across processes, off the hot path.

A process leases a block of the remaining quota with one conditional UPDATE and counts it down in memory.
Blocks shrink near the limit. Never more than the limit is granted; a crashed process forfeits what it had
leased, because handing a lease back on a guess has granted more than the limit.
"""

import asyncio
import logging
from dataclasses import dataclass
from datetime import date

from sqlalchemy import text

from core.database import Database
from tenants.directory.cache import TenantRecord
from tenants.plans.errors import QuotaExceeded
from tenants.plans.service import next_reset, this_month

log = logging.getLogger(__name__)

BLOCK = 100

_TENANT = "(SELECT id FROM control.tenants WHERE key = :key)"
_OPEN = text(
    f"INSERT INTO control.usage (tenant_id, metric, month, used) VALUES ({_TENANT}, :metric, :month, 0) "
    "ON CONFLICT DO NOTHING"
)
_LEASE = text(
    f"""
    WITH before AS (
        SELECT used FROM control.usage
        WHERE tenant_id = {_TENANT} AND metric = :metric AND month = :month FOR UPDATE
    )
    UPDATE control.usage AS u
    SET used = u.used + least(:block, greatest(1, (:limit - u.used) / 20), :limit - u.used)
    FROM before
    WHERE u.tenant_id = {_TENANT} AND u.metric = :metric AND u.month = :month AND u.used < :limit
    RETURNING u.used - before.used
    """
)
_ADD = text(
    f"UPDATE control.usage SET used = used + :n WHERE tenant_id = {_TENANT} AND metric = :metric AND month = :month"
)


@dataclass(slots=True)
class _Lease:
    month: date
    limit: int
    left: int
    exhausted: bool = False


class UsageCounter:
    """Counts use of `requests` and `ai_calls` for all tenants of this process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._leases: dict[tuple[str, str], _Lease] = {}
        self._locks: dict[tuple[str, str], asyncio.Lock] = {}

    async def consume(self, tenant: TenantRecord, metric: str) -> None:
        """Count one. Raises `QuotaExceeded` when the month's quota is used up."""
        key, month, limit = (tenant.scope.key, metric), this_month(), tenant.limits[metric]
        lease = self._leases.get(key)
        if (
            lease is None
            or lease.month != month
            or lease.limit != limit
            or (not lease.left and not lease.exhausted)
        ):
            lease = await self._renew(key, month, limit)
        if lease.exhausted:
            raise QuotaExceeded(
                f"The {limit} {metric} of this month are used up; the count starts anew at "
                f"{next_reset(month):%Y-%m-%dT%H:%M:%SZ}. Your administrator can raise the quota.",
                metric=metric,
                limit=limit,
                resets_at=next_reset(month).isoformat(),
            )
        lease.left -= 1

    async def count_beyond(self, tenant: TenantRecord, metric: str) -> None:
        """Count one that is served although the quota is used up."""
        await self._add(tenant.scope.key, metric, this_month(), 1)

    async def _renew(self, key: tuple[str, str], month: date, limit: int) -> _Lease:
        async with self._locks.setdefault(key, asyncio.Lock()):
            lease = self._leases.get(key)
            if lease and lease.month == month and lease.limit == limit and (lease.left or lease.exhausted):
                return lease  # somebody renewed it while we waited
            if lease and lease.left:
                # The limit changed: what is left of the old block goes back. It is taken from the lease first, or
                # a request that still holds the old limit could use it meanwhile.
                left, lease.left = lease.left, 0
                await self._add(*key, lease.month, -left)
            where = {"key": key[0], "metric": key[1], "month": month}
            async with self._database.control() as session:
                await session.execute(_OPEN, where)
                granted = await session.scalar(_LEASE, where | {"limit": limit, "block": BLOCK})
            lease = self._leases[key] = _Lease(month, limit, granted or 0, exhausted=not granted)
            return lease

    async def _add(self, tenant_key: str, metric: str, month: date, n: int) -> None:
        async with self._database.control() as session:
            where = {"key": tenant_key, "metric": metric, "month": month}
            await session.execute(_OPEN, where)
            await session.execute(_ADD, where | {"n": n})

    async def close(self) -> None:
        """Give back what is certainly unused; for an orderly shutdown only. What cannot be given back is forfeited,
        as after a crash."""
        leases, self._leases = self._leases, {}
        for (tenant_key, metric), lease in leases.items():
            if lease.left:
                left, lease.left = lease.left, 0
                try:
                    await self._add(tenant_key, metric, lease.month, -left)
                except Exception as error:
                    log.warning(
                        "unused quota is forfeited", extra={"count": left, "error": type(error).__name__}
                    )
