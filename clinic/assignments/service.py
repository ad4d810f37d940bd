"""Physicians take cases from the queue.

Eligibility is decided inside the claiming transaction. Locks are taken in one order, user, physician, case: the
physician's row, so that their simultaneous claims count each other, then the case's row.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, and_, bindparam, exists, func, or_, select, tuple_
from sqlalchemy.orm import aliased
from sqlalchemy.types import Date, Uuid

from auth.people.models import User
from clinic.assignments.errors import NotEligible, NothingToClaim
from clinic.assignments.models import Assignment, Pool, PoolMember
from clinic.cases.lifecycle import transit
from clinic.cases.models import Case
from clinic.cases.service import SUMMARY
from clinic.cases.visibility import find_case
from clinic.physicians.models import Physician, PhysicianLicence, PhysicianSpecialty
from core.access import Principal
from core.clock import utcnow
from core.database import TenantSession
from core.versions import check_version

_PHYSICIAN = bindparam("physician_id", type_=Uuid())
_TODAY = bindparam("today", type_=Date())

# What must hold between a physician and a case, by the name it has in `NotEligible.failed`.
CONDITIONS: dict[str, ColumnElement[bool]] = {
    "specialty": exists().where(
        PhysicianSpecialty.physician_id == _PHYSICIAN, PhysicianSpecialty.specialty == Case.specialty
    ),
    "licence": exists().where(
        PhysicianLicence.physician_id == _PHYSICIAN,
        # A licence for a country covers its subdivisions.
        or_(
            PhysicianLicence.region == Case.region,
            PhysicianLicence.region == func.split_part(Case.region, "-", 1),
        ),
        _TODAY.between(PhysicianLicence.valid_from, PhysicianLicence.valid_to),
    ),
    "pool": or_(
        exists().where(Pool.id == Case.pool_id, Pool.kind == "shared"),
        exists().where(PoolMember.pool_id == Case.pool_id, PoolMember.physician_id == _PHYSICIAN),
    ),
}
EXPLANATIONS = {
    "registration": "you are not registered as a physician",
    "availability": "you are marked as not available",
    "capacity": "you hold as many cases as your capacity allows",
    "specialty": "the case is for a specialty you are not registered for",
    "licence": "you have no licence that is valid today where the patient is",
    "pool": "the case waits in a private pool you are not a member of",
}
_DECLINED = exists().where(
    Assignment.case_id == Case.id,
    Assignment.physician_id == _PHYSICIAN,
    Assignment.end_reason == "declined",
)
_WAITING = and_(Case.status == "queued", *CONDITIONS.values())


def _refusal(failed: Sequence[str]) -> NotEligible:
    return NotEligible(f"Not possible: {'; '.join(EXPLANATIONS[name] for name in failed)}.", failed=failed)


async def _lock_claimer(session: TenantSession, principal: Principal) -> tuple[Physician, list[str]]:
    """The principal's own physician row, locked, and which conditions on the physician alone fail."""
    # A deactivation waits for claims under way, whose cases are then handed back; none begins after it.
    active = select(User.id).where(User.id == principal.subject, User.active).with_for_update(read=True)
    user_id = await session.scalar(active)
    me = await session.scalar(
        select(Physician).where(Physician.user_id == user_id).with_for_update(key_share=True)
    )
    if me is None:
        raise _refusal(["registration"])
    held = await session.scalar(
        select(func.count()).where(Assignment.physician_id == me.id, Assignment.ended_at.is_(None))
    )
    failed = [] if me.available else ["availability"]
    if (held or 0) >= me.capacity:
        failed.append("capacity")
    return me, failed


def _bound(physician_id: UUID) -> dict[str, Any]:
    return {"physician_id": physician_id, "today": utcnow().date()}


async def _assign(session: TenantSession, principal: Principal, case: Case, physician: Physician) -> None:
    case.physician_id = physician.id
    await transit(session, principal, case, "claim")
    session.add(Assignment(case_id=case.id, physician_id=physician.id))
    await session.flush()


async def claim_next(session: TenantSession, principal: Principal, specialty: str | None) -> UUID:
    """Take the most urgent, then oldest case one may take and has not declined before.

    Cases that others are taking at this moment are passed over. Raises `NotEligible`, `NothingToClaim`.
    """
    me, failed = await _lock_claimer(session, principal)
    if failed:
        raise _refusal(failed)
    query = (
        select(Case)
        .where(_WAITING, ~_DECLINED)
        .order_by(Case.urgency, Case.id)
        .limit(1)
        .with_for_update(of=Case, key_share=True, skip_locked=True)
    )
    if specialty is not None:
        query = query.where(Case.specialty == specialty)
    case = await session.scalar(query, _bound(me.id))
    if case is None:
        raise NothingToClaim("Nothing waits that you may take; ask again later.")
    await _assign(session, principal, case, me)
    return case.id


async def claim_case(session: TenantSession, principal: Principal, case_id: UUID, seen: int) -> None:
    """Take this case. Raises `CaseNotFound`, `Stale`, `WrongStatus`, and `NotEligible` with all that fails."""
    await find_case(session, principal, case_id)
    me, failed = await _lock_claimer(session, principal)
    # Without the row rule: who loses a race for a case they saw is told so, not that it never existed.
    case, *holds = (
        await session.execute(
            select(Case, *CONDITIONS.values())
            .where(Case.id == case_id)
            .with_for_update(of=Case, key_share=True)
            .execution_options(populate_existing=True),
            _bound(me.id),
        )
    ).one()
    check_version(case.version, seen)
    if case.status == "queued":
        failed += [name for name, held in zip(CONDITIONS, holds, strict=True) if not held]
        if failed:
            raise _refusal(failed)
    await _assign(session, principal, case, me)


async def list_queue(
    session: TenantSession, principal: Principal, limit: int, after: UUID | None
) -> Sequence[Row[Any]]:
    """At most `limit` cases behind the case `after` that the principal's specialties, licences and pools let them
    take, most urgent and then oldest first, as rows of `CaseSummary`. Raises `NotEligible`."""
    physician_id = await session.scalar(select(Physician.id).where(Physician.user_id == principal.subject))
    if physician_id is None:
        raise _refusal(["registration"])
    query = select(*SUMMARY).where(_WAITING).order_by(Case.urgency, Case.id).limit(limit)
    if after is not None:
        # The cursor names a case; where it stands in the queue is asked of its row, even once it was taken.
        last = aliased(Case)
        place = select(last.urgency, last.id).where(last.id == after).scalar_subquery()
        query = query.where(tuple_(Case.urgency, Case.id) > place)
    return (await session.execute(query, _bound(physician_id))).all()
