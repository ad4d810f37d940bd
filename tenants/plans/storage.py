"""How much a tenant stores, exact whoever writes: one row in its own schema, changed in the transaction that makes
or removes what is counted. Take last in a transaction: the row is held until it ends, and locked after any other.
"""

from sqlalchemy import BigInteger, bindparam, or_, select, update

from core.database import TenantSession
from core.statements import Statements, compiled
from tenants.plans.errors import QuotaExceeded
from tenants.plans.models import StorageUse

_GROWTH, _LIMIT = bindparam("growth", type_=BigInteger()), bindparam("limit", type_=BigInteger())
_AFTER = StorageUse.used + _GROWTH
_TAKE = compiled(
    update(StorageUse)
    .where(or_(_GROWTH <= 0, _AFTER <= _LIMIT))
    .values(used=_AFTER)
    .returning(StorageUse.used)
)


async def take(statements: Statements, size: int, limit: int) -> None:
    """Count `size` bytes. Raises `QuotaExceeded` if it is more and there would be more than `limit`."""
    if not await statements.fetch(_TAKE, {"growth": size, "limit": limit}):
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
