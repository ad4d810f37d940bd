"""What directories bring: groups, and the tokens by which they come."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from core.models import Row, TenantBase


class ScimToken(Row, TenantBase):
    """What a tenant's directory proves itself with. Only the hash is kept; the name stands in the audit log beside
    the row's id, and is never given again."""

    __tablename__ = "scim_tokens"

    name: Mapped[str] = mapped_column(unique=True)
    token_hash: Mapped[str] = mapped_column(unique=True)
    expires_at: Mapped[datetime]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class Group(Row, TenantBase):
    """A group of the tenant's directory. Where a connection maps its name to a role, its members have that role."""

    __tablename__ = "groups"
    __table_args__ = (Index("uq_groups_display_name", text("lower(display_name)"), unique=True),)

    display_name: Mapped[str]
    external_id: Mapped[str | None] = mapped_column(index=True)


class GroupMember(TenantBase):
    """Somebody is in a group."""

    __tablename__ = "group_members"

    group_id: Mapped[UUID] = mapped_column(ForeignKey("groups.id", ondelete="CASCADE"), primary_key=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"), primary_key=True, index=True)
