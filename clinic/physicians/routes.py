"""Physicians and specialties over HTTP."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Response

from clinic.physicians import service
from clinic.physicians.errors import NotAPhysician, PhysicianExists, PhysicianNotFound, UnknownSpecialty
from clinic.physicians.schemas import NewPhysician, PhysicianChange, PhysicianView, SpecialtyView
from core.access import Principal, Session, requires
from core.idempotency import Idempotency, KeyInFlight, KeyReused
from core.pagination import BadCursor, Page, Paged
from core.problems import Forbidden, Invalid, Stale, Unauthenticated, responses
from core.versions import BadETag, IfMatch, PreconditionRequired, set_etag

router = APIRouter(tags=["physicians"])


@router.get(
    "/v1/specialties",
    summary="List the specialties",
    operation_id="specialties_list",
    responses=responses(Unauthenticated, Forbidden),
)
async def specialties(
    session: Session, principal: Annotated[Principal, requires("cases:read")]
) -> list[SpecialtyView]:
    """The fields of medicine a case can be queued for."""
    return await service.list_specialties(session)


@router.post(
    "/v1/physicians",
    status_code=201,
    summary="Register a physician",
    operation_id="physicians_create",
    responses=responses(
        Unauthenticated,
        Forbidden,
        PhysicianExists,
        KeyInFlight,
        Invalid,
        NotAPhysician,
        UnknownSpecialty,
        KeyReused,
    ),
)
async def register(
    new: NewPhysician,
    response: Response,
    session: Session,
    principal: Annotated[Principal, requires("physicians:manage")],
    idempotency: Annotated[Idempotency, Depends()],
) -> PhysicianView:
    """From then on they may claim cases of their specialties, where they are licensed."""

    async def create_once() -> UUID:
        return await service.register_physician(session, principal, new)

    physician_id = await idempotency.once(session, principal, create_once)
    physician = await service.read_physician(session, physician_id)
    set_etag(response, physician.version)
    return physician


@router.get(
    "/v1/physicians",
    summary="List physicians",
    operation_id="physicians_list",
    responses=responses(Unauthenticated, Forbidden, BadCursor),
)
async def list_all(
    page: Paged, session: Session, principal: Annotated[Principal, requires("users:read")]
) -> Page[PhysicianView]:
    """Newest first, with how many cases each holds."""
    rows, cursor = page.page(await service.list_physicians(session, page.limit + 1, page.after))
    return Page(items=list(rows), next_cursor=cursor)


@router.get(
    "/v1/physicians/me",
    summary="Read your own registration",
    operation_id="physicians_me",
    responses=responses(Unauthenticated, Forbidden, PhysicianNotFound),
)
async def me(
    response: Response, session: Session, principal: Annotated[Principal, requires("cases:answer")]
) -> PhysicianView:
    """Your specialties, licences, capacity and open cases."""
    physician = await service.read_own(session, principal)
    set_etag(response, physician.version)
    return physician


@router.get(
    "/v1/physicians/{physician_id}",
    summary="Read a physician's registration",
    operation_id="physicians_read",
    responses=responses(Unauthenticated, Forbidden, PhysicianNotFound),
)
async def read(
    physician_id: UUID,
    response: Response,
    session: Session,
    principal: Annotated[Principal, requires("users:read")],
) -> PhysicianView:
    """Specialties, licences, capacity and open cases."""
    physician = await service.read_physician(session, physician_id)
    set_etag(response, physician.version)
    return physician


@router.patch(
    "/v1/physicians/{physician_id}",
    summary="Change a physician's availability or capacity",
    operation_id="physicians_change",
    responses=responses(Unauthenticated, Forbidden, PhysicianNotFound, Stale, BadETag, PreconditionRequired),
)
async def change(
    physician_id: UUID,
    change: PhysicianChange,
    response: Response,
    session: Session,
    seen: IfMatch,
    principal: Annotated[Principal, requires("physicians:manage")],
) -> PhysicianView:
    """Cases they hold already stay with them."""
    physician = await service.change_physician(session, principal, physician_id, seen, change)
    set_etag(response, physician.version)
    return physician
