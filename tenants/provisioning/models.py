"""How far the provisioning of each tenant has come."""

from uuid import UUID

from sqlalchemy import ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from core.models import ControlBase, Row


class ProvisioningStep(Row, ControlBase):
    """A finished step; the next attempt goes on behind it."""

    __tablename__ = "provisioning_steps"
    __table_args__ = (UniqueConstraint("tenant_id", "step"),)

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("control.tenants.id"))
    step: Mapped[str]
