"""Cases over HTTP."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Response

from auth.keys.service import KeyRing
from clinic.cases import lifecycle, service
from clinic.cases.errors import CaseNotFound, ImageMissing, NoAiTriage, NotYourPart, UnknownPool, WrongStatus
from clinic.cases.schemas import (
    Answer,
    CaseChange,
    CaseSummary,
    CaseView,
    EventView,
    NewCase,
    Placement,
    Reason,
    Status,
    Submission,
    Triage,
)
from clinic.fields import Code
from clinic.patients.errors import PatientExists, PatientNotFound
from clinic.physicians.errors import UnknownSpecialty
from core.access import Principal, Session, requires
from core.database import Database
from core.idempotency import Idempotency, KeyInFlight, KeyReused
from core.pagination import BadCursor, Page, Paged
from core.parts import part
from core.problems import Forbidden, Invalid, Problem, Stale, Unauthenticated, responses
from core.versions import BadETag, IfMatch, PreconditionRequired, set_etag

router = APIRouter(tags=["cases"])

SEEN: tuple[type[Problem], ...] = (Unauthenticated, Forbidden, CaseNotFound, Invalid)
CHANGED: tuple[type[Problem], ...] = (
    *SEEN, NotYourPart, WrongStatus, Stale, BadETag, PreconditionRequired
)  # fmt: skip


async def show(session: Session, principal: Principal, case_id: UUID, response: Response) -> CaseView:
    """The case as it now is, with its ETag."""
    case = await service.show_case(session, principal, case_id)
    set_etag(response, case.version)
    return case


@router.post(
    "/v1/cases",
    status_code=201,
    summary="Open a case",
    operation_id="cases_create",
    responses=responses(
        Unauthenticated, Forbidden, PatientNotFound, PatientExists, KeyInFlight, Invalid, KeyReused
    ),
)
async def create(
    new: NewCase,
    response: Response,
    session: Session,
    principal: Annotated[Principal, requires("cases:create")],
    keys: Annotated[KeyRing, part(KeyRing)],
    idempotency: Annotated[Idempotency, Depends()],
) -> CaseView:
    """A draft; add photographs to it, then submit it."""
    key = await keys.data_key(principal.tenant)

    async def create_once() -> UUID:
        return await service.create_case(session, principal, key, new)

    case_id = await idempotency.once(session, principal, create_once)
    return await show(session, principal, case_id, response)


@router.get(
    "/v1/cases",
    summary="List cases",
    operation_id="cases_list",
    responses=responses(Unauthenticated, Forbidden, BadCursor, Invalid),
)
async def list_all(
    page: Paged,
    session: Session,
    principal: Annotated[Principal, requires("cases:read")],
    status: Annotated[Status | None, Query(description="Only those in this status.")] = None,
    specialty: Annotated[Code | None, Query(description="Only those queued for this specialty.")] = None,
    emergency: Annotated[bool | None, Query(description="Only emergencies, or only others.")] = None,
    mine: Annotated[bool, Query(description="Only those you opened, are the patient of, or hold.")] = False,
) -> Page[CaseSummary]:
    """Those you are concerned with, newest first."""
    wanted = service.CaseFilter(status=status, specialty=specialty, emergency=emergency, mine=mine)
    found = await service.list_cases(session, principal, wanted, page.limit + 1, page.after)
    rows, cursor = page.page(found)
    return Page(items=[CaseSummary(**row._mapping) for row in rows], next_cursor=cursor)


@router.get(
    "/v1/cases/{case_id}",
    response_model=CaseView,
    summary="Read a case",
    operation_id="cases_read",
    responses=responses(*SEEN),
)
async def read(
    case_id: UUID,
    database: Annotated[Database, part(Database)],
    principal: Annotated[Principal, requires("cases:read")],
) -> Response:
    """The case, and in `allowed_actions` what you may do next. Its `ETag` is the version to send as `If-Match`."""
    case = await service.read_case(database, principal, case_id)
    # Written as it is: having FastAPI validate it again costs more than the query's own work.
    content = CaseView.__pydantic_serializer__.to_json(case)
    return Response(content, media_type="application/json", headers={"ETag": f'"{case.version}"'})


@router.patch(
    "/v1/cases/{case_id}",
    summary="Change a draft",
    operation_id="cases_change",
    responses=responses(*CHANGED),
)
async def change(
    case_id: UUID,
    change: CaseChange,
    response: Response,
    session: Session,
    seen: IfMatch,
    principal: Annotated[Principal, requires("cases:create")],
) -> CaseView:
    """Members that are left out stay as they are. What was submitted cannot be changed any more."""
    await service.change_case(session, principal, case_id, seen, change)
    return await show(session, principal, case_id, response)


@router.get(
    "/v1/cases/{case_id}/events",
    summary="List what happened to a case",
    operation_id="cases_events",
    responses=responses(*SEEN, BadCursor),
)
async def events(
    case_id: UUID, page: Paged, session: Session, principal: Annotated[Principal, requires("cases:read")]
) -> Page[EventView]:
    """Every transition, newest first."""
    rows, cursor = page.page(
        await service.list_events(session, principal, case_id, page.limit + 1, page.after)
    )
    return Page(items=[EventView(**row._mapping) for row in rows], next_cursor=cursor)


@router.post(
    "/v1/cases/{case_id}/submit",
    summary="Submit a draft",
    operation_id="cases_submit",
    responses=responses(*CHANGED, ImageMissing),
)
async def submit(
    case_id: UUID,
    submission: Submission,
    response: Response,
    session: Session,
    seen: IfMatch,
    principal: Annotated[Principal, requires("cases:submit", never_refused=True)],
) -> CaseView:
    """Needs the patient's consent and a photograph. Never refused for a used-up quota: it may be an emergency."""
    await lifecycle.submit(session, principal, case_id, seen, submission)
    return await show(session, principal, case_id, response)


