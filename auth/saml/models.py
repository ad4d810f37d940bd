"""A tenant's SAML identity provider, and which of its assertions were used."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from core.models import ControlBase, Row, TenantBase


class SamlConnection(Row, ControlBase):
    """How a tenant signs in. `role_mapping` maps the identity provider's group names to our roles; someone in no
    mapped group is refused. Attribute names are the identity provider's."""

    __tablename__ = "saml_connections"

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("control.tenants.id"), unique=True)
    idp_entity_id: Mapped[str]
    sso_url: Mapped[str]
    certificates: Mapped[list[str]]
    role_mapping: Mapped[dict[str, Any]]
    email_attribute: Mapped[str] = mapped_column(default="email")
    name_attribute: Mapped[str] = mapped_column(default="displayName")
    groups_attribute: Mapped[str] = mapped_column(default="groups")


class UsedAssertion(Row, TenantBase):
    """An assertion id that has signed somebody in; it must not do so again before it expires."""

    __tablename__ = "used_assertions"

    assertion_id: Mapped[str] = mapped_column(unique=True)
    expires_at: Mapped[datetime] = mapped_column(index=True)
