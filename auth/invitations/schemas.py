"""Invitations over the wire."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Email = Annotated[
    str,
    StringConstraints(
        strip_whitespace=True, max_length=320, pattern=r"^[^@\s\x00]{1,64}@[^@\s\x00.]+(\.[^@\s\x00.]+)+$"
    ),
]
DisplayName = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200, pattern=r"^[^\x00]*$")
]


class NewInvitation(BaseModel):
    """Whom to invite, and what they may do here beside what their groups bring."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"example": {"email": "dana@acme.example", "roles": ["physician"]}},
    )

    email: Email
    roles: list[Annotated[str, StringConstraints(max_length=63)]] = Field(min_length=1, max_length=10)
    display_name: DisplayName | None = None
    anybody: bool = Field(
        False,
        description="Let whoever signs in by the URL be this person, whatever address the identity provider knows "
        "them by. Otherwise it must vouch for `email`.",
    )


class InvitationOut(BaseModel):
    """An invitation that nobody has followed yet."""

    id: UUID
    user_id: UUID
    email: str
    roles: list[str]
    anybody: bool
    invited_by: UUID | None = Field(description="A user's id; null: an operator.")
    created_at: datetime
    expires_at: datetime


class InvitationMade(InvitationOut):
    url: str | None = Field(
        description="To be handed to the person, now: it is not told again, also not to a repeated request (null)."
    )
