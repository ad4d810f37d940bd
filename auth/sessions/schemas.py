"""Sign-in sessions over the wire."""

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field


class SessionOut(BaseModel):
    """A sign-in that goes on."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    user_id: UUID
    client_id: str = Field(
        description="The app that signed in, or the machine client that acts for the user."
    )
    client_name: str
    roles: list[str]
    created_at: datetime
    last_used_at: datetime = Field(description="When the app last got tokens of it.")
    expires_at: datetime = Field(description="When it ends at the latest.")
