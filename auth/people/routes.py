"""People over HTTP."""

from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Response

from auth.people import administration, service
from auth.people.errors import LastAdministrator, RoleNotYours, UnknownRole, UserNotFound
from auth.people.models import User
from auth.people.schemas import Me, UserChange, UserOut
from core.access import Principal, Session, Tenant, requires, signed_in
from core.database import Database, TenantScope
from core.pagination import BadCursor, Page, Paged
from core.parts import part
from core.problems import Forbidden, Stale, Unauthenticated, responses
from core.versions import BadETag, IfMatch, PreconditionRequired, set_etag
from tenants.directory.cache import Directory
from tenants.plans.errors import QuotaExceeded

router = APIRouter(tags=["people"])

CHANGED = (Unauthenticated, Forbidden, UserNotFound, Stale, PreconditionRequired, BadETag)


@dataclass(frozen=True)
class Place:
    """Where people are changed, in several transactions, and how many seats there are."""

    database: Database
    tenant: TenantScope
    seat_limit: int


async def _place(
    tenant: Tenant,
    database: Annotated[Database, part(Database)],
    directory: Annotated[Directory, part(Directory)],
) -> Place:
    record = directory.by_key(tenant.key)
    assert record is not None  # routing found it in the same directory
    return Place(database, tenant, record.limits["seats"])


Where = Annotated[Place, Depends(_place)]


@router.get(
    "/v1/me",
    summary="Who you are, and what you may do",
    operation_id="people_me",
    responses=responses(Unauthenticated),
)
async def me(session: Session, principal: Annotated[Principal, signed_in]) -> Me:
    machine = principal.kind == "client"
    user = None if machine else await service.get_user(session, principal.subject)
    return Me(
        user=UserOut.model_validate(user) if user else None,
        client=principal.subject if machine else principal.acting,
        roles=sorted(principal.roles),
        scopes=sorted(principal.scopes),
        session_id=principal.session,
    )


@router.get(
    "/v1/users",
    summary="The people of this tenant, newest first",
    operation_id="people_list",
    responses=responses(Unauthenticated, Forbidden, BadCursor),
)
async def list_users(
    session: Session, page: Paged, principal: Annotated[Principal, requires("users:read")]
) -> Page[UserOut]:
    rows, next_cursor = page.page(await service.list_users(session, after=page.after, limit=page.limit))
    return Page(items=[UserOut.model_validate(row) for row in rows], next_cursor=next_cursor)


@router.get(
    "/v1/users/{user_id}",
    summary="Show one of the people",
    operation_id="people_read",
    responses=responses(Unauthenticated, Forbidden, UserNotFound),
)
async def read_user(
    user_id: UUID,
    response: Response,
    session: Session,
    principal: Annotated[Principal, requires("users:read")],
) -> UserOut:
    return _shown(await service.get_user(session, user_id), response)


@router.patch(
    "/v1/users/{user_id}",
    summary="Give somebody roles, or take them away",
    operation_id="people_change",
    responses=responses(*CHANGED, RoleNotYours, UnknownRole, LastAdministrator, QuotaExceeded),
)
async def change_user(
    user_id: UUID,
    change: UserChange,
    response: Response,
    where: Where,
    seen: IfMatch,
    principal: Annotated[Principal, requires("users:manage")],
) -> UserOut:
    """`granted_roles` replaces those given here; those that come from the person's groups stay. Whoever loses a role
    has to sign in again."""
    user = await administration.set_roles(
        where.database, where.tenant, principal, user_id, seen, change.granted_roles, where.seat_limit
    )
    return _shown(user, response)


@router.post(
    "/v1/users/{user_id}/deactivate",
    summary="Let somebody in no more",
    operation_id="people_deactivate",
    responses=responses(*CHANGED, LastAdministrator),
)
async def deactivate(
    user_id: UUID,
    response: Response,
    where: Where,
    seen: IfMatch,
    principal: Annotated[Principal, requires("users:manage")],
) -> UserOut:
    """Their sessions end in every gateway within a second, and the cases they hold go back to the queue."""
    user = await administration.deactivate(where.database, where.tenant, principal, user_id, seen)
    return _shown(user, response)


@router.post(
    "/v1/users/{user_id}/activate",
    summary="Let somebody in again",
    operation_id="people_activate",
    responses=responses(*CHANGED, RoleNotYours, QuotaExceeded),
)
async def activate(
    user_id: UUID,
    response: Response,
    where: Where,
    seen: IfMatch,
    principal: Annotated[Principal, requires("users:manage")],
) -> UserOut:
    user = await administration.activate(
        where.database, where.tenant, principal, user_id, seen, where.seat_limit
    )
    return _shown(user, response)


def _shown(user: User, response: Response) -> UserOut:
    set_etag(response, user.version)
    return UserOut.model_validate(user)
