"""The end of a tenant: closing, with a grace period in which nothing is lost, and reopening."""

from datetime import timedelta

from sqlalchemy import select

from core.clock import utcnow
from core.database import ControlSession
from tenants.directory.models import Tenant
from tenants.directory.service import find_tenant, move
from tenants.lifecycle.errors import NoCertificate, PurgeBegun
from tenants.lifecycle.models import Deletion


async def close(session: ControlSession, slug: str, reason: str, grace: timedelta) -> Tenant:
    """Stop serving a tenant for good, in every process within a second. Its data stays at least for `grace`. Idempotent:
    closing again changes neither reason nor grace period. Raises `TenantNotFound`, `WrongState`."""
    tenant = await find_tenant(session, slug, lock=True)
    if tenant.state != "closing":
        tenant.purge_after = utcnow() + grace
    return await move(session, tenant, sources=("active", "suspended"), target="closing", reason=reason)


async def reopen(session: ControlSession, slug: str) -> Tenant:
    """Serve a closing tenant again, also after the grace period as long as nothing is purged. Idempotent. Raises
    `TenantNotFound`, `WrongState`, `PurgeBegun`."""
    tenant = await find_tenant(session, slug, lock=True)
    if tenant.state == "closing":
        if await find_deletion(session, tenant) is not None:
            raise PurgeBegun(
                f"The purge of {tenant.slug} has begun; run `dermadetect tenants purge` to finish it."
            )
        tenant.purge_after = None
    return await move(session, tenant, sources=("closing",), target="active", reason=None)


async def find_deletion(session: ControlSession, tenant: Tenant) -> Deletion | None:
    """The purge of a tenant, finished or not."""
    found: Deletion | None = await session.scalar(select(Deletion).where(Deletion.tenant_id == tenant.id))
    return found


async def certificate(session: ControlSession, slug: str) -> str:
    """The certificate of a purged tenant, a JWS. Raises `TenantNotFound`, `NoCertificate`."""
    tenant = await find_tenant(session, slug)
    deletion = await find_deletion(session, tenant)
    if deletion is None or deletion.certificate is None:
        raise NoCertificate(f"{tenant.slug} is {tenant.state}; only a purged tenant has one.")
    return deletion.certificate
