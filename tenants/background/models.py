"""Work that is due, known without looking into any tenant's schema."""

from datetime import datetime

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from core.models import ControlBase, Row


class Doorbell(Row, ControlBase):
    """`kind` of work is due in the tenant `tenant_key` from `due_at` on. The work itself is rows of that tenant's
    schema; the bell only says where to look. Rung by `doorbell.ring`, in the transaction that wrote them, and so in
    the cell where the tenant lived then."""

    __tablename__ = "doorbells"
    __table_args__ = (Index("ix_doorbells_due_at", "due_at"),)

    tenant_key: Mapped[str]
    kind: Mapped[str]
    due_at: Mapped[datetime]
    leased_until: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(default=0, server_default="0")


class ScheduleSlot(ControlBase):
    """One run of recurring work. Whoever inserts the row does the run; no leader is needed."""

    __tablename__ = "schedule_slots"

    kind: Mapped[str] = mapped_column(primary_key=True)
    slot: Mapped[datetime] = mapped_column(primary_key=True)
