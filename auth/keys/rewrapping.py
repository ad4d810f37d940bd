"""All keys wrapped by the current master key instead of the one before it.

In batches, each of which holds by itself: it may be killed at any point and run again. Gateways and workers that know both
master keys go on meanwhile.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy import func, select, tuple_

from auth.keys.errors import MasterKeyUnknown
from auth.keys.masters import MasterKeys
from auth.keys.models import PlatformKey, TenantKey
from auth.keys.platform import PLATFORM
from core.crypto import CannotOpen, MasterKey
from core.database import AdminDatabase, ControlSession
from tenants.directory.models import Tenant

BATCH = 200


@dataclass
class Outcome:
    """`to` is the current master key, None while a vault's key has wrapped none. Of the keys that others wrapped, `done` are wrapped by it now and `left` are not yet;
    `locked` are of master keys that are not known here, by their names; `broken` do not open."""

    to: str | None
    done: int = 0
    left: int = 0
    locked: dict[str, int] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)


async def survey_tenants(session: ControlSession) -> Counter[str]:
    """How many keys of tenants each master key wraps, by its name."""
    return await _survey(session, TenantKey)


async def survey(session: ControlSession) -> Counter[str]:
    """How many keys each master key wraps, by its name; the platform's are for the operator's login alone."""
    return await _survey(session, TenantKey) + await _survey(session, PlatformKey)


async def _survey(session: ControlSession, table: type[TenantKey | PlatformKey]) -> Counter[str]:
    counted = select(table.kek_id, func.count().label("keys")).group_by(table.kek_id)
    return Counter({row.kek_id: row.keys for row in await session.execute(counted)})


async def rewrap(
    database: AdminDatabase,
    masters: MasterKeys,
    *,
    batch: int = BATCH,
    dry_run: bool = False,
    progress: Callable[[int], None] = lambda left: None,
) -> Outcome:
    """Wrap anew what another master key than the current one wraps; `progress` hears after each batch how many are left.
    With `dry_run` only count. Raises what `MasterKeys` raises."""
    if dry_run:
        return (await _plan(database, masters, await masters.made()))[0]
    async with database.one_at_a_time("rewrap", "keys"):
        new = await masters.make()
        outcome, old = await _plan(database, masters, new)
        last: tuple[UUID, UUID] | None = (UUID(int=0), UUID(int=0))
        while last:
            async with database.control() as session:
                last = await _rewrap_tenants(session, old, new, outcome, last, batch)
            progress(outcome.left)
        async with database.control() as session:
            theirs = select(PlatformKey).where(PlatformKey.kek_id.in_(old)).with_for_update()
            for key in await session.scalars(theirs):
                _rewrap(key, PLATFORM, f"sign:{key.id}", old, new, outcome)
    return outcome


async def _plan(
    database: AdminDatabase, masters: MasterKeys, new: MasterKey | None
) -> tuple[Outcome, dict[str, MasterKey]]:
    """What is to be done, and the master keys that open it."""
    outcome, old = Outcome(new.kek_id if new else None), dict[str, MasterKey]()
    async with database.control() as session:
        found = await survey(session)
    for kek_id in found.keys() - {outcome.to}:
        try:
            old[kek_id] = await masters.named(kek_id)
            outcome.left += found[kek_id]
        except MasterKeyUnknown:
            outcome.locked[kek_id] = found[kek_id]
    return outcome, old


async def _rewrap_tenants(
    session: ControlSession,
    old: dict[str, MasterKey],
    new: MasterKey,
    outcome: Outcome,
    after: tuple[UUID, UUID],
    batch: int,
) -> tuple[UUID, UUID] | None:
    """Rewrap the keys that follow `after`; returns the last one, None where there are no more."""
    place = tuple_(TenantKey.tenant_id, TenantKey.id)
    rows = await session.execute(
        select(TenantKey, Tenant.key)
        .join(Tenant, Tenant.id == TenantKey.tenant_id)
        .where(place > after, TenantKey.kek_id.in_(old))
        .order_by(TenantKey.tenant_id, TenantKey.id)
        .limit(batch)
        .with_for_update(of=TenantKey)
    )
    last = None
    for key, owner in rows:
        _rewrap(key, owner, f"{key.purpose}:{key.id}", old, new, outcome)
        last = key.tenant_id, key.id
    return last


def _rewrap(
    key: TenantKey | PlatformKey,
    owner: str,
    purpose: str,
    old: dict[str, MasterKey],
    new: MasterKey,
    outcome: Outcome,
) -> None:
    try:
        secret = old[key.kek_id].unwrap(owner, purpose, key.private_wrapped)
    except CannotOpen:
        outcome.broken.append(f"{owner}|{purpose}")
    else:
        key.kek_id, key.private_wrapped = new.kek_id, new.wrap(owner, purpose, secret)
        outcome.done += 1
    outcome.left -= 1
