"""Domains that tenants say are theirs."""

from uuid import UUID

from sqlalchemy import ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from core.models import ControlBase, Row


class DomainClaim(Row, ControlBase):
    """A domain that a tenant has yet to prove its own by publishing `challenge`; then it becomes a `Host`. Several
    tenants may claim one domain, so that nobody can keep its owner from it."""

    __tablename__ = "domain_claims"
    __table_args__ = (UniqueConstraint("tenant_id", "domain"),)

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("control.tenants.id"))
    domain: Mapped[str]
    challenge: Mapped[str]
