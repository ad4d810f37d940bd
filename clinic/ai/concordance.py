"""How often physicians agree with the AI Service, by model and skin type."""

import math
from datetime import date

from sqlalchemy import Date, cast, func, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import aliased

from clinic.ai.models import AiFeedback, AiResult
from clinic.ai.schemas import Agreement
from clinic.cases.models import Case
from core.database import TenantSession

Z95 = 1.959964  # the normal distribution's quantile for 95 %, two-sided

_Later = aliased(AiFeedback)


async def agreement(
    session: TenantSession, since: date | None = None, until: date | None = None
) -> list[Agreement]:
    """The tenant's verdicts that stand, counted by endpoint, model, version and Fitzpatrick type; with `since` and
    `until` those given on these days or between them (UTC).

    A physician's verdict on an item counts once, also where the same question was asked and judged again. No row
    names a patient or a physician.
    """
    same_item = (
        AiResult.endpoint,
        AiResult.model_name,
        AiResult.model_version,
        AiResult.input_hash,
        AiFeedback.physician_id,
        AiFeedback.item,
    )
    standing = (
        select(*same_item, AiFeedback.verdict, Case.id.label("case_id"), Case.fitzpatrick)
        .join_from(AiFeedback, AiResult, AiResult.id == AiFeedback.result_id)
        .join(Case, Case.id == AiResult.case_id)
        .outerjoin(_Later, _Later.supersedes == AiFeedback.id)
        .where(_Later.id.is_(None))
        .ext(distinct_on(*same_item))
        .order_by(*same_item, AiFeedback.id.desc())
    )
    day = cast(func.timezone("UTC", AiFeedback.created_at), Date)
    if since is not None:
        standing = standing.where(day >= since)
    if until is not None:
        standing = standing.where(day <= until)
    verdict = standing.subquery().c
    group = (verdict.endpoint, verdict.model_name, verdict.model_version, verdict.fitzpatrick)
    rows = await session.execute(
        select(
            *group,
            func.count(verdict.case_id.distinct()).label("cases"),
            func.count().label("judged"),
            func.count().filter(verdict.verdict == "accepted").label("accepted"),
        )
        .group_by(*group)
        .order_by(*group)
    )
    return [_with_share(**row._mapping) for row in rows]


def wilson(accepted: int, judged: int) -> tuple[float, float]:
    """The 95 % score interval of a share (E. B. Wilson, Probable inference, the law of succession, and statistical
    inference. J. Am. Stat. Assoc. 1927;22(158):209-212). Unlike the share ± its standard error it stays within 0 to 1
    and says something of small groups. `judged` is at least 1."""
    share, weight = accepted / judged, Z95**2 / judged
    centre = share + weight / 2
    margin = Z95 * math.sqrt(share * (1 - share) / judged + weight / judged / 4)
    return max(0.0, (centre - margin) / (1 + weight)), min(1.0, (centre + margin) / (1 + weight))


def _with_share(*, accepted: int, judged: int, **group: object) -> Agreement:
    low, high = wilson(accepted, judged)
    return Agreement.model_validate(
        group
        | {
            "judged": judged,
            "accepted": accepted,
            "overridden": judged - accepted,
            "share": round(accepted / judged, 4),
            "low": round(low, 4),
            "high": round(high, 4),
        }
    )
