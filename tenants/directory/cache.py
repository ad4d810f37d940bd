"""The directory as one process knows it: every tenant by host, kept true by the control epoch.

The epoch is polled several times a second. A view older than three quarters of one is refreshed before it is used,
which leaves the request the rest of the second in which a change must hold; and where that fails the request is
refused: serving a tenant that may just have been suspended is a guess.
"""

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from sqlalchemy import select

from core.clock import utcnow
from core.database import Database, TenantScope
from core.problems import Unavailable
from tenants.directory.models import ControlEpoch, Host, Revocation, Tenant
from tenants.plans.models import Plan, QuotaOverride

log = logging.getLogger(__name__)

# Columns, because making objects of the session's takes several times as long, and a start reads all tenants.
_TENANTS = select(
    Tenant.id,
    Tenant.key,
    Tenant.slug,
    Tenant.name,
    Tenant.state,
    Tenant.cell,
    Tenant.login_group,
    Tenant.home_host,
    Tenant.plan,
    Tenant.ai_model,
    Tenant.image_links,
    Tenant.epoch,
)


@dataclass(frozen=True, slots=True)
class TenantRecord:
    """What routing and limits need to know of a tenant. `limits` maps a plan's metrics to their numbers."""

    scope: TenantScope
    slug: str
    name: str
    state: str
    home_host: str
    epoch: int
    limits: dict[str, int] = field(repr=False)
    ai_model: str | None
    image_links: str


class Directory:
    """All tenants, in memory. `start` loads them; `fresh` must be awaited before a request relies on them."""

    def __init__(self, database: Database, *, poll_s: float = 0.25, stale_after_s: float = 0.75) -> None:
        self._database = database
        self._poll_s = poll_s
        self._stale_after_s = stale_after_s
        self._by_id: dict[UUID, TenantRecord] = {}
        self._by_key: dict[str, TenantRecord] = {}
        self._by_host: dict[str, UUID] = {}
        self._revoked: dict[UUID, datetime] = {}
        self._epoch = -1
        self._true_at = float("-inf")  # monotonic time at which the view was certainly complete
        self._lock = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def at_host(self, host: str) -> TenantRecord | None:
        """The tenant that answers at `host` (lower case, no port)."""
        tenant_id = self._by_host.get(host)
        return None if tenant_id is None else self._by_id.get(tenant_id)

    def by_key(self, key: str) -> TenantRecord | None:
        return self._by_key.get(key)

    def is_revoked(self, ids: frozenset[UUID]) -> bool:
        """Whether a sign-in session was ended, or a machine client's secret or token withdrawn, that is among `ids`."""
        return not self._revoked.keys().isdisjoint(ids)

    def __len__(self) -> int:
        return len(self._by_id)

    async def start(self) -> None:
        """Load the directory and keep it fresh until `stop`. Raises what the database raises."""
        await self.refresh()
        self._task = asyncio.create_task(self._poll(), name="directory")

    async def stop(self) -> None:
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def fresh(self) -> None:
        """Return at once while the view is young enough, else refresh. Raises `Unavailable`."""
        if time.monotonic() - self._true_at <= self._stale_after_s:
            return
        try:
            async with asyncio.timeout(2):
                await self.refresh()
        except Exception as error:
            raise Unavailable("The tenant directory cannot be read at the moment; try again.") from error

    async def refresh(self) -> None:
        """Bring the view up to the database's epoch, reading only what changed."""
        asked = time.monotonic()
        async with self._lock:
            if self._true_at >= asked:
                return  # somebody refreshed while we waited
            asked = time.monotonic()
            async with self._database.watch() as session:
                epoch = await session.scalar(select(ControlEpoch.value))
                if epoch is None:
                    raise LookupError("the control schema is empty; run `dermadetect migrate`")
                if epoch != self._epoch:
                    plans = {plan.name: plan.limits for plan in await session.scalars(select(Plan))}
                    changed = (await session.execute(_TENANTS.where(Tenant.epoch > self._epoch))).all()
                    ids = [tenant.id for tenant in changed]
                    # Asking for many by id is slower than asking for all.
                    some = ids if len(ids) < 500 else None
                    overrides: dict[UUID, dict[str, int]] = {}
                    query = select(QuotaOverride)
                    for row in await session.scalars(
                        query.where(QuotaOverride.tenant_id.in_(some)) if some is not None else query
                    ):
                        overrides.setdefault(row.tenant_id, {})[row.metric] = row.limit
                    hosts = select(Host.host, Host.tenant_id, Host.removed_at)
                    for host, tenant_id, removed_at in await session.execute(
                        hosts.where(Host.tenant_id.in_(some)) if some is not None else hosts
                    ):
                        if removed_at is None:
                            self._by_host[host] = tenant_id
                        else:
                            self._by_host.pop(host, None)
                    for tenant in changed:
                        record = TenantRecord(
                            scope=TenantScope(tenant.key, tenant.cell, tenant.login_group),
                            slug=tenant.slug,
                            name=tenant.name,
                            state=tenant.state,
                            home_host=tenant.home_host,
                            epoch=tenant.epoch,
                            limits=_limits(plans[tenant.plan], overrides.get(tenant.id)),
                            ai_model=tenant.ai_model,
                            image_links=tenant.image_links,
                        )
                        self._by_id[tenant.id] = self._by_key[tenant.key] = record
                    now = utcnow()
                    for gone in await session.scalars(
                        select(Revocation).where(Revocation.epoch > self._epoch, Revocation.expires_at > now)
                    ):
                        self._revoked[gone.session_id] = gone.expires_at
                    self._revoked = {sid: until for sid, until in self._revoked.items() if until > now}
                    self._epoch = epoch
            self._true_at = asked

    async def _poll(self) -> None:
        healthy = True
        while True:
            await asyncio.sleep(self._poll_s)
            try:
                async with asyncio.timeout(5):
                    await self.refresh()
                healthy = True
            except (
                Exception
            ) as error:  # whatever happened, the next poll tries again; `fresh` refuses meanwhile
                if healthy:
                    log.warning("directory refresh failed", extra={"error": type(error).__name__})
                healthy = False


def _limits(plan: dict[str, int], overrides: dict[str, int] | None) -> dict[str, int]:
    """A plan's limits with a tenant's own in their place. Most have none, and share their plan's."""
    return plan | overrides if overrides else plan
