"""Cases and what happened to them."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from core.models import Row, TenantBase

STATUSES = (
    "draft",
    "submitted",
    "triaged",
    "queued",
    "assigned",
    "in_review",
    "needs_info",
    "pending_approval",
    "answered",
    "closed",
    "cancelled",
)
LEVELS = ("emergency", "urgent", "soon", "routine")


class Case(Row, TenantBase):
    """One question about one patient's skin. `urgency` orders the queue: 0 is an emergency, 3 is routine."""

    __tablename__ = "cases"
    __table_args__ = (
        CheckConstraint(f"status IN {STATUSES}", name="status"),
        CheckConstraint(f"triage_level IN {LEVELS}", name="triage_level"),
        CheckConstraint("fitzpatrick BETWEEN 1 AND 6", name="fitzpatrick"),
        Index("ix_cases_queue", "specialty", "urgency", "id", postgresql_where="status = 'queued'"),
        Index("ix_cases_status", "status", "id"),
        Index("ix_cases_created_by", "created_by", "id"),
    )
    # Two writers who both read version 3 cannot both write version 4; the second gets 412.
    __mapper_args__ = {"version_id_col": Row.version}  # noqa: RUF012

    reference: Mapped[str] = mapped_column(unique=True)
    patient_id: Mapped[UUID] = mapped_column(ForeignKey("patients.id"), index=True)
    created_by: Mapped[UUID]
    status: Mapped[str] = mapped_column(default="draft")
    locale: Mapped[str] = mapped_column(default="en")
    region: Mapped[str]
    complaint: Mapped[str]
    history: Mapped[str] = mapped_column(default="")
    body_site: Mapped[str | None]
    symptoms: Mapped[list[str]]
    duration_days: Mapped[int | None]
    fitzpatrick: Mapped[int | None]
    submitted_at: Mapped[datetime | None]
    emergency: Mapped[bool] = mapped_column(default=False, server_default="false")
    triage_level: Mapped[str | None]
    triage_source: Mapped[str | None]
    urgency: Mapped[int] = mapped_column(default=3, server_default="3")
    due_at: Mapped[datetime | None]
    specialty: Mapped[str | None] = mapped_column(ForeignKey("specialties.code"))
    pool_id: Mapped[UUID | None] = mapped_column(ForeignKey("pools.id"))
    physician_id: Mapped[UUID | None] = mapped_column(ForeignKey("physicians.id"), index=True)
    outcome: Mapped[str | None]
    findings: Mapped[str | None]
    answer: Mapped[str | None]
    answered_by: Mapped[UUID | None] = mapped_column(ForeignKey("physicians.id"))
    answered_at: Mapped[datetime | None]


class CaseEvent(Row, TenantBase):
    """A transition that happened; append-only."""

    __tablename__ = "case_events"

    case_id: Mapped[UUID] = mapped_column(ForeignKey("cases.id"), index=True)
    action: Mapped[str]
    from_status: Mapped[str]
    to_status: Mapped[str]
    actor: Mapped[UUID | None]
    reason: Mapped[str | None]
    detail: Mapped[dict[str, Any]]


class Consent(Row, TenantBase):
    """That the patient agreed, to which wording, and who recorded it."""

    __tablename__ = "consents"

    case_id: Mapped[UUID] = mapped_column(ForeignKey("cases.id"), index=True)
    patient_id: Mapped[UUID] = mapped_column(ForeignKey("patients.id"))
    wording: Mapped[str]
    recorded_by: Mapped[UUID]
