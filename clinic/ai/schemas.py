"""Questions to the AI Service over the wire. Its answers are the contract's own models."""

from datetime import date, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from clinic.fields import Line, Locale, Paragraph, Sent
from core.ai_contract import MAX_IMAGES, AiAnswer, AiContext, AiEndpoint, Modality, View
from core.ai_contract import Code as ContractCode

Answers = Annotated[list[AiAnswer], Field(max_length=200)]


class AskedImage(Sent):
    """A photograph to ask about: `data` is the file in base64. It is checked, and freed of its metadata, like
    one that is added to a case, and goes on as an upright JPEG of at most 2,048 pixels."""

    image_id: ContractCode
    data: Annotated[str, StringConstraints(min_length=1)]
    media_type: Literal["image/jpeg", "image/png"]
    modality: Modality = "clinical"
    view: View | None = None
    body_site: ContractCode | None = None


AskedImages = Annotated[list[AskedImage], Field(max_length=MAX_IMAGES)]


class Question(Sent):
    """A question without a case."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "locale": "en",
                "context": {"age_years": 41, "sex": "female", "duration_days": 60, "symptoms": ["itching"]},
                "images": [],
                "answers": [],
            }
        }
    )

    locale: Locale = "en"
    model_version: ContractCode | None = None
    images: AskedImages = Field(default_factory=list)
    context: AiContext = AiContext()
    answers: Answers = Field(default_factory=list)


class CaseQuestion(Sent):
    """What to add to what the case says: the answers given so far, by the `link_id` of their questions."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"answers": [{"link_id": "bleeding", "value": True}]}}
    )

    model_version: ContractCode | None = None
    answers: Answers = Field(default_factory=list)


class AiResultOut(BaseModel):
    """An answer of the AI Service as it came, with what it was asked about."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    created_at: datetime
    endpoint: AiEndpoint
    requested_by: UUID | None = Field(description="Null: asked by the pipeline after submission.")
    model_name: str
    model_version: str
    input_hash: str
    image_hashes: list[str] = Field(description="SHA-256 of the photographs' display copies, in their order.")
    latency_ms: int
    response: dict[str, Any]


class NewFeedback(Sent):
    """A physician's verdict on one item of an answer."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"item": "Melanoma", "verdict": "overridden", "reason": "Regular network, no change."}
        }
    )

    item: Line = Field(
        description="Of a diagnosis a candidate's `label`, of red flags a flag's `code`, of a triage `level`, of "
        "image validity an `image_id`, of next questions a `link_id`."
    )
    verdict: Literal["accepted", "overridden"]
    reason: Paragraph | None = None


class FeedbackOut(BaseModel):
    """A verdict. It stands until the same physician's next one on the item supersedes it."""

    id: UUID
    result_id: UUID
    physician_id: UUID
    item: str
    verdict: Literal["accepted", "overridden"]
    reason: str | None
    supersedes: UUID | None
    superseded_by: UUID | None
    created_at: datetime


class AiState(BaseModel):
    """What is asked about a case by itself, and what came of it. Nothing is before submission."""

    model_config = ConfigDict(from_attributes=True)

    remaining: list[AiEndpoint] = Field(default=[], description="What is still to be asked.")
    outcomes: dict[AiEndpoint, str] = Field(
        default={},
        description="`done`, `abstained`, `case-over`, or the problem's type that came instead of an answer; of what "
        "remains that of the last attempt.",
    )
    attempts: int = Field(default=0, description="How often something had to be put off.")
    due_at: datetime | None = Field(default=None, description="When what remains is asked, at the latest.")


class Agreement(BaseModel):
    """How often physicians accepted what a model said about cases of one skin type."""

    endpoint: AiEndpoint
    model_name: str
    model_version: str
    fitzpatrick: int | None = Field(description="Skin type I-VI as 1-6; null: not stated.")
    cases: int
    judged: int = Field(description="Verdicts; a physician's on an item counts once, their latest.")
    accepted: int
    overridden: int
    share: float = Field(description="Accepted of judged.")
    low: float = Field(description="Lower end of the share's 95 % Wilson score interval.")
    high: float = Field(description="Upper end.")


class Concordance(BaseModel):
    """By endpoint, model, version and skin type. Verdicts on one case hang together, so where `judged` is well above
    `cases` the interval is rather too narrow."""

    since: date | None
    until: date | None
    groups: list[Agreement]
