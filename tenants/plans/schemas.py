"""Use of the plan over the wire."""

from datetime import datetime

from pydantic import BaseModel, Field


class QuotaOut(BaseModel):
    metric: str
    limit: int
    source: str = Field(description="`plan`, or `override` for this tenant alone.")
    used: int | None = Field(
        description="This month, or for `storage_bytes` and `seats` now; null for what is not counted."
    )


class UsageOut(BaseModel):
    """What the plan allows and what has been used of it."""

    plan: str
    quotas: list[QuotaOut]
    resets_at: datetime
