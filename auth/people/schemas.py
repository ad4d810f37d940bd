"""People over the wire."""

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field


class UserOut(BaseModel):
    """Somebody of this tenant."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    display_name: str
    email: str | None
    roles: list[str]
    active: bool
    last_sign_in_at: datetime | None


class Me(BaseModel):
    """Who the access token stands for."""

    user: UserOut | None = Field(description="Null for a machine client.")
    client: UUID | None = Field(description="The machine client: itself, or acting for the user.")
    roles: list[str] = Field(description="Of this sign-in.")
    scopes: list[str] = Field(description="What the token allows.")
    session_id: UUID
