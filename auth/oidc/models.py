"""The particulars of a connection that speaks OpenID Connect."""

from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKeyConstraint
from sqlalchemy.orm import Mapped, mapped_column

from core.models import ControlBase

WITH_SECRET = ("client_secret_basic", "client_secret_post")
CLIENT_AUTH = (*WITH_SECRET, "private_key_jwt", "none")


class OidcConnection(ControlBase):
    """Our registration at an OpenID provider. The secret is sealed by the tenant's data key `secret_key_id`, bound to
    the connection; for `private_key_jwt` the tenant's token key signs, which the provider finds at our JWKS."""

    __tablename__ = "oidc_connections"
    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant_id", "id"],
            ["control.connections.tenant_id", "control.connections.id"],
            ondelete="CASCADE",
        ),
        CheckConstraint(f"client_auth IN {CLIENT_AUTH}", name="client_auth"),
        CheckConstraint(
            f"client_auth NOT IN {WITH_SECRET} OR (secret_sealed IS NOT NULL AND secret_key_id IS NOT NULL)",
            name="secret",
        ),
    )

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    issuer: Mapped[str]
    client_id: Mapped[str]
    client_auth: Mapped[str]
    secret_key_id: Mapped[UUID | None]
    secret_sealed: Mapped[bytes | None]
    scopes: Mapped[list[str]]
