"""How many people of a tenant have a seat: one row in its own schema, locked before they are counted, so that the
count is exact whoever comes at the same time. Lock last in a transaction: the row is held until it ends.
"""

from sqlalchemy import select, update

from core.database import TenantSession
from tenants.plans.errors import QuotaExceeded
from tenants.plans.models import SeatUse


async def lock(session: TenantSession) -> None:
    """Wait for others who change who has a seat; from the next statement on one sees what they did."""
    await session.execute(select(SeatUse.used).with_for_update())


async def settle(session: TenantSession, taken: int, limit: int | None) -> None:
    """Keep what was counted under the lock. Raises `QuotaExceeded` if it is more than `limit`; None is for when there
    became fewer."""
    await session.execute(update(SeatUse).values(used=taken))
    if limit is not None and taken > limit:
        raise QuotaExceeded(
            f"All {limit:,} seats are taken. Deactivate somebody, or revoke an invitation; your administrator can "
            "raise the quota.",
            metric="seats",
            limit=limit,
        )


async def used(session: TenantSession) -> int:
    """The seats taken, as they were last counted."""
    return (await session.scalars(select(SeatUse.used))).one()
