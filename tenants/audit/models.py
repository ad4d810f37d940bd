"""What was done to the platform and its tenants, append-only."""

from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from core.models import ControlBase, Row, TenantBase


class PlatformEvent(Row, ControlBase):
    """An act of the control plane. `detail` holds no secret and no health data."""

    __tablename__ = "audit_events"

    tenant_id: Mapped[UUID | None] = mapped_column(ForeignKey("control.tenants.id"), index=True)
    actor: Mapped[str]
    action: Mapped[str]
    detail: Mapped[dict[str, Any]]


class AuditEvent(Row, TenantBase):
    """An act inside one tenant: who (`actor`, a user or client id) did what (`action`) to which row
    (`subject`). `detail` holds check ids and codes, never health data."""

    __tablename__ = "audit_events"

    actor: Mapped[UUID | None]
    action: Mapped[str] = mapped_column(index=True)
    subject: Mapped[UUID | None] = mapped_column(index=True)
    request_id: Mapped[str | None]
    detail: Mapped[dict[str, Any]]
