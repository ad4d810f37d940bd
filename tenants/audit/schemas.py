"""The audit log over the wire."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field


class EventOut(BaseModel):
    """An act in the tenant."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    created_at: datetime
    actor: UUID | None = Field(description="The person or client; null for the system, or before sign-in.")
    action: str
    subject: UUID | None = Field(description="The row it was done to.")
    request_id: str | None
    detail: dict[str, Any] = Field(description="Codes, ids and numbers; never health data.")
    seal: int | None = Field(description="The seal that covers the row; null for the first second.")
