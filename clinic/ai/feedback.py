"""Verbs on what physicians make of the AI Service's answers. A verdict is never edited: the physician's next one on
the same item supersedes it, and both stay, with their reasons."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, select
from sqlalchemy.orm import aliased

from clinic.ai.errors import AiItemUnknown, AiResultNotFound
from clinic.ai.models import AiFeedback, AiResult
from clinic.ai.schemas import NewFeedback
from clinic.cases.errors import NotYourPart, WrongStatus
from clinic.cases.visibility import find_case
from core.access import Principal
from core.ai_contract import (
    RESPONSES,
    AiEndpoint,
    DiagnosisResponse,
    ImageValidityResponse,
    NextQuestionResponse,
    RedFlagsResponse,
)
from core.database import TenantSession
from tenants.audit.service import audit

_REVIEWED = ("in_review", "answered")
_Later = aliased(AiFeedback)


def _view() -> Select[*tuple[Any, ...]]:
    return select(
        AiFeedback.id,
        AiFeedback.result_id,
        AiFeedback.physician_id,
        AiFeedback.item,
        AiFeedback.verdict,
        AiFeedback.reason,
        AiFeedback.supersedes,
        _Later.id.label("superseded_by"),
        AiFeedback.created_at,
    ).outerjoin(_Later, _Later.supersedes == AiFeedback.id)


async def give_feedback(
    session: TenantSession, principal: Principal, case_id: UUID, result_id: UUID, new: NewFeedback
) -> UUID:
    """Record the verdict of the physician who holds the case; it supersedes their earlier one on that item.

    Raises `CaseNotFound`, `NotYourPart`, `WrongStatus`, `AiResultNotFound`, `AiItemUnknown`.
    """
    # The lock orders two verdicts on one item.
    case, stands = await find_case(session, principal, case_id, lock=True)
    if "assignee" not in stands:
        raise NotYourPart(
            "The physician who holds the case judges the AI Service's answers.", action="feedback"
        )
    if case.status not in _REVIEWED:
        raise WrongStatus(
            "Answers of the AI Service are judged while the case is in review, and once it is answered.",
            case_status=case.status,
            action="feedback",
        )
    assert case.physician_id is not None  # the assignee is who it names
    result = await _find_result(session, case_id, result_id)
    items = items_of(result)
    if new.item not in [item.strip() for item in items]:  # as requests lose the white space around text
        raise AiItemUnknown("Name one of `items`.", items=items)
    standing = (
        await session.execute(
            _view().where(
                AiFeedback.result_id == result_id,
                AiFeedback.physician_id == case.physician_id,
                AiFeedback.item == new.item,
                _Later.id.is_(None),
            )
        )
    ).one_or_none()
    if standing is not None and (standing.verdict, standing.reason) == (new.verdict, new.reason):
        standing_id: UUID = standing.id
        return standing_id
    feedback = AiFeedback(
        result_id=result_id,
        physician_id=case.physician_id,
        item=new.item,
        verdict=new.verdict,
        reason=new.reason,
        supersedes=standing.id if standing else None,
    )
    session.add(feedback)
    await session.flush()
    audit(session, principal, "ai.feedback", feedback.id, result_id=str(result_id), verdict=new.verdict)
    return feedback.id


async def read_feedback(session: TenantSession, feedback_id: UUID) -> Row[Any]:
    """A row of `FeedbackOut`, for someone who may see its case."""
    row: Row[Any] = (await session.execute(_view().where(AiFeedback.id == feedback_id))).one()
    return row


async def list_feedback(
    session: TenantSession,
    principal: Principal,
    case_id: UUID,
    result_id: UUID,
    limit: int,
    after: UUID | None,
    *,
    current: bool,
) -> Sequence[Row[Any]]:
    """At most `limit` verdicts on an answer before the one `after`, newest first; with `current` those that stand.

    Raises `CaseNotFound`, `AiResultNotFound`.
    """
    await find_case(session, principal, case_id)
    audit(session, principal, "case.read", case_id, part="ai-feedback")
    await _find_result(session, case_id, result_id)
    query = _view().where(AiFeedback.result_id == result_id)
    if current:
        query = query.where(_Later.id.is_(None))
    if after is not None:
        query = query.where(AiFeedback.id < after)
    rows: Sequence[Row[Any]] = (
        await session.execute(query.order_by(AiFeedback.id.desc()).limit(limit))
    ).all()
    return rows


def items_of(result: AiResult) -> list[str]:
    """What of an answer can be judged, by the names that `NewFeedback.item` takes."""
    response = RESPONSES[AiEndpoint(result.endpoint)].model_validate(result.response)
    match response:
        case DiagnosisResponse():
            return [candidate.label for candidate in response.differential]
        case RedFlagsResponse():
            return [flag.code for flag in response.flags]
        case ImageValidityResponse():
            return [image.image_id for image in response.images]
        case NextQuestionResponse():
            return [question.link_id for question in response.questions]
        case _:
            return ["level"]


async def _find_result(session: TenantSession, case_id: UUID, result_id: UUID) -> AiResult:
    result = await session.scalar(
        select(AiResult).where(AiResult.id == result_id, AiResult.case_id == case_id)
    )
    if result is None:
        raise AiResultNotFound("Check the id; `GET /v1/cases/{case_id}/ai-results` lists them.")
    return result
