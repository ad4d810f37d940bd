"""Physicians over the wire."""

from datetime import date, datetime
from typing import Annotated, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from clinic.fields import Code, Line, Region, Sent, Storable

Capacity = Annotated[int, Field(ge=0, le=1_000, description="Open cases they take at once.")]


class SpecialtyView(BaseModel):
    """A field of medicine."""

    code: str
    label: str


class Licence(Sent):
    """A licence to practise, valid from the first to the last day, both included. One for a country covers its
    subdivisions."""

    region: Region
    number: Annotated[str, StringConstraints(min_length=1, max_length=64), Storable]
    valid_from: date
    valid_to: date

    @model_validator(mode="after")
    def _ends_after_it_begins(self) -> Self:
        if self.valid_to < self.valid_from:
            raise ValueError("a licence ends on or after the day it begins")
        return self


class NewPhysician(Sent):
    """A user with the role `physician`, to be registered as one who answers cases."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "user_id": "01980000-0000-7000-8000-000000000001",
                "display_name": "Dr Grace Example",
                "specialties": ["dermatology"],
                "licences": [
                    {
                        "region": "DE",
                        "number": "BE-12345",
                        "valid_from": "2020-01-01",
                        "valid_to": "2030-12-31",
                    }
                ],
                "capacity": 20,
            }
        }
    )

    user_id: UUID
    display_name: Line
    specialties: Annotated[list[Code], Field(min_length=1, max_length=20)]
    licences: Annotated[list[Licence], Field(default_factory=list, max_length=50)]
    capacity: Capacity = 20
    available: bool = True

    @model_validator(mode="after")
    def _names_each_once(self) -> Self:
        if len(set(self.specialties)) < len(self.specialties):
            raise ValueError("a specialty is listed twice")
        if len({(licence.region, licence.number) for licence in self.licences}) < len(self.licences):
            raise ValueError("a licence is listed twice")
        return self


class PhysicianChange(Sent):
    """How much a physician takes, and whether at all; what is left out stays."""

    model_config = ConfigDict(json_schema_extra={"example": {"available": False}})

    available: bool | None = None
    capacity: Capacity | None = None


class PhysicianView(BaseModel):
    """A physician. `open_cases` are those they hold now."""

    id: UUID
    user_id: UUID
    display_name: str
    specialties: list[str]
    licences: list[Licence]
    capacity: int
    available: bool
    open_cases: int
    created_at: datetime
    version: int = Field(description="Counts changes; the `ETag` of the registration.")
