"""Sign-in sessions over HTTP: one's own, and for administrators everybody's."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter

from auth.people.errors import UserNotFound
from auth.people.service import end_sessions_of, get_user
from auth.sessions import service
from auth.sessions.errors import SessionNotFound
from auth.sessions.schemas import SessionOut
from core.access import Principal, Session, requires, signed_in
from core.database import Database
from core.pagination import BadCursor, Page, Paged
from core.parts import part
from core.problems import Forbidden, Unauthenticated, responses

router = APIRouter(tags=["people"])

SignedIn = Annotated[Principal, signed_in]
Manager = Annotated[Principal, requires("sessions:manage")]


async def _page(session: Session, page: Paged, user_id: UUID) -> Page[SessionOut]:
    found = await service.list_sessions(session, user_id, after=page.after, limit=page.limit)
    rows, next_cursor = page.page(found)
    return Page(items=[SessionOut.model_validate(row) for row in rows], next_cursor=next_cursor)


@router.get(
    "/v1/sessions",
    summary="Your sign-in sessions, newest first",
    operation_id="sessions_list",
    responses=responses(Unauthenticated, UserNotFound, BadCursor),
)
async def list_own(session: Session, page: Paged, principal: SignedIn) -> Page[SessionOut]:
    return await _page(session, page, principal.subject)


@router.delete(
    "/v1/sessions/{session_id}",
    summary="End one of your sign-in sessions, in every process within a second",
    operation_id="sessions_end",
    status_code=204,
    responses=responses(Unauthenticated, SessionNotFound),
)
async def end_own(
    session_id: UUID, principal: SignedIn, database: Annotated[Database, part(Database)]
) -> None:
    await service.end_one(database, principal.tenant, principal.subject, session_id, principal)


@router.get(
    "/v1/users/{user_id}/sessions",
    summary="Somebody's sign-in sessions, newest first",
    operation_id="users_sessions_list",
    responses=responses(Unauthenticated, Forbidden, UserNotFound, BadCursor),
)
async def list_of(session: Session, page: Paged, user_id: UUID, principal: Manager) -> Page[SessionOut]:
    return await _page(session, page, user_id)


@router.delete(
    "/v1/users/{user_id}/sessions/{session_id}",
    summary="End one of somebody's sign-in sessions, in every process within a second",
    operation_id="users_sessions_end",
    status_code=204,
    responses=responses(Unauthenticated, Forbidden, SessionNotFound),
)
async def end_of(
    user_id: UUID, session_id: UUID, principal: Manager, database: Annotated[Database, part(Database)]
) -> None:
    await service.end_one(database, principal.tenant, user_id, session_id, principal)


@router.delete(
    "/v1/users/{user_id}/sessions",
    summary="End all of somebody's sign-in sessions, in every process within a second",
    operation_id="users_sessions_end_all",
    status_code=204,
    responses=responses(Unauthenticated, Forbidden, UserNotFound),
)
async def end_all_of(
    user_id: UUID, principal: Manager, database: Annotated[Database, part(Database)]
) -> None:
    async with database.tenant(principal.tenant) as session:
        await get_user(session, user_id)
    await end_sessions_of(database, principal.tenant, user_id, principal, "by-administrator")
