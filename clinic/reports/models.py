"""Signed reports."""

from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from core.models import Row, TenantBase


class Report(Row, TenantBase):
    """One issue of a case's report. The PDF is a blob; `signature` is a JWS (RFC 7515) by the tenant's key over
    its SHA-256. A later one supersedes it and never overwrites it. Only the hash of the verification token
    that is printed on the report is kept."""

    __tablename__ = "reports"
    __table_args__ = (
        CheckConstraint("status IN ('reserved', 'stored')", name="status"),
        Index("ix_reports_case_id", "case_id", "id"),
    )

    case_id: Mapped[UUID] = mapped_column(ForeignKey("cases.id"))
    case_version: Mapped[int]
    status: Mapped[str] = mapped_column(default="reserved")
    locale: Mapped[str]
    created_by: Mapped[UUID]
    verify_hash: Mapped[str] = mapped_column(unique=True)
    sha256: Mapped[str | None]
    size: Mapped[int | None]
    signature: Mapped[str | None]
    supersedes: Mapped[UUID | None] = mapped_column(ForeignKey("reports.id"))

    @property
    def blob(self) -> str:
        return f"cases/{self.case_id}/reports/{self.id}.pdf"
