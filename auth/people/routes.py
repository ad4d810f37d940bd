"""People over HTTP."""

from typing import Annotated

from fastapi import APIRouter

from auth.people import service
from auth.people.schemas import Me, UserOut
from core.access import Principal, Session, requires, signed_in
from core.pagination import BadCursor, Page, Paged
from core.problems import Forbidden, Unauthenticated, responses

router = APIRouter(tags=["people"])


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
