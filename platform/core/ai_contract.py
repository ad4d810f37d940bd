"""The contract with the AI Service: what goes over the wire, on both sides of it.

Five endpoints take one request shape, `POST /v1/{endpoint}`, and answer inside one envelope. The gateway's
client and the reference service both speak through these models. A request with an unknown member is refused;
an unknown member of a response is ignored, so that the AI Service may grow. Every list, string and number is
bounded, because neither side trusts the other. All texts are plain text.

Rules of the exchange, beside the schemas:

1. A valid request is answered with 200 and the endpoint's response, within the gateway's deadline (20 seconds unless
   the operator says otherwise), also where it has no photographs; who cannot judge abstains.
2. The answer is `application/json`, uncompressed, of at most 1 MiB.
3. The answer repeats `request_id`, and its `input_hash` is that of the request: the same for the same content.
4. `image-validity` judges every photograph of the request, once.
5. The same `Idempotency-Key` with the same request gives the same answer (`latency_ms` aside); with another request
   it is refused with 4xx.
6. A photograph whose bytes do not have its `sha256` is refused with 422.
7. An unknown member is refused with 422, and what is no request at all with 4xx, never 5xx.
8. A service that needs a bearer token answers 401 without it.
9. A request that names a `model_version` is answered by that version of the model, or refused with 410.

`dermadetect ai check URL` checks a service for all of these.

The `input_hash` of a request is the SHA-256, in lower-case hex, of a JSON text made from it so: without `request_id`,
and without the `url` and `base64` of images; without every member that is null or at its default, an empty `context`
included; keys sorted, no white space, characters beyond ASCII as `\\u` and four hexadecimal digits; lists in
their order; numbers as Python writes them (`2`, `0.5`, `1e-05`), `age_years` always with a decimal point (`41.0`).
"""

import hashlib
import json
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

MAX_IMAGES = 12
MAX_IMAGE_BYTES = 8 * 1024**2
MAX_REQUEST_BYTES = 48 * 1024**2
MAX_RESPONSE_BYTES = 1024**2


class AiEndpoint(StrEnum):
    """Path names of the five calls."""

    DIAGNOSIS = "diagnosis"
    RED_FLAGS = "red-flags"
    TRIAGE = "triage"
    IMAGE_VALIDITY = "image-validity"
    NEXT_QUESTION = "next-question"


Code = Annotated[str, StringConstraints(min_length=1, max_length=128)]
Text = Annotated[str, StringConstraints(max_length=2_000)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]

Modality = Literal["clinical", "dermoscopy"]
View = Literal["overview", "regional", "close_up"]
Sex = Literal["female", "male", "other", "unknown"]  # FHIR administrative gender
Urgency = Literal["emergency", "urgent", "soon", "routine"]
Presence = Literal["yes", "no", "unknown"]
IssueCode = Literal[
    "blur",
    "underexposed",
    "overexposed",
    "glare",
    "too_far",
    "too_close",
    "low_resolution",
    "not_skin",
    "occluded",
    "identifiable_face",
    "text_visible",
    "screenshot",
]
QuestionType = Literal["boolean", "integer", "decimal", "date", "string", "text", "choice", "open-choice"]


