"""How much a tenant stores, exact whoever writes: one row in its own schema, changed in the transaction that makes
or removes what is counted. Take last in a transaction: the row is held until it ends, and locked after any other.
"""

from sqlalchemy import select, update

from core.database import TenantSession
from tenants.plans.errors import QuotaExceeded
from tenants.plans.models import StorageUse


async def take(session: TenantSession, size: int, limit: int) -> None:
    """Count `size` bytes. Raises `QuotaExceeded` if it is more and there would be more than `limit`."""
    if size <= 0:
        await add(session, size)
        return
    within = update(StorageUse).where(StorageUse.used + size <= limit).values(used=StorageUse.used + size)
    if await session.scalar(within.returning(StorageUse.used)) is None:
        raise QuotaExceeded(
            f"The {limit:,} bytes of storage are used up, or would be with this. Remove what is not needed; your "
            "administrator can raise the quota.",
            metric="storage_bytes",
            limit=limit,
        )


async def add(session: TenantSession, size: int) -> None:
    """Count `size` bytes whatever the limit, or give them back where `size` is negative."""
    await session.execute(update(StorageUse).values(used=StorageUse.used + size))


async def used(session: TenantSession) -> int:
    """The bytes stored now, with those that are reserved."""
    return (await session.scalars(select(StorageUse.used))).one()
