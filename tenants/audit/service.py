"""Appending to the audit logs. A row is written in the transaction of the act it tells of."""

import getpass
import os
from typing import Any
from uuid import UUID

from core.access import Principal
from core.database import ControlSession, TenantSession
from core.telemetry import current_request_id
from tenants.audit.models import AuditEvent, PlatformEvent
from tenants.directory.models import Tenant


def actor_of(session: ControlSession) -> str:
    """Who acts on the control plane: the platform token that the session was opened for, else the operating-system user
    at the command line, where administrators sign in by access to the machine."""
    if named := session.info.get("actor"):
        return str(named)
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):
        return f"cli:uid={os.getuid()}"


def record(session: ControlSession, tenant: Tenant | None, action: str, **detail: Any) -> None:
    """Append an act of the control plane on `tenant`, or (None) on the platform itself."""
    session.add(
        PlatformEvent(
            tenant_id=tenant.id if tenant else None, actor=actor_of(session), action=action, detail=detail
        )
    )


def audit(
    session: TenantSession,
    actor: Principal | UUID | None,
    action: str,
    subject: UUID | None = None,
    **detail: Any,
) -> None:
    """Append an act inside the session's tenant."""
    session.add(
        AuditEvent(
            actor=actor.subject if isinstance(actor, Principal) else actor,
            action=action,
            subject=subject,
            request_id=current_request_id(),
            detail=detail,
        )
    )
