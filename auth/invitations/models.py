"""Invitations: how somebody becomes known before their first sign-in."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from core.models import Row, TenantBase


class Invitation(Row, TenantBase):
    """A one-time address for a user who has not come yet; only its hash is kept, and the row goes when they come.

    Who signs in there becomes that user if the identity provider vouches for the e-mail address that was invited; with
    `anybody`, whoever it is. Where `invited_by` is None an operator invited.
    """

    __tablename__ = "invitations"

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"), unique=True)
    token_hash: Mapped[str] = mapped_column(unique=True)
    anybody: Mapped[bool]
    invited_by: Mapped[UUID | None]
    expires_at: Mapped[datetime]
