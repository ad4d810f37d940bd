"""Orders over the wire."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from tenants.platform.schemas import Text


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NewTenant(_Body):
    slug: str = Field(max_length=40, examples=["acme"])
    name: Text = Field(examples=["Acme Clinic"])
    plan: str = Field(max_length=63, examples=["standard"])
    cell: str = Field("default", max_length=63)


class Purge(_Body):
    confirm: str = Field(max_length=40, description="The tenant's slug once more.", examples=["acme"])
    now: bool = Field(False, description="Do not wait for the end of the grace period.")


class MoveTo(_Body):
    to_cell: str = Field(max_length=63, examples=["eu-2"])


class OperationOut(BaseModel):
    """An order: `steps` are finished; at the end there is a `result`, or a `problem` as this API would answer it."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    kind: Literal["create", "purge", "move", "move-back"]
    subject: str
    actor: str
    state: Literal["waiting", "running", "done", "failed"]
    steps: list[str]
    result: dict[str, Any] | None
    problem: dict[str, Any] | None
    created_at: datetime
    finished_at: datetime | None


class Certificate(BaseModel):
    certificate: str = Field(description="A JWS (RFC 7515) by the platform's key.")
