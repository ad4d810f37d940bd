"""The queue and claims over HTTP."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Response

from clinic.assignments import service
from clinic.assignments.errors import NotEligible, NothingToClaim
from clinic.assignments.schemas import Claim
from clinic.cases.routes import CHANGED, show
from clinic.cases.schemas import CaseSummary, CaseView
from core.access import Principal, Session, requires
from core.idempotency import Idempotency, KeyInFlight, KeyReused
from core.pagination import BadCursor, Page, Paged
from core.problems import Forbidden, Invalid, Unauthenticated, responses
from core.versions import IfMatch

router = APIRouter(tags=["queue"])


@router.get(
    "/v1/queue",
    summary="List the cases you could take",
    operation_id="queue_list",
    responses=responses(Unauthenticated, Forbidden, NotEligible, BadCursor),
)
async def queue(
    page: Paged, session: Session, principal: Annotated[Principal, requires("cases:answer")]
) -> Page[CaseSummary]:
    """Most urgent first, then oldest."""
    rows, cursor = page.page(await service.list_queue(session, principal, page.limit + 1, page.after))
    return Page(items=[CaseSummary(**row._mapping) for row in rows], next_cursor=cursor)


@router.post(
    "/v1/queue/claim",
    summary="Take the next case",
    operation_id="queue_claim",
    responses=responses(
        Unauthenticated, Forbidden, NothingToClaim, NotEligible, KeyInFlight, Invalid, KeyReused
    ),
)
async def claim_next(
    claim: Claim,
    response: Response,
    session: Session,
    principal: Annotated[Principal, requires("cases:answer")],
    idempotency: Annotated[Idempotency, Depends()],
) -> CaseView:
    """The most urgent, then oldest case that you may take and have not declined. No case is given to two."""

    async def claim_once() -> UUID:
        return await service.claim_next(session, principal, claim.specialty)

    case_id = await idempotency.once(session, principal, claim_once)
    return await show(session, principal, case_id, response)


@router.post(
    "/v1/cases/{case_id}/claim",
    summary="Take this case",
    operation_id="cases_claim",
    responses=responses(*CHANGED, NotEligible),
)
async def claim(
    case_id: UUID,
    response: Response,
    session: Session,
    seen: IfMatch,
    principal: Annotated[Principal, requires("cases:answer")],
) -> CaseView:
    """Where you may not, `failed` names every condition that does not hold."""
    await service.claim_case(session, principal, case_id, seen)
    return await show(session, principal, case_id, response)
