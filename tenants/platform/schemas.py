"""Tenants as the platform's API shows them, and what it is told."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

# PostgreSQL's text holds no NUL.
Text = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500, pattern=r"^[^\x00]*$")
]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TenantOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    key: str
    slug: str
    name: str
    state: str
    state_reason: str | None
    purge_after: datetime | None
    plan: str
    home_host: str
    ai_model: str | None
    image_links: str
    schema_revision: str | None
    created_at: datetime


class TenantChange(_Body):
    """What is not named stays; `ai_model` null is whichever is current."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"ai_model": "2.4.1"}]})

    name: Text = ""
    ai_model: Text | None = None
    image_links: Literal["streamed", "signed"] = "streamed"


class Reason(_Body):
    reason: Text = Field(examples=["unpaid since March"])


class Closing(Reason):
    grace_days: int = Field(30, ge=0, le=3650)


class Renaming(_Body):
    slug: str = Field(max_length=40, examples=["acme-health"])


class DomainIn(_Body):
    domain: str = Field(max_length=255, examples=["derma.acme.example"])


class DomainOut(BaseModel):
    """A host; `record` must hold the TXT text `challenge` before a claimed one is served."""

    model_config = ConfigDict(from_attributes=True)

    host: str
    kind: Literal["home", "alias", "custom", "claimed"]
    record: str | None
    challenge: str | None


class QuotaSetting(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    metric: str
    limit: int
    source: Literal["plan", "override"]
    used: int | None


class Limit(_Body):
    limit: int | None = Field(
        ge=0, le=2**63 - 1, description="Null returns to the plan's.", examples=[1000000]
    )
