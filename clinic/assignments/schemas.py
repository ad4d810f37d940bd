"""Claims over the wire."""

from pydantic import ConfigDict

from clinic.fields import Code, Sent


class Claim(Sent):
    """From which of your specialties; from all when left out."""

    model_config = ConfigDict(json_schema_extra={"example": {"specialty": "dermatology"}})

    specialty: Code | None = None
