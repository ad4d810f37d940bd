"""Tenants on their way to another cell."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from core.models import ControlBase, Row


class Move(Row, ControlBase):
    """A move that has begun and is not over; the audit log keeps those that are. `source` and `target` are cells,
    `target_group` is which of the gateway's logins there is to serve it.

    Every step but the switch can be done again, so the ledger need only know of that: until `switched_at` the tenant's
    data is at the source and what is at the target is a copy of ours, from then on it is the other way round. The tenant
    gets back `state_before` and its reason when the freeze ends.
    """

    __tablename__ = "moves"

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("control.tenants.id"), unique=True)
    source: Mapped[str]
    target: Mapped[str]
    target_group: Mapped[int]
    state_before: Mapped[str | None]
    reason_before: Mapped[str | None]
    switched_at: Mapped[datetime | None]
