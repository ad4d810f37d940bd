"""The people of a tenant."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from core.models import Row, TenantBase


class User(Row, TenantBase):
    """Somebody who signed in. `external_id` is the name the connection knows them by."""

    __tablename__ = "users"
    __table_args__ = (UniqueConstraint("connection", "external_id"),)

    connection: Mapped[str]
    external_id: Mapped[str]
    email: Mapped[str | None]
    display_name: Mapped[str]
    roles: Mapped[list[str]]
    active: Mapped[bool] = mapped_column(default=True, server_default="true")
    last_sign_in_at: Mapped[datetime | None]


class SignInSession(Row, TenantBase):
    """One sign-in; every token carries its id."""

    __tablename__ = "sessions"

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"), index=True)
    client_id: Mapped[UUID] = mapped_column(ForeignKey("oauth_clients.id"))
    roles: Mapped[list[str]]
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]
