"""The people of a tenant."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from core.models import Row, TenantBase


class User(Row, TenantBase):
    """Somebody of this tenant. The identity provider of the connection `connection_id` calls them `external_id`;
    whoever was invited gets both at the first sign-in. For a patient in the care of a machine client it is the client.

    `mapped_roles` are what the provider's groups brought at the last sign-in, `granted_roles` what was given here.
    Several people may have one e-mail address: families do. `provisioned_at` is when the tenant's directory brought
    them or took them over by SCIM; it calls them `scim_external_id`, and `profile` is what else it told, in its form.
    """

    __tablename__ = "users"
    __table_args__ = (
        UniqueConstraint("connection_id", "external_id"),
        CheckConstraint("(connection_id IS NULL) = (external_id IS NULL)", name="known_by_a_connection"),
        Index("ix_users_email", text("lower(email)")),
        Index("uq_users_user_name", text("lower(user_name)"), unique=True),
    )

    connection_id: Mapped[UUID | None]
    external_id: Mapped[str | None] = mapped_column(index=True)
    user_name: Mapped[str | None]
    email: Mapped[str | None]
    display_name: Mapped[str]
    mapped_roles: Mapped[list[str]] = mapped_column(default=list, server_default="{}")
    granted_roles: Mapped[list[str]] = mapped_column(default=list, server_default="{}")
    active: Mapped[bool] = mapped_column(default=True, server_default="true")
    invited_at: Mapped[datetime | None]
    provisioned_at: Mapped[datetime | None]
    scim_external_id: Mapped[str | None] = mapped_column(index=True)
    profile: Mapped[dict[str, Any]] = mapped_column(default=dict, server_default="{}")
    last_sign_in_at: Mapped[datetime | None]

    @property
    def roles(self) -> list[str]:
        """All roles of the person, sorted."""
        return sorted({*self.mapped_roles, *self.granted_roles})


class SignInSession(Row, TenantBase):
    """One sign-in; every token carries its id. `provider_session` is the identity provider's name for it."""

    __tablename__ = "sessions"

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"), index=True)
    client_id: Mapped[UUID] = mapped_column(ForeignKey("oauth_clients.id"))
    connection_id: Mapped[UUID | None]
    provider_session: Mapped[str | None]
    roles: Mapped[list[str]]
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]