class _Sent(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Received(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class AiImage(_Sent):
    """One photograph, as exactly one of `url` and `base64`; `sha256` is that of its bytes, in hex."""

    image_id: Code
    sha256: Sha256
    url: Annotated[str, StringConstraints(pattern=r"^https?://", max_length=4_096)] | None = None
    base64: (
        Annotated[str, StringConstraints(min_length=4, max_length=(MAX_IMAGE_BYTES + 2) // 3 * 4)] | None
    ) = None
    modality: Modality = "clinical"
    view: View | None = None
    body_site: Code | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.url is None) == (self.base64 is None):
            raise ValueError("give exactly one of url and base64")
        return self


class AiContext(_Sent):
    """What is known of the patient and the complaint. `fitzpatrick` is the skin type I-VI as 1-6."""

    age_years: Annotated[float, Field(ge=0, le=130, allow_inf_nan=False)] | None = None
    sex: Sex | None = None
    fitzpatrick: Annotated[int, Field(ge=1, le=6)] | None = None
    duration_days: Annotated[int, Field(ge=0, le=50_000)] | None = None
    symptoms: Annotated[list[Code], Field(max_length=100)] = []
    history: Annotated[list[Code], Field(max_length=100)] = []
    medications: Annotated[list[Code], Field(max_length=100)] = []


class AiAnswer(_Sent):
    """The answer to a question of `next-question`, by its `link_id`."""

    link_id: Code
    value: (
        bool
        | Annotated[int, Field(ge=-(10**12), le=10**12)]
        | Annotated[float, Field(ge=-1e12, le=1e12, allow_inf_nan=False)]
        | Text
        | Annotated[list[Text], Field(max_length=50)]
    )


class AiRequest(_Sent):
    """The request of every endpoint. `case_ref` is a pseudonym; `locale` a BCP 47 tag."""

    request_id: Code
    case_ref: Code
    locale: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]{2,35}$")] = "en"
    model_version: Code | None = None
    images: Annotated[list[AiImage], Field(max_length=MAX_IMAGES)] = []
    context: AiContext = AiContext()
    answers: Annotated[list[AiAnswer], Field(max_length=200)] = []


class AiModel(_Received):
    name: Code
    version: Code


class AiEnvelope(_Received):
    """What every response says of itself. `input_hash` is that of the request."""

    request_id: Code
    model: AiModel
    input_hash: Sha256
    latency_ms: Annotated[float, Field(ge=0, le=3_600_000, allow_inf_nan=False)]
    warnings: Annotated[list[Text], Field(max_length=50)] = []
    abstained: bool = False
    abstain_reason: Text | None = None

    @model_validator(mode="after")
    def _abstains_with_a_reason(self) -> Self:
        if self.abstained and not self.abstain_reason:
            raise ValueError("an abstention needs its abstain_reason")
        return self


class Coding(_Received):
    """A code of a terminology; `system` is its FHIR URI."""

    system: Code
    version: Code | None = None
    code: Code


class Region(_Received):
    """A rectangle on the upright image; 0-1 from its upper left corner."""

    image_id: Code
    x: Share
    y: Share
    width: Share
    height: Share


class Candidate(_Received):
    """One line of the differential; rank 1 is the likeliest."""

    rank: Annotated[int, Field(ge=1, le=50)]
    label: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    codes: Annotated[list[Coding], Field(max_length=20)] = []
    probability: Share
    regions: Annotated[list[Region], Field(max_length=50)] = []


class DiagnosisResponse(AiEnvelope):
    """`calibrated`: whether probabilities are frequencies; `ood_score` 0-1: how unlike the training data, null
    where the model cannot say."""

    differential: Annotated[list[Candidate], Field(max_length=50)]
    calibrated: bool
    ood_score: Share | None = None


class RedFlag(_Received):
    """A danger sign; `unknown` means not asked or not visible, never excluded."""

    code: Code
    label: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    present: Presence
    severity: Urgency
    evidence: Text = ""
    action: Text = ""


class RedFlagsResponse(AiEnvelope):
    flags: Annotated[list[RedFlag], Field(max_length=100)]
    emergency: bool


class TriageResponse(AiEnvelope):
    """`level` and `target_hours` (until a clinician should see it) are null only in an abstention; a higher
    `score` (0-1) is more urgent."""

    level: Urgency | None
    target_hours: Annotated[float, Field(ge=0, le=10_000, allow_inf_nan=False)] | None
    score: Share | None = None
    reasons: Annotated[list[Text], Field(max_length=50)] = []

    @model_validator(mode="after")
    def _decides_or_abstains(self) -> Self:
        if not self.abstained and (self.level is None or self.target_hours is None):
            raise ValueError("level and target_hours are missing without an abstention")
        return self


class ImageIssue(_Received):
    """`error` makes the image invalid, `warning` does not; `hint` tells the photographer what to do."""

    code: IssueCode
    severity: Literal["warning", "error"]
    hint: Text = ""


class ImageValidity(_Received):
    image_id: Code
    valid: bool
    score: Share
    issues: Annotated[list[ImageIssue], Field(max_length=20)] = []


class ImageValidityResponse(AiEnvelope):
    images: Annotated[list[ImageValidity], Field(max_length=MAX_IMAGES)]


class QuestionOption(_Received):
    value: Code
    label: Annotated[str, StringConstraints(min_length=1, max_length=200)]


class Question(_Received):
    """A question in the shape of an HL7 SDC `$next-question` item."""

    link_id: Code
    text: Annotated[str, StringConstraints(min_length=1, max_length=1_000)]
    type: QuestionType
    options: Annotated[list[QuestionOption], Field(max_length=50)] = []
    required: bool = False
    reason: Text = ""


class NextQuestionResponse(AiEnvelope):
    status: Literal["in-progress", "completed"]
    questions: Annotated[list[Question], Field(max_length=20)]
    progress: Share


AiResponse = (
    DiagnosisResponse | RedFlagsResponse | TriageResponse | ImageValidityResponse | NextQuestionResponse
)

RESPONSES: dict[AiEndpoint, type[AiResponse]] = {
    AiEndpoint.DIAGNOSIS: DiagnosisResponse,
    AiEndpoint.RED_FLAGS: RedFlagsResponse,
    AiEndpoint.TRIAGE: TriageResponse,
    AiEndpoint.IMAGE_VALIDITY: ImageValidityResponse,
    AiEndpoint.NEXT_QUESTION: NextQuestionResponse,
}


def input_hash(request: AiRequest) -> str:
    """What determines the answer, as the contract says it above: all but `request_id`, images by their hash.

    How an image travels (`url` or `base64`) does not count, and a member at its default hashes as if absent,
    so that a new optional member leaves old hashes as they were. The order of lists counts.
    """
    content = request.model_dump(
        mode="json",
        exclude={"request_id": True, "images": {"__all__": {"url", "base64"}}},
        exclude_defaults=True,
    )
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()
