"""A tenant's own audit log over HTTP."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import AwareDatetime

from core.access import Principal, Session, requires
from core.pagination import BadCursor, Page, Paged
from core.problems import Forbidden, Invalid, Unauthenticated, responses
from tenants.audit import service
from tenants.audit.schemas import EventOut

router = APIRouter(tags=["audit"])


@router.get(
    "/v1/audit-events",
    summary="Read the audit log",
    operation_id="audit_list",
    responses=responses(Unauthenticated, Forbidden, BadCursor, Invalid),
)
async def list_all(
    page: Paged,
    session: Session,
    principal: Annotated[Principal, requires("audit:read")],
    action: Annotated[
        str | None,
        Query(max_length=100, pattern=r"^[a-z._-]+$", description="Only this, such as `case.read`."),
    ] = None,
    actor: Annotated[UUID | None, Query(description="Only what this person or client did.")] = None,
    subject: Annotated[UUID | None, Query(description="Only what was done to this row.")] = None,
    since: Annotated[AwareDatetime | None, Query(description="Only from this moment on.")] = None,
) -> Page[EventOut]:
    """Who did what in this tenant, and who read which case, newest first."""
    wanted = service.EventFilter(action, str(actor) if actor else None, subject, since)
    rows, cursor = page.page(await service.list_events(session, wanted, page.limit + 1, page.after))
    return Page(items=[EventOut.model_validate(row) for row in rows], next_cursor=cursor)
