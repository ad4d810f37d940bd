"""A tenant's SAML identity provider, and which of its assertions were used."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKeyConstraint
from sqlalchemy.orm import Mapped, mapped_column

from core.models import ControlBase, Row, TenantBase


class SamlConnection(ControlBase):
    """The particulars of a connection that speaks SAML."""

    __tablename__ = "saml_connections"
    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant_id", "id"],
            ["control.connections.tenant_id", "control.connections.id"],
            ondelete="CASCADE",
        ),
    )

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    idp_entity_id: Mapped[str]
    sso_url: Mapped[str]
    certificates: Mapped[list[str]]


class UsedAssertion(Row, TenantBase):
    """An assertion id that has signed somebody in; it must not do so again before it expires."""

    __tablename__ = "used_assertions"

    assertion_id: Mapped[str] = mapped_column(unique=True)
    expires_at: Mapped[datetime] = mapped_column(index=True)
