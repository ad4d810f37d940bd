"""What the AI Service said, verbatim."""

from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey
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
