"""Reports over the wire."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from clinic.fields import Sent
from clinic.reports.wording import Locale


class ReportRequest(Sent):
    """`locale` is the report's language; the case's own, or English, if none is named."""

    model_config = ConfigDict(json_schema_extra={"example": {"locale": "de"}})

    locale: Locale | None = None


class ReportOut(BaseModel):
    """One issue of a case's report; the PDF is at `GET /v1/reports/{id}/pdf`."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    case_id: UUID
    case_version: int = Field(description="The version of the case that it tells of.")
    locale: Locale
    created_by: UUID
    created_at: datetime
    sha256: str = Field(description="SHA-256 of the PDF.")
    size: int = Field(description="Bytes of the PDF.")
    signature: str = Field(
        description="JWS (RFC 7515) of type `dermadetect-report+jws` by a key of `/.well-known/jwks.json` over "
        "the report's id and time, the case's reference, and the hashes of the PDF and of the signed answer."
    )
    supersedes: UUID | None


class Verification(BaseModel):
    """What anybody who holds a report may know: that it is genuine, whose, when, and whether another superseded it."""

    status: Literal["genuine"] = "genuine"
    organisation: str
    issued_at: datetime
    superseded: bool
    sha256: str = Field(description="SHA-256 of the PDF as it was issued.")
    content_sha256: str = Field(
        description="SHA-256 of the physician's signed answer, as printed in the report."
    )
