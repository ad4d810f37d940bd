"""Marks on a photograph."""

from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from core.models import Row, TenantBase

SHAPES = ("point", "polyline", "polygon", "circle", "ellipse", "rectangle")


class Annotation(Row, TenantBase):
    """A shape with text, in coordinates from 0 to 1 of the upright image; superseded, never edited."""

    __tablename__ = "annotations"
    __table_args__ = (
        CheckConstraint(f"shape IN {SHAPES}", name="shape"),
        CheckConstraint("source IN ('human', 'ai')", name="source"),
    )

    case_id: Mapped[UUID] = mapped_column(ForeignKey("cases.id"), index=True)
    image_id: Mapped[UUID] = mapped_column(ForeignKey("images.id"))
    author: Mapped[UUID]
    source: Mapped[str] = mapped_column(default="human")
    shape: Mapped[str]
    geometry: Mapped[dict[str, Any]]
    label: Mapped[str]
    text: Mapped[str] = mapped_column(default="")
    supersedes: Mapped[UUID | None] = mapped_column(ForeignKey("annotations.id"), unique=True)