@router.post(
    "/v1/cases/{case_id}/triage",
    summary="Say how urgent a case is",
    operation_id="cases_triage",
    responses=responses(*CHANGED, NoAiTriage),
)
async def triage(
    case_id: UUID,
    said: Triage,
    response: Response,
    session: Session,
    seen: IfMatch,
    principal: Annotated[Principal, requires("cases:triage")],
) -> CaseView:
    """The more urgent of your level and the AI Service's counts: it may raise urgency, never lower it."""
    await lifecycle.triage(session, principal, case_id, seen, said)
    return await show(session, principal, case_id, response)


@router.post(
    "/v1/cases/{case_id}/enqueue",
    summary="Queue a case for physicians",
    operation_id="cases_enqueue",
    responses=responses(*CHANGED, UnknownSpecialty, UnknownPool),
)
async def enqueue(
    case_id: UUID,
    placement: Placement,
    response: Response,
    session: Session,
    seen: IfMatch,
    principal: Annotated[Principal, requires("cases:triage")],
) -> CaseView:
    """Sets when the answer is due, counted from submission by the case's level."""
    await lifecycle.enqueue(session, principal, case_id, seen, placement)
    return await show(session, principal, case_id, response)


@router.post(
    "/v1/cases/{case_id}/start",
    summary="Begin to review a case you hold",
    operation_id="cases_start",
    responses=responses(*CHANGED),
)
async def start(
    case_id: UUID,
    response: Response,
    session: Session,
    seen: IfMatch,
    principal: Annotated[Principal, requires("cases:answer")],
) -> CaseView:
    """An answer can be given from then on."""
    await lifecycle.start(session, principal, case_id, seen)
    return await show(session, principal, case_id, response)


@router.post(
    "/v1/cases/{case_id}/decline",
    summary="Give a case back",
    operation_id="cases_decline",
    responses=responses(*CHANGED),
)
async def decline(
    case_id: UUID,
    body: Reason,
    response: Response,
    session: Session,
    seen: IfMatch,
    principal: Annotated[Principal, requires("cases:answer")],
) -> CaseView:
    """It returns to its place in the queue, and is not handed to you again unless you ask for it."""
    await lifecycle.decline(session, principal, case_id, seen, body.reason)
    return await show(session, principal, case_id, response)


@router.post(
    "/v1/cases/{case_id}/answer",
    summary="Answer a case",
    operation_id="cases_answer",
    responses=responses(*CHANGED),
)
async def answer(
    case_id: UUID,
    given: Answer,
    response: Response,
    session: Session,
    seen: IfMatch,
    principal: Annotated[Principal, requires("cases:answer", never_refused=True)],
) -> CaseView:
    """Ends your assignment. Never refused for a used-up quota."""
    await lifecycle.answer(session, principal, case_id, seen, given)
    return await show(session, principal, case_id, response)


@router.post(
    "/v1/cases/{case_id}/close",
    summary="Close an answered case",
    operation_id="cases_close",
    responses=responses(*CHANGED),
)
async def close(
    case_id: UUID,
    response: Response,
    session: Session,
    seen: IfMatch,
    principal: Annotated[Principal, requires("cases:submit")],
) -> CaseView:
    """Its patient or referrer accepts the answer."""
    await lifecycle.close(session, principal, case_id, seen)
    return await show(session, principal, case_id, response)


@router.post(
    "/v1/cases/{case_id}/cancel",
    summary="Cancel a case",
    operation_id="cases_cancel",
    responses=responses(*CHANGED),
)
async def cancel(
    case_id: UUID,
    body: Reason,
    response: Response,
    session: Session,
    seen: IfMatch,
    principal: Annotated[Principal, requires("cases:submit")],
) -> CaseView:
    """Possible until it is answered."""
    await lifecycle.cancel(session, principal, case_id, seen, body.reason)
    return await show(session, principal, case_id, response)
