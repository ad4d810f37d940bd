"""Photographs over the wire."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from clinic.cases.schemas import BodySite
from clinic.fields import Sent

View = Literal["overview", "close_up", "dermoscopy"]
Variant = Literal["original", "display", "thumbnail"]


class ImageFields(Sent):
    """What is said of a photograph to be added to a case."""

    view: View
    body_site: BodySite | None = None


class ImageUpload(ImageFields):
    """A photograph to be added to a case: `data` is the file in base64 (RFC 4648, 4: padded, no line breaks)."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "data": "/9j/4AAQSkZJRgABAQEASABIAAD…",
                "media_type": "image/jpeg",
                "view": "close_up",
                "body_site": "left-forearm",
            }
        }
    )

    data: Annotated[str, StringConstraints(min_length=1)]
    media_type: Literal["image/jpeg", "image/png"]


class ImageOut(BaseModel):
    """A stored photograph. `width` and `height` are in pixels of the upright picture, `size` in bytes of the
    original, whose hash is `sha256`; `captured_at` is the camera's clock, taken as UTC; `hints` are codes of what
    could be better."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    case_id: UUID
    media_type: str
    width: int
    height: int
    size: int
    sha256: str = Field(description="SHA-256 of the stored original, which carries no metadata.")
    upload_sha256: str = Field(description="SHA-256 of the file as it was sent.")
    view: View
    body_site: str | None
    captured_at: datetime | None
    hints: list[str]
    uploaded_by: UUID
    created_at: datetime
