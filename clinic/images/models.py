"""Photographs. The pixels are blobs; the row says what and where they are."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from core.models import Row, TenantBase

VARIANTS = ("original", "display", "thumbnail")


class Image(Row, TenantBase):
    """`reserved` until its blobs are stored.

    `size` is in bytes of the stored original, `stored_size` of all its blobs, as the storage quota counts them.
    `sha256` is of the stored original, `display_sha256` of what is displayed, which may be the same file, and
    `upload_sha256` of the bytes as sent; width and height are of the upright picture, in pixels.
    """

    __tablename__ = "images"
    __table_args__ = (
        UniqueConstraint("case_id", "sha256"),
        CheckConstraint("status IN ('reserved', 'stored')", name="status"),
    )

    case_id: Mapped[UUID] = mapped_column(ForeignKey("cases.id"))
    status: Mapped[str] = mapped_column(default="reserved")
    uploaded_by: Mapped[UUID]
    media_type: Mapped[str]
    width: Mapped[int]
    height: Mapped[int]
    size: Mapped[int]
    stored_size: Mapped[int]
    sha256: Mapped[str]
    upload_sha256: Mapped[str]
    display_sha256: Mapped[str]
    body_site: Mapped[str | None]
    view: Mapped[str]
    captured_at: Mapped[datetime | None]
    hints: Mapped[list[Any]]

    def blob(self, variant: str) -> str:
        """The name of the blob that has this variant."""
        if variant == "display" and self.display_sha256 == self.sha256:
            variant = "original"
        return f"cases/{self.case_id}/{self.id}/{variant}"

    @property
    def blobs(self) -> set[str]:
        """The names of all its blobs: three, or two if it displays its original."""
        return {self.blob(variant) for variant in VARIANTS}
