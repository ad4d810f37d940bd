"""Cases over the wire."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from clinic.fields import Code, Document, Line, Locale, Paragraph, Region, Sent, Storable
from clinic.patients.schemas import NewPatient, Sex

Status = Literal[
    "draft",
    "submitted",
    "triaged",
    "queued",
    "assigned",
    "in_review",
    "needs_info",
    "pending_approval",
    "answered",
    "closed",
    "cancelled",
]
Level = Literal["emergency", "urgent", "soon", "routine"]
Outcome = Literal["reassurance", "treatment", "in_person_visit", "emergency_care", "inconclusive"]

Symptoms = Annotated[
    list[Annotated[str, StringConstraints(min_length=1, max_length=64), Storable]], Field(max_length=50)
]
BodySite = Annotated[str, StringConstraints(min_length=1, max_length=100), Storable]
Days = Annotated[int, Field(ge=0, le=50_000)]
SkinType = Annotated[int, Field(ge=1, le=6, description="Fitzpatrick skin type, I to VI.")]


class NewCase(Sent):
    """A draft about one patient: a recorded one (`patient_id`) or a new one (`patient`)."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "patient": {"name": "Ada Example", "birth_date": "1984-05-17", "sex": "female"},
                "complaint": "A mole that has changed its colour.",
                "body_site": "left shoulder",
                "symptoms": ["itching"],
                "duration_days": 60,
                "fitzpatrick": 2,
                "region": "DE-BE",
                "locale": "de",
            }
        }
    )

    patient_id: UUID | None = None
    patient: NewPatient | None = None
    complaint: Paragraph
    history: Document = ""
    body_site: BodySite | None = None
    symptoms: Symptoms = Field(default_factory=list)
    duration_days: Days | None = None
    fitzpatrick: SkinType | None = None
    region: Region
    locale: Locale = "en"

    @model_validator(mode="after")
    def _is_about_one_patient(self) -> Self:
        if (self.patient is None) == (self.patient_id is None):
            raise ValueError("give exactly one of patient and patient_id")
        return self


class CaseChange(Sent):
    """What changes in a draft (in the manner of RFC 7396): members that are left out stay, null empties those that
    may be empty."""

    model_config = ConfigDict(json_schema_extra={"example": {"duration_days": 75, "body_site": None}})

    # These defaults only make the member optional: what was not sent is never read.
    complaint: Paragraph = Field(default_factory=str)
    history: Document = Field(default_factory=str)
    body_site: BodySite | None = None
    symptoms: Symptoms = Field(default_factory=list)
    duration_days: Days | None = None
    fitzpatrick: SkinType | None = None
    region: Region = Field(default_factory=str)
    locale: Locale = Field(default_factory=str)


class ConsentGiven(Sent):
    """The wording the patient agreed to, as it was shown to them."""

    wording: Annotated[str, StringConstraints(min_length=1, max_length=4_000), Storable]


class Submission(Sent):
    model_config = ConfigDict(
        json_schema_extra={
            "example": {"consent": {"wording": "I agree that a physician looks at my photographs."}}
        }
    )

    consent: ConsentGiven


class Triage(Sent):
    """A coordinator's level with reasons, or `{"source": "ai"}` for the AI Service's latest one."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"level": "urgent", "reasons": ["Grew within weeks."]}}
    )

    source: Literal["coordinator", "ai"] = "coordinator"
    level: Level | None = None
    reasons: Annotated[list[Line], Field(default_factory=list, max_length=20)]

    @model_validator(mode="after")
    def _says_who_decides(self) -> Self:
        if self.source == "coordinator" and not (self.level and self.reasons):
            raise ValueError("give a level and at least one reason")
        if self.source == "ai" and (self.level or self.reasons):
            raise ValueError("level and reasons come from the AI Service when it is the source")
        return self


class Placement(Sent):
    """Which queue the case waits in."""

    model_config = ConfigDict(json_schema_extra={"example": {"specialty": "dermatology", "pool": "shared"}})

    specialty: Code
    pool: Code = "shared"


class Reason(Sent):
    model_config = ConfigDict(json_schema_extra={"example": {"reason": "Not my field."}})

    reason: Paragraph


class Answer(Sent):
    """The physician's answer."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "outcome": "in_person_visit",
                "findings": "Asymmetric pigmented lesion, 7 mm, irregular border.",
                "text": "Please have this looked at with a dermatoscope within two weeks.",
            }
        }
    )

    outcome: Outcome
    findings: Annotated[Document, Field(min_length=1)]
    text: Annotated[Document, Field(min_length=1)]


class CaseSummary(BaseModel):
    """A case in a list."""

    id: UUID
    reference: str = Field(description="A short code to say on the telephone, such as `D-7K3M9QXA`.")
    status: Status
    emergency: bool
    triage_level: Level | None
    specialty: str | None
    physician_id: UUID | None
    patient_id: UUID
    region: str
    created_at: datetime
    submitted_at: datetime | None
    due_at: datetime | None
    answered_at: datetime | None
    version: int = Field(description="Counts changes; the `ETag` of the case.")


class CaseView(CaseSummary):
    """A case. `allowed_actions` are what you may do next: each is `POST /v1/cases/{id}/{action}`."""

    patient_sex: Sex
    patient_birth_year: int
    created_by: UUID
    updated_at: datetime
    locale: str
    complaint: str
    history: str
    body_site: str | None
    symptoms: list[str]
    duration_days: int | None
    fitzpatrick: int | None
    triage_source: str | None
    pool_id: UUID | None
    outcome: Outcome | None
    findings: str | None
    answer: str | None
    answered_by: UUID | None
    allowed_actions: tuple[str, ...]


class EventView(BaseModel):
    """A transition that happened."""

    id: UUID
    created_at: datetime
    action: str
    from_status: Status
    to_status: Status
    actor: UUID | None
    reason: str | None
    detail: dict[str, Any]
