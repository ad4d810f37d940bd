"""Pools that cases wait in, and who took which case."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from core.models import Row, TenantBase


class Pool(Row, TenantBase):
    """Cases of a `shared` pool may be claimed by any eligible physician, of a `private` one by members only."""

    __tablename__ = "pools"
    __table_args__ = (CheckConstraint("kind IN ('shared', 'private')", name="kind"),)

    code: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    kind: Mapped[str]


class PoolMember(Row, TenantBase):
    __tablename__ = "pool_members"
    __table_args__ = (UniqueConstraint("pool_id", "physician_id"),)

    pool_id: Mapped[UUID] = mapped_column(ForeignKey("pools.id"))
    physician_id: Mapped[UUID] = mapped_column(ForeignKey("physicians.id"))


class Assignment(Row, TenantBase):
    """A physician holds a case until `ended_at`; at most one active primary assignment a case."""

    __tablename__ = "assignments"
    __table_args__ = (
        Index(
            "uq_assignments_active_primary",
            "case_id",
            unique=True,
            postgresql_where="kind = 'primary' AND ended_at IS NULL",
        ),
        Index("ix_assignments_open", "physician_id", postgresql_where="ended_at IS NULL"),
        CheckConstraint("kind IN ('primary', 'second_opinion')", name="kind"),
    )

    case_id: Mapped[UUID] = mapped_column(ForeignKey("cases.id"), index=True)
    physician_id: Mapped[UUID] = mapped_column(ForeignKey("physicians.id"))
    kind: Mapped[str] = mapped_column(default="primary")
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    end_reason: Mapped[str | None]
