"""Verbs on physicians and specialties."""

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from sqlalchemy import Row, func, select
from sqlalchemy.dialects.postgresql import aggregate_order_by

from auth.people.models import User
from clinic.assignments.models import Assignment
from clinic.physicians.errors import NotAPhysician, PhysicianExists, PhysicianNotFound, UnknownSpecialty
from clinic.physicians.models import Physician, PhysicianLicence, PhysicianSpecialty, Specialty
from clinic.physicians.schemas import NewPhysician, PhysicianChange, PhysicianView, SpecialtyView
from core.access import Principal
from core.database import TenantSession
from core.versions import check_version
from tenants.audit.service import audit

_SPECIALTIES = (
    select(func.jsonb_agg(aggregate_order_by(PhysicianSpecialty.specialty, PhysicianSpecialty.specialty)))
    .where(PhysicianSpecialty.physician_id == Physician.id)
    .scalar_subquery()
)
_LICENCES = (
    select(
        func.jsonb_agg(
            aggregate_order_by(
                func.jsonb_build_object(
                    "region", PhysicianLicence.region,
                    "number", PhysicianLicence.number,
                    "valid_from", PhysicianLicence.valid_from,
                    "valid_to", PhysicianLicence.valid_to,
                ),
                PhysicianLicence.region,
                PhysicianLicence.number,
            )
        )
    )
    .where(PhysicianLicence.physician_id == Physician.id)
    .scalar_subquery()
)  # fmt: skip
_OPEN_CASES = (
    select(func.count())
    .where(Assignment.physician_id == Physician.id, Assignment.ended_at.is_(None))
    .scalar_subquery()
)
_VIEW = select(
    Physician.id,
    Physician.user_id,
    Physician.display_name,
    Physician.capacity,
    Physician.available,
    Physician.created_at,
    Physician.version,
    _SPECIALTIES.label("specialties"),
    _LICENCES.label("licences"),
    _OPEN_CASES.label("open_cases"),
)


def _view(row: Row[Any]) -> PhysicianView:
    fields = dict(row._mapping)
    return PhysicianView(**fields | {name: fields[name] or [] for name in ("specialties", "licences")})


async def list_specialties(session: TenantSession) -> list[SpecialtyView]:
    """All fields of medicine the tenant works in, by code."""
    rows = await session.execute(select(Specialty.code, Specialty.label).order_by(Specialty.code))
    return [SpecialtyView(code=row.code, label=row.label) for row in rows]


async def check_specialties(session: TenantSession, wanted: Iterable[str]) -> None:
    """Raises `UnknownSpecialty`, naming those there are."""
    known = {specialty.code for specialty in await list_specialties(session)}
    if unknown := sorted(set(wanted) - known):
        raise UnknownSpecialty(f"Not known: {', '.join(unknown)}; there are {', '.join(sorted(known))}.")


async def register_physician(session: TenantSession, principal: Principal, new: NewPhysician) -> UUID:
    """Register a user as a physician. Raises `NotAPhysician`, `PhysicianExists`, `UnknownSpecialty`."""
    await check_specialties(session, new.specialties)
    # The lock makes a second registration of the same user wait, and then find the first.
    user = await session.scalar(select(User).where(User.id == new.user_id).with_for_update(key_share=True))
    if user is None or not user.active or "physician" not in user.roles:
        raise NotAPhysician("`user_id` must name an active user who signed in with the role `physician`.")
    present = await session.scalar(select(Physician.id).where(Physician.user_id == user.id))
    if present is not None:
        raise PhysicianExists("Change that registration instead.", physician_id=str(present))
    physician = Physician(
        user_id=user.id, display_name=new.display_name, capacity=new.capacity, available=new.available
    )
    session.add(physician)
    await session.flush()
    session.add_all(PhysicianSpecialty(physician_id=physician.id, specialty=code) for code in new.specialties)
    session.add_all(
        PhysicianLicence(physician_id=physician.id, **licence.model_dump()) for licence in new.licences
    )
    audit(session, principal, "physician.register", physician.id)
    await session.flush()
    return physician.id


async def list_physicians(session: TenantSession, limit: int, after: UUID | None) -> list[PhysicianView]:
    """At most `limit` physicians registered before `after`, newest first."""
    query = _VIEW.order_by(Physician.id.desc()).limit(limit)
    if after is not None:
        query = query.where(Physician.id < after)
    return [_view(row) for row in await session.execute(query)]


async def read_physician(session: TenantSession, physician_id: UUID) -> PhysicianView:
    """Raises `PhysicianNotFound`."""
    row = (await session.execute(_VIEW.where(Physician.id == physician_id))).one_or_none()
    if row is None:
        raise PhysicianNotFound("No physician is registered under this id.")
    return _view(row)


async def read_own(session: TenantSession, principal: Principal) -> PhysicianView:
    """The principal's own registration. Raises `PhysicianNotFound`."""
    row = (await session.execute(_VIEW.where(Physician.user_id == principal.subject))).one_or_none()
    if row is None:
        raise PhysicianNotFound("You are not registered as a physician; your administrator can do that.")
    return _view(row)


async def change_physician(
    session: TenantSession, principal: Principal, physician_id: UUID, seen: int, change: PhysicianChange
) -> PhysicianView:
    """Set capacity and availability. Cases already held stay. Raises `PhysicianNotFound`, `Stale`."""
    physician = await session.scalar(
        select(Physician).where(Physician.id == physician_id).with_for_update(key_share=True)
    )
    if physician is None:
        raise PhysicianNotFound("No physician is registered under this id.")
    check_version(physician.version, seen)
    wanted = change.model_dump(exclude_none=True)
    for name, value in wanted.items():
        setattr(physician, name, value)
    physician.version += 1
    audit(session, principal, "physician.change", physician_id, **wanted)
    await session.flush()
    return await read_physician(session, physician_id)
