"""Who sees which case, and how they stand to it: the row rule, written once, in SQL.

A patient sees the cases of their own record, a referrer or machine client those they opened, a physician what waits in the queue
and what they hold or answered, coordinators and administrators everything. The rest does not exist for them.
The expressions depend on the roles alone; who asks is the bound parameter `subject`. So a statement is built once
for each set of roles, and holds no condition that these roles cannot meet. They are made of the tables' columns,
not of the mapped classes', so that a statement of nothing else goes past the ORM.
"""

from functools import lru_cache
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, and_, bindparam, false, or_, select, true
from sqlalchemy.types import Uuid

from auth.roles import SERVICE
from clinic.cases.errors import CaseNotFound
from clinic.cases.models import Case
from clinic.cases.transitions import Party
from clinic.patients.models import Patient
from clinic.physicians.models import Physician
from core.access import Principal
from core.database import TenantSession

Roles = frozenset[str]

SUBJECT = bindparam("subject", type_=Uuid())
_CASE, _PATIENT, _PHYSICIAN = Case.__table__.c, Patient.__table__.c, Physician.__table__.c
_ME = select(_PHYSICIAN.id).where(_PHYSICIAN.user_id == SUBJECT).scalar_subquery()


def is_owner(roles: Roles) -> ColumnElement[bool]:
    """The case is theirs: as its patient or its referrer."""
    ways: list[ColumnElement[bool]] = [false()]
    if roles & {"referrer", SERVICE}:
        ways.append(_CASE.created_by == SUBJECT)
    if "patient" in roles:
        ways.append(_CASE.patient_id.in_(select(_PATIENT.id).where(_PATIENT.user_id == SUBJECT)))
    return or_(*ways)


def _is_physician(roles: Roles) -> ColumnElement[bool]:
    return _ME.is_not(None) if "physician" in roles else false()


def _is_assignee(roles: Roles) -> ColumnElement[bool]:
    return _CASE.physician_id == _ME if "physician" in roles else false()


def is_mine(roles: Roles) -> ColumnElement[bool]:
    """Their own case: as its patient, its referrer, or the physician who holds it."""
    return or_(is_owner(roles), _is_assignee(roles))


def may_see(roles: Roles) -> ColumnElement[bool]:
    """The row rule."""
    if roles & {"coordinator", "tenant_admin"}:
        return true()
    rules = [is_owner(roles)]
    if "physician" in roles:
        waiting = and_(_CASE.status == "queued", _is_physician(roles))
        rules += [waiting, _CASE.physician_id == _ME, _CASE.answered_by == _ME]
    return or_(*rules)


def standing(roles: Roles) -> tuple[ColumnElement[bool], ...]:
    """Columns to select beside a case, for `parties`."""
    return (
        is_owner(roles).label("is_owner"),
        _is_physician(roles).label("is_physician"),
        _is_assignee(roles).label("is_assignee"),
    )


def parties(
    principal: Principal, is_owner: bool, is_physician: bool, is_assignee: bool | None
) -> frozenset[Party]:
    """How the principal stands to a case, from the columns `standing` selected."""
    found: set[Party] = set()
    if is_owner:
        found.add("owner")
    if is_physician:
        found.add("physician")
    if is_assignee:
        found.add("assignee")
    if "coordinator" in principal.roles:
        found.add("coordinator")
    if "tenant_admin" in principal.roles:
        found.add("tenant_admin")
    return frozenset(found)


@lru_cache(maxsize=256)
def _find(roles: Roles, lock: bool) -> Select[*tuple[Any, ...]]:
    query = select(Case, *standing(roles)).where(
        Case.id == bindparam("case_id", type_=Uuid()), may_see(roles)
    )
    # `key_share`: rows that refer to the case, such as photographs, may still be added meanwhile.
    return query.with_for_update(of=Case, key_share=True) if lock else query


async def find_case(
    session: TenantSession, principal: Principal, case_id: UUID, *, lock: bool = False
) -> tuple[Case, frozenset[Party]]:
    """A case and how the principal stands to it. With `lock` nobody else changes it until the transaction ends.

    Raises `CaseNotFound`, also for a case that is none of the principal's concern.
    """
    row = (
        await session.execute(
            _find(principal.roles, lock),
            {"case_id": case_id, "subject": principal.subject},
            execution_options={"populate_existing": True},
        )
    ).one_or_none()
    if row is None:
        raise CaseNotFound("No such case, or not one you are concerned with.")
    case, *stands = row
    return case, parties(principal, *stands)
