"""What the AI Service said, verbatim, and what physicians made of it."""

from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from core.models import Row, TenantBase


class AiResult(Row, TenantBase):
    """One answer of the AI Service, with what it was asked about and which model said it."""

    __tablename__ = "ai_results"

    case_id: Mapped[UUID | None] = mapped_column(ForeignKey("cases.id"), index=True)
    endpoint: Mapped[str]
    requested_by: Mapped[UUID]
    input_hash: Mapped[str] = mapped_column(index=True)
    image_hashes: Mapped[list[str]]
    model_name: Mapped[str]
    model_version: Mapped[str]
    latency_ms: Mapped[int]
    response: Mapped[dict[str, Any]]


class AiFeedback(Row, TenantBase):
    """A physician's verdict on one item of an answer. A later verdict takes its place; the audit log has both."""

    __tablename__ = "ai_feedback"
    __table_args__ = (
        UniqueConstraint("result_id", "physician_id", "item"),
        CheckConstraint("verdict IN ('accepted', 'overridden')", name="verdict"),
    )

    result_id: Mapped[UUID] = mapped_column(ForeignKey("ai_results.id"))
    physician_id: Mapped[UUID] = mapped_column(ForeignKey("physicians.id"))
    item: Mapped[str]
    verdict: Mapped[str]
    reason: Mapped[str | None]
