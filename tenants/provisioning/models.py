"""How far the provisioning of each tenant has come."""

from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from core.models import ControlBase, Row


class ProvisioningStep(Row, ControlBase):
    """A step that was done, or undone by a rollback; `created_at` says when. The next attempt leaves it out."""

    __tablename__ = "provisioning_steps"
    __table_args__ = (
        UniqueConstraint("tenant_id", "step", "act"),
        CheckConstraint("act IN ('done', 'undone')", name="act"),
    )

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("control.tenants.id"))
    step: Mapped[str]
    act: Mapped[str]
