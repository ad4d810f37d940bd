"""Patients over the wire."""

from datetime import date, datetime, timedelta
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from clinic.fields import Line, Sent, Storable
from core.clock import utcnow

Sex = Literal["female", "male", "other", "unknown"]  # FHIR administrative gender


def _born(day: date) -> date:
    # The day is the patient's own, and the first of their clocks runs 14 hours ahead of ours.
    if not date(1890, 1, 1) <= day <= (utcnow() + timedelta(hours=14)).date():
        raise ValueError("a birth date lies between 1890 and today")
    return day


BirthDate = Annotated[date, AfterValidator(_born)]


class Contact(Sent):
    """How to reach the patient; kept as given, never verified."""

    email: (
        Annotated[str, StringConstraints(pattern=r"^[^@\s]+@[^@\s]+$", max_length=254), Storable] | None
    ) = None
    phone: Annotated[str, StringConstraints(pattern=r"^\+?[0-9 ()/.-]{4,32}$")] | None = None


class NewPatient(Sent):
    """A patient to be recorded."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "name": "Ada Example",
                "birth_date": "1984-05-17",
                "sex": "female",
                "contact": {"phone": "+49 30 1234567"},
            }
        }
    )

    name: Line
    birth_date: BirthDate
    sex: Sex
    contact: Contact | None = None


class Identity(BaseModel):
    """What names a patient: the part of the record that is encrypted with the patient's own key."""

    name: str
    birth_date: date
    contact: Contact | None = None


class PatientView(Identity):
    """A patient. `user_id` is set on the record of a patient who signs in themselves."""

    id: UUID
    sex: Sex
    user_id: UUID | None
    created_at: datetime
    version: int = Field(description="Counts changes; the `ETag` of the record.")
