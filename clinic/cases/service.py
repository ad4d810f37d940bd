"""Opening, reading and changing cases. What moves a case along is in `lifecycle.py`."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, bindparam, select
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import Uuid

from auth.keys.service import DataKey
from clinic.cases.errors import CaseNotFound, NotYourPart, WrongStatus
from clinic.cases.models import Case, CaseEvent
from clinic.cases.schemas import CaseChange, CaseSummary, CaseView, NewCase
from clinic.cases.transitions import allowed_actions
from clinic.cases.visibility import Roles, find_case, is_mine, may_see, parties, standing
from clinic.patients.models import Patient
from clinic.patients.service import create_patient, find_patient
from core.access import Principal
from core.database import Database, TenantSession
from core.versions import check_version
from tenants.audit.service import audit, audited, fetch_audited

_CROCKFORD = (
    "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # base 32 without I, L, O and U, which are misread or misheard
)


def new_reference() -> str:
    """A code such as `D-7K3M9QXA`, one of 32⁸: in a tenant of a million cases one in a million collides, and is
    refused by the database."""
    return "D-" + "".join(secrets.choice(_CROCKFORD) for _ in range(8))


async def create_case(session: TenantSession, principal: Principal, key: DataKey, new: NewCase) -> UUID:
    """Open a draft. `key` wraps the key of a patient given inline.

    Raises `PatientNotFound`, and `PatientExists` where a patient who has a record sends another.
    """
    if new.patient is not None:
        patient = await create_patient(session, principal, key, new.patient)
    else:
        assert new.patient_id is not None
        patient = await find_patient(session, principal, new.patient_id)
    case = Case(
        reference=new_reference(),
        patient_id=patient.id,
        created_by=principal.subject,
        **new.model_dump(exclude={"patient", "patient_id"}),
    )
    session.add(case)
    await session.flush()
    audit(session, principal, "case.create", case.id)
    return case.id


_CASE, _PATIENT = Case.__table__.c, Patient.__table__.c
SUMMARY = [_CASE[name] for name in CaseSummary.model_fields]
_VIEW = [_CASE[name] for name in CaseView.model_fields if name in _CASE]


@lru_cache(maxsize=256)
def _show(roles: Roles) -> Select[*tuple[Any, ...]]:
    return (
        select(
            *_VIEW,
            _PATIENT.sex.label("patient_sex"),
            _PATIENT.birth_year.label("patient_birth_year"),
            *standing(roles),
        )
        .join_from(Case.__table__, Patient.__table__, _PATIENT.id == _CASE.patient_id)
        .where(_CASE.id == bindparam("case_id", type_=Uuid()), may_see(roles))
    )


@lru_cache(maxsize=256)
def _read(roles: Roles) -> SQLCompiler:
    return audited(_show(roles), "case.read")


async def read_case(database: Database, principal: Principal, case_id: UUID) -> CaseView:
    """One case, for reading: the most frequent verb there is. One statement holds the row rule and audits.

    Raises `CaseNotFound`.
    """
    async with database.statements(principal.tenant) as statements:
        found = await fetch_audited(
            statements, principal, _read(principal.roles), {"case_id": case_id, "subject": principal.subject}
        )
    return _view(principal, found)


async def show_case(session: TenantSession, principal: Principal, case_id: UUID) -> CaseView:
    """One case as an audited act of the principal has left it. Raises `CaseNotFound`."""
    # The session would load each column as an attribute of an entity; its connection knows only rows.
    connection = await session.connection()
    result = await connection.execute(
        _show(principal.roles), {"case_id": case_id, "subject": principal.subject}
    )
    return _view(principal, result.mappings().one_or_none())


def _view(principal: Principal, found: Mapping[Any, Any] | None) -> CaseView:
    """Trusts the types that the table's own constraints guarantee instead of validating them again."""
    if found is None:
        raise CaseNotFound("No such case, or not one you are concerned with.")
    case = dict(found)
    stands = parties(principal, case.pop("is_owner"), case.pop("is_physician"), case.pop("is_assignee"))
    return CaseView.model_construct(
        **case, allowed_actions=allowed_actions(case["status"], stands, principal.scopes)
    )


@dataclass(frozen=True)
class CaseFilter:
    """Which cases to list; None means any."""

    status: str | None = None
    specialty: str | None = None
    emergency: bool | None = None
    mine: bool = False


async def list_cases(
    session: TenantSession, principal: Principal, wanted: CaseFilter, limit: int, after: UUID | None
) -> Sequence[Row[Any]]:
    """At most `limit` visible cases opened before the case `after`, newest first, as rows of `CaseSummary`."""
    query = select(*SUMMARY).where(may_see(principal.roles)).order_by(Case.id.desc()).limit(limit)
    if wanted.status is not None:
        query = query.where(Case.status == wanted.status)
    if wanted.specialty is not None:
        query = query.where(Case.specialty == wanted.specialty)
    if wanted.emergency is not None:
        query = query.where(Case.emergency.is_(wanted.emergency))
    if wanted.mine:
        query = query.where(is_mine(principal.roles))
    if after is not None:
        query = query.where(Case.id < after)
    found = (await session.execute(query, {"subject": principal.subject})).all()
    audit(session, principal, "case.list", count=len(found))
    return found


async def list_events(
    session: TenantSession, principal: Principal, case_id: UUID, limit: int, after: UUID | None
) -> Sequence[Row[Any]]:
    """At most `limit` transitions of a case before the event `after`, newest first. Raises `CaseNotFound`."""
    await find_case(session, principal, case_id)
    audit(session, principal, "case.read", case_id, part="events")
    query = (
        select(
            CaseEvent.id,
            CaseEvent.created_at,
            CaseEvent.action,
            CaseEvent.from_status,
            CaseEvent.to_status,
            CaseEvent.actor,
            CaseEvent.reason,
            CaseEvent.detail,
        )
        .where(CaseEvent.case_id == case_id)
        .order_by(CaseEvent.id.desc())
        .limit(limit)
    )
    if after is not None:
        query = query.where(CaseEvent.id < after)
    return (await session.execute(query)).all()


async def change_case(
    session: TenantSession, principal: Principal, case_id: UUID, seen: int, change: CaseChange
) -> None:
    """Change a draft. Raises `CaseNotFound`, `NotYourPart`, `Stale`, `WrongStatus`."""
    case, stands = await find_case(session, principal, case_id, lock=True)
    if "owner" not in stands:
        raise NotYourPart("Its patient or referrer changes a draft.", action="change")
    check_version(case.version, seen)
    if case.status != "draft":
        raise WrongStatus(
            "Only a draft can be changed; what was submitted stays as it was.",
            case_status=case.status,
            action="change",
        )
    changed = change.model_dump(exclude_unset=True)
    for name, value in changed.items():
        setattr(case, name, value)
    audit(session, principal, "case.change", case.id, fields=sorted(changed))
    await session.flush()
