"""Finding out why a sign-in was refused."""

from collections.abc import Sequence

from sqlalchemy import select

from core.database import TenantSession
from tenants.audit.models import AuditEvent

REFUSED = "sign-in.refused"


async def list_refusals(session: TenantSession, reference: str, limit: int) -> Sequence[AuditEvent]:
    """The newest refused sign-ins; `reference` is what the page showed, or how it ends, or empty for any."""
    query = select(AuditEvent).where(AuditEvent.action == REFUSED).order_by(AuditEvent.id.desc()).limit(limit)
    if reference:
        query = query.where(AuditEvent.request_id.endswith(reference.strip().lower(), autoescape=True))
    return (await session.scalars(query)).all()
