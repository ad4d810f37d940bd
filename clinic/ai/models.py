"""What the AI Service said, verbatim, what physicians made of it, and what is still to be asked."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, func
from sqlalchemy.orm import Mapped, mapped_column

from core.ai_contract import AiEndpoint
from core.models import Row, TenantBase

PIPELINE = (AiEndpoint.IMAGE_VALIDITY, AiEndpoint.RED_FLAGS, AiEndpoint.TRIAGE, AiEndpoint.DIAGNOSIS)
"""What is asked about every submitted case, in this order."""


class AiResult(Row, TenantBase):
    """One answer of the AI Service, with what it was asked about and which model said it. Nobody requested what the
    pipeline asked; of that there is one answer to each input and model."""

    __tablename__ = "ai_results"
    __table_args__ = (
        Index(
            "uq_ai_results_pipeline",
            "case_id",
            "endpoint",
            "input_hash",
            "model_name",
            "model_version",
            unique=True,
            postgresql_where="requested_by IS NULL",
        ),
    )

    case_id: Mapped[UUID | None] = mapped_column(ForeignKey("cases.id"), index=True)
    endpoint: Mapped[str]
    requested_by: Mapped[UUID | None]
    input_hash: Mapped[str] = mapped_column(index=True)
    image_hashes: Mapped[list[str]]
    model_name: Mapped[str]
    model_version: Mapped[str]
    latency_ms: Mapped[int]
    response: Mapped[dict[str, Any]]


class AiFeedback(Row, TenantBase):
    """A physician's verdict on one item of an answer; superseded by their next one, never edited."""

    __tablename__ = "ai_feedback"
    __table_args__ = (
        Index(  # one line of verdicts a physician and item, each superseding one other
            "uq_ai_feedback_first",
            "result_id",
            "physician_id",
            "item",
            unique=True,
            postgresql_where="supersedes IS NULL",
        ),
        CheckConstraint("verdict IN ('accepted', 'overridden')", name="verdict"),
    )

    result_id: Mapped[UUID] = mapped_column(ForeignKey("ai_results.id"))
    physician_id: Mapped[UUID] = mapped_column(ForeignKey("physicians.id"))
    item: Mapped[str]
    verdict: Mapped[str]
    reason: Mapped[str | None]
    supersedes: Mapped[UUID | None] = mapped_column(ForeignKey("ai_feedback.id"), unique=True)


class AiPipeline(Row, TenantBase):
    """What is still to be asked about a submitted case without anybody's doing.

    `remaining` are the endpoints without an outcome; `due_at` is when to go on, None when none remain. While a
    worker is at it, `due_at` is the end of its lease. `outcomes` has for each endpoint that was asked `done`,
    `abstained`, or the slug of the problem that came instead: of the last attempt while it remains.
    """

    __tablename__ = "ai_pipelines"
    __table_args__ = (Index("ix_ai_pipelines_due_at", "due_at", postgresql_where="due_at IS NOT NULL"),)

    case_id: Mapped[UUID] = mapped_column(ForeignKey("cases.id"), unique=True)
    due_at: Mapped[datetime | None] = mapped_column(server_default=func.now())
    attempts: Mapped[int] = mapped_column(default=0, server_default="0")
    remaining: Mapped[list[str]] = mapped_column(default=lambda: list(map(str, PIPELINE)))
    outcomes: Mapped[dict[str, Any]] = mapped_column(default=dict)
