"""What moves a case along: one verb for each action of `transitions.py`.

Every verb locks the case, checks that the principal may act, that they saw the present version and that the status
allows it, and writes the event and the audit row in the same transaction. Claiming is in `assignments/service.py`.
All raise `CaseNotFound`, `NotYourPart`, `Stale` and `WrongStatus`.
"""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import exists, select, text, update

from auth.people.models import User
from clinic.ai.models import AiPipeline, AiResult
from clinic.assignments.models import Assignment, Pool
from clinic.cases.errors import ImageMissing, NoAiTriage, NotYourPart, UnknownPool
from clinic.cases.models import LEVELS, Case, CaseEvent, Consent
from clinic.cases.schemas import Answer, Placement, Submission, Triage
from clinic.cases.transitions import DONE_BY, OVER, RELEASABLE, apply
from clinic.cases.visibility import find_case
from clinic.images.models import Image
from clinic.physicians.models import Physician
from clinic.physicians.service import check_specialties
from core.access import Principal
from core.ai_contract import TriageResponse
from core.clock import utcnow
from core.database import Database, TenantScope, TenantSession
from core.versions import check_version
from tenants.audit.service import audit

# Hours from submission until a physician's answer is due.
TARGET_HOURS = {"emergency": 1, "urgent": 24, "soon": 72, "routine": 168}

_RING = text("SELECT doorbell.ring('ai-pipeline', now())")


async def _lock(session: TenantSession, principal: Principal, case_id: UUID, seen: int, action: str) -> Case:
    case, stands = await find_case(session, principal, case_id, lock=True)
    if stands.isdisjoint(DONE_BY[action]):
        raise NotYourPart(f"To {action} a case is for: {', '.join(sorted(DONE_BY[action]))}.", action=action)
    check_version(case.version, seen)
    return case


async def transit(
    session: TenantSession,
    principal: Principal | None,
    case: Case,
    action: str,
    reason: str | None = None,
    **detail: Any,
) -> None:
    """Apply `action` to a locked case, write what happened, and flush, all as one new version of the case: what
    else changes in it is set before. No principal: the system acts. Raises `WrongStatus`."""
    before, after = apply(case, action)
    session.add(
        CaseEvent(
            case_id=case.id,
            action=action,
            from_status=before,
            to_status=after,
            actor=principal.subject if principal else None,
            reason=reason,
            detail=detail,
        )
    )
    audit(session, principal, f"case.{action}", case.id, from_status=before, to_status=after)
    await session.flush()


async def _end_assignments(session: TenantSession, case: Case, reason: str) -> None:
    await session.execute(
        update(Assignment)
        .where(Assignment.case_id == case.id, Assignment.ended_at.is_(None))
        .values(ended_at=utcnow(), end_reason=reason, version=Assignment.version + 1)
        .execution_options(synchronize_session=False)
    )


async def submit(
    session: TenantSession, principal: Principal, case_id: UUID, seen: int, submission: Submission
) -> None:
    """Hand a draft in, with the patient's consent, and have the AI Service asked about it in the background. Raises
    `ImageMissing` too."""
    case = await _lock(session, principal, case_id, seen, "submit")
    if not await session.scalar(select(exists().where(Image.case_id == case.id, Image.status == "stored"))):
        raise ImageMissing("Add at least one photograph before you submit the case.")
    case.submitted_at = utcnow()
    session.add(
        Consent(
            case_id=case.id,
            patient_id=case.patient_id,
            wording=submission.consent.wording,
            recorded_by=principal.subject,
        )
    )
    await transit(session, principal, case, "submit")
    session.add(AiPipeline(case_id=case.id))
    await session.flush()
    await session.execute(_RING)


async def _ai_level(session: TenantSession, case: Case) -> str | None:
    """The level of the AI Service's latest triage of the case, None where there is none or it abstained."""
    response = await session.scalar(
        select(AiResult.response)
        .where(AiResult.case_id == case.id, AiResult.endpoint == "triage")
        .order_by(AiResult.id.desc())
        .limit(1)
    )
    return None if response is None else TriageResponse.model_validate(response).level


async def triage(
    session: TenantSession, principal: Principal, case_id: UUID, seen: int, said: Triage
) -> None:
    """Set how urgent a case is. The AI Service may raise what a coordinator says, never lower it, and a case
    marked as an emergency stays one. Raises `NoAiTriage` too."""
    case = await _lock(session, principal, case_id, seen, "triage")
    opinions: list[tuple[str, str]] = []
    if said.level is not None:
        opinions.append((said.level, "coordinator"))
    if ai_level := await _ai_level(session, case):
        opinions.append((ai_level, "ai"))
    elif said.source == "ai":
        raise NoAiTriage("Ask it first, or give a level and reasons yourself.")
    await _set_level(session, principal, case, opinions, said.reasons)


