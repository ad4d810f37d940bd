"""What the clinic's request schemas are made of: strict models, and text that can be stored.

PostgreSQL text holds neither NUL nor half a surrogate pair, both of which JSON can spell. Pydantic refuses the
second wherever it measures or strips a string, the first is refused here, before either becomes somebody's 500.
"""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints


class Sent(BaseModel):
    """A request body: unknown members are refused, text loses the white space around it."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True, frozen=True)


def _storable(text: str) -> str:
    if "\0" in text:
        raise ValueError("text holds no NUL characters")
    return text


Storable = AfterValidator(_storable)
Line = Annotated[str, StringConstraints(min_length=1, max_length=200), Storable]
Paragraph = Annotated[str, StringConstraints(min_length=1, max_length=2_000), Storable]
Document = Annotated[str, StringConstraints(max_length=20_000), Storable]
Code = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+([_-][a-z0-9]+)*$", max_length=64)]
Locale = Annotated[str, StringConstraints(pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}$")]

# ISO 3166-1 alpha-2, officially assigned.
COUNTRIES = frozenset(
    """
    AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT
    BV BW BY BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH
    ER ES ET FI FJ FK FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT
    HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS
    LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI
    NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW SA SB SC SD SE SG
    SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG
    UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW
    """.split()
)


def _known_country(region: str) -> str:
    if region[:2] not in COUNTRIES:
        raise ValueError("a region begins with a country code of ISO 3166-1")
    return region


Region = Annotated[
    str, StringConstraints(pattern=r"^[A-Z]{2}(-[A-Z0-9]{1,3})?$"), AfterValidator(_known_country)
]
"""A country (`DE`) or one of its subdivisions (`US-CA`), ISO 3166-1 and 3166-2."""
