"""The keys of tenants and of the platform, and the master keys that wrap them."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, func
from sqlalchemy.orm import Mapped, mapped_column

from core.models import ControlBase, Row

PURPOSES = ("token", "saml", "data")


class TenantKey(Row, ControlBase):
    """One key; a tenant restored beside the one it comes from has keys of the same ids. `token` signs access tokens and reports (ES256), `saml` is the service provider's RSA key,
    `data` wraps patients' keys (AES-256). The id is the `kid`; `public` is a JWK or a certificate.

    What a key is used for at a moment follows from its times alone, so nothing has to happen when that moment comes. The
    last one of a purpose has no end (`retires_at`); it gets one with the key that follows it.
    """

    __tablename__ = "tenant_keys"
    __table_args__ = (
        CheckConstraint(f"purpose IN {PURPOSES}", name="purpose"),
        Index(
            "uq_tenant_keys_last", "tenant_id", "purpose", unique=True, postgresql_where="retires_at IS NULL"
        ),
    )

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("control.tenants.id"), primary_key=True)
    purpose: Mapped[str]
    active_from: Mapped[datetime] = mapped_column(server_default=func.now())
    retires_at: Mapped[datetime | None]
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


class VaultedMasterKey(ControlBase):
    """A master key that a key in a vault wraps: `vault_key` is that key's identifier with its version."""

    __tablename__ = "vaulted_master_keys"

    vault_key: Mapped[str] = mapped_column(primary_key=True)
    kek_id: Mapped[str] = mapped_column(unique=True)
    wrapped: Mapped[bytes]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
