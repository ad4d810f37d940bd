"""What was done to the platform and its tenants, append-only, and the seals over it.

There is one log for the platform and one for each tenant. A seal covers the rows that carry its number; only the
function `audit.seal` gives them one, and nobody but the schemas' owner may change a row or a seal.
"""

from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import BigInteger, FetchedValue, ForeignKey, Index, LargeBinary, func
from sqlalchemy.orm import Mapped, mapped_column

from core.ids import new_id
from core.models import ControlBase, TenantBase


class _Event:
    """A row that only `audit.seal` ever changes, and only its `seal`."""

    __mapper_args__: ClassVar = {"eager_defaults": False}

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    # `FetchedValue` keeps the column out of INSERTs, for which nobody has the right.
    seal: Mapped[int | None] = mapped_column(BigInteger, FetchedValue())


class PlatformEvent(_Event, ControlBase):
    """An act of the control plane. `detail` holds no secret and no health data."""

    __tablename__ = "audit_events"
    __table_args__ = (Index("ix_audit_events_seal", "seal", "id"),)

    tenant_id: Mapped[UUID | None] = mapped_column(ForeignKey("control.tenants.id"), index=True)
    actor: Mapped[str]
    action: Mapped[str]
    detail: Mapped[dict[str, Any]]


class AuditEvent(_Event, TenantBase):
    """An act inside one tenant: who (`actor`, a user or client id) did what (`action`) to which row
    (`subject`). `detail` holds check ids and codes, never health data."""

    __tablename__ = "audit_events"
    __table_args__ = (Index("ix_audit_events_seal", "seal", "id"),)

    actor: Mapped[UUID | None]
    action: Mapped[str] = mapped_column(index=True)
    subject: Mapped[UUID | None] = mapped_column(index=True)
    request_id: Mapped[str | None]
    detail: Mapped[dict[str, Any]]


class _Seal:
    """The link `seq` of a log's chain. `digest` is SHA-256 over the SHA-256 of each row in the order of ids,
    `hash` is SHA-256 over this row and `previous`, the hash of the link before it (32 zero bytes for the first)."""

    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    sealed_at: Mapped[datetime] = mapped_column(server_default=func.now())
    events: Mapped[int]
    digest: Mapped[bytes] = mapped_column(LargeBinary)
    previous: Mapped[bytes] = mapped_column(LargeBinary)
    hash: Mapped[bytes] = mapped_column(LargeBinary)


class PlatformSeal(_Seal, ControlBase):
    """A seal of the platform's log."""

    __tablename__ = "audit_seals"


class AuditSeal(_Seal, TenantBase):
    """A seal of the tenant's log."""

    __tablename__ = "audit_seals"
