"""People over the wire."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints


class UserOut(BaseModel):
    """Somebody of this tenant."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    display_name: str
    email: str | None
    roles: list[str] = Field(description="From the person's groups, and those granted here.")
    granted_roles: list[str]
    active: bool
    invited_at: datetime | None
    last_sign_in_at: datetime | None
    version: int


class UserChange(BaseModel):
    """What a person may do here beside what their groups bring."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"granted_roles": ["physician", "tenant_admin"]}}
    )

    granted_roles: list[Annotated[str, StringConstraints(max_length=63)]] = Field(max_length=10)


class Me(BaseModel):
    """Who the access token stands for."""

    user: UserOut | None = Field(description="Null for a machine client.")
    client: UUID | None = Field(description="The machine client: itself, or acting for the user.")
    roles: list[str] = Field(description="Of this sign-in.")
    scopes: list[str] = Field(description="What the token allows.")
    session_id: UUID