async def _set_level(
    session: TenantSession,
    principal: Principal | None,
    case: Case,
    opinions: list[tuple[str, str]],
    reasons: list[str],
) -> None:
    if case.emergency:
        opinions = [*opinions, ("emergency", "red_flags")]
    level, source = min(opinions, key=lambda opinion: LEVELS.index(opinion[0]))
    case.triage_level, case.triage_source = level, source
    case.urgency = LEVELS.index(level)
    case.emergency = level == "emergency"
    await transit(session, principal, case, "triage", level=level, source=source, reasons=reasons)


def _due_at(case: Case) -> datetime:
    return (case.submitted_at or utcnow()) + timedelta(hours=TARGET_HOURS[case.triage_level or "routine"])


async def triage_by_ai(session: TenantSession, case_id: UUID, level: str) -> None:
    """What the AI Service's level does to a case without anybody's doing: one that waits for triage is triaged; one
    that a coordinator has triaged meanwhile is raised if it is more urgent than they said; one that is answered or
    withdrawn stays as it is."""
    case = await session.get_one(Case, case_id, with_for_update={"key_share": True}, populate_existing=True)
    if case.status == "submitted":
        await _set_level(session, None, case, [(level, "ai")], [])
    elif case.status not in OVER and LEVELS.index(level) < case.urgency:
        case.triage_level, case.triage_source = level, "ai"
        case.urgency, case.emergency = LEVELS.index(level), level == "emergency"
        if case.due_at is not None:
            case.due_at = min(case.due_at, _due_at(case))
        audit(session, None, "case.urgency_raised", case_id, level=level)


async def enqueue(
    session: TenantSession, principal: Principal, case_id: UUID, seen: int, placement: Placement
) -> None:
    """Put a triaged case where physicians find it. Raises `UnknownSpecialty` and `UnknownPool` too."""
    case = await _lock(session, principal, case_id, seen, "enqueue")
    await check_specialties(session, [placement.specialty])
    pool_id = await session.scalar(select(Pool.id).where(Pool.code == placement.pool))
    if pool_id is None:
        raise UnknownPool(f"No pool has the code `{placement.pool}`.")
    case.specialty, case.pool_id = placement.specialty, pool_id
    case.due_at = _due_at(case)
    await transit(session, principal, case, "enqueue", specialty=placement.specialty, pool=placement.pool)


async def start(session: TenantSession, principal: Principal, case_id: UUID, seen: int) -> None:
    """Begin to look at a case one holds."""
    case = await _lock(session, principal, case_id, seen, "start")
    await transit(session, principal, case, "start")
    await session.execute(
        update(Assignment)
        .where(Assignment.case_id == case.id, Assignment.ended_at.is_(None))
        .values(started_at=utcnow(), version=Assignment.version + 1)
        .execution_options(synchronize_session=False)
    )


async def decline(
    session: TenantSession, principal: Principal, case_id: UUID, seen: int, reason: str
) -> None:
    """Give a case back to its queue."""
    case = await _lock(session, principal, case_id, seen, "decline")
    case.physician_id = None
    await transit(session, principal, case, "decline", reason)
    await _end_assignments(session, case, "declined")


async def release_abandoned(database: Database, tenant: TenantScope) -> None:
    """Give the cases of deactivated physicians back to their queues, each in a transaction of its own: the handler of
    the doorbell kind `user-deactivated`. What a crash leaves undone, the next call finds."""
    abandoned = (
        select(Case)
        .join(Physician, Physician.id == Case.physician_id)
        .join(User, User.id == Physician.user_id)
        .where(~User.active, Case.status.in_(RELEASABLE))
        .limit(1)
        .with_for_update(of=Case, key_share=True)
    )
    while True:
        async with database.tenant(tenant) as session:
            case = await session.scalar(abandoned)
            if case is None:
                return
            case.physician_id = None
            await transit(session, None, case, "release", "physician-deactivated")
            await _end_assignments(session, case, "deactivated")


async def answer(
    session: TenantSession, principal: Principal, case_id: UUID, seen: int, given: Answer
) -> None:
    """Answer a case one holds, which ends the assignment."""
    case = await _lock(session, principal, case_id, seen, "answer")
    case.outcome, case.findings, case.answer = given.outcome, given.findings, given.text
    case.answered_by, case.answered_at = case.physician_id, utcnow()
    await transit(session, principal, case, "answer")
    await _end_assignments(session, case, "answered")


async def close(session: TenantSession, principal: Principal, case_id: UUID, seen: int) -> None:
    """Accept the answer."""
    case = await _lock(session, principal, case_id, seen, "close")
    await transit(session, principal, case, "close")


async def cancel(session: TenantSession, principal: Principal, case_id: UUID, seen: int, reason: str) -> None:
    """Withdraw a case that was not answered yet."""
    case = await _lock(session, principal, case_id, seen, "cancel")
    await transit(session, principal, case, "cancel", reason)
    await _end_assignments(session, case, "cancelled")
