"""The keys of tenants and of the platform, wrapped by the master key."""

from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from core.models import ControlBase, Row

PURPOSES = ("token", "saml", "data")


class TenantKey(Row, ControlBase):
    """One key; a tenant restored beside the one it comes from has keys of the same ids. `token` signs access tokens and reports (ES256), `saml` is the service provider's RSA key,
    `data` wraps patients' keys (AES-256). The id is the `kid`; `public` is a JWK or a certificate."""

    __tablename__ = "tenant_keys"
    __table_args__ = (
        CheckConstraint(f"purpose IN {PURPOSES}", name="purpose"),
        CheckConstraint("state IN ('active', 'retiring', 'retired')", name="state"),
        Index(
            "uq_tenant_keys_active", "tenant_id", "purpose", unique=True, postgresql_where="state = 'active'"
        ),
    )

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("control.tenants.id"), primary_key=True)
    purpose: Mapped[str]
    state: Mapped[str] = mapped_column(default="active")
    kek_id: Mapped[str]
    private_wrapped: Mapped[bytes]
    public: Mapped[dict[str, Any]]


class PlatformKey(Row, ControlBase):
    """A key of the platform itself, which signs deletion certificates (ES256). The id is the `kid`; `public` is a
    JWK. The gateway's login cannot read this table."""

    __tablename__ = "platform_keys"

    kek_id: Mapped[str]
    private_wrapped: Mapped[bytes]
    public: Mapped[dict[str, Any]]
