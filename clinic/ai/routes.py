"""The AI Service over HTTP: five questions, each with and without a case."""

from collections.abc import Awaitable, Callable
from datetime import date
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Body, Depends, Query, Request

from clinic.ai import concordance, feedback, pipeline, service
from clinic.ai.errors import (
    AiAnswerInvalid,
    AiBusy,
    AiInputRejected,
    AiItemUnknown,
    AiModelMissing,
    AiModelPinned,
    AiResultNotFound,
    AiTimeout,
    AiUnavailable,
    AiUnreachable,
)
from clinic.ai.schemas import (
    AiResultOut,
    AiState,
    CaseQuestion,
    Concordance,
    FeedbackOut,
    NewFeedback,
    Question,
)
from clinic.ai.service import NEVER_REFUSED, Asking
from clinic.cases.errors import CaseNotFound, NotYourPart, WrongStatus
from clinic.images.errors import (
    ImageDamaged,
    ImageDimensionsRefused,
    ImageNotBase64,
    ImageTooLarge,
    ImageTypeMismatch,
    ImageTypeUnsupported,
    ImageUndecodable,
)
from core.access import Principal, Session, requires
from core.ai_contract import RESPONSES, AiEndpoint, AiResponse
from core.blobs import BlobNotFound, BlobStoreUnavailable
from core.idempotency import Idempotency, KeyInFlight, KeyReused
from core.pagination import BadCursor, Page, Paged
from core.problems import Forbidden, Invalid, Unauthenticated, responses
from core.spool import SpoolFull
from tenants.plans.errors import QuotaExceeded

router = APIRouter(tags=["ai"])

_SUMMARIES = {
    AiEndpoint.DIAGNOSIS: "a differential diagnosis",
    AiEndpoint.RED_FLAGS: "danger signs",
    AiEndpoint.TRIAGE: "how urgent it is",
    AiEndpoint.IMAGE_VALIDITY: "whether the photographs can be judged",
    AiEndpoint.NEXT_QUESTION: "what to ask next",
}
_PROBLEMS = (
    Unauthenticated,
    Forbidden,
    QuotaExceeded,
    AiInputRejected,
    AiModelPinned,
    AiTimeout,
    AiUnreachable,
    AiAnswerInvalid,
    AiUnavailable,
    AiModelMissing,
    AiBusy,
)
_REFUSED_IMAGES = (
    SpoolFull,
    ImageTooLarge,
    ImageTypeUnsupported,
    ImageTypeMismatch,
    ImageNotBase64,
    ImageDimensionsRefused,
    ImageDamaged,
    ImageUndecodable,
)


def _ask(endpoint: AiEndpoint) -> Callable[..., Awaitable[AiResponse]]:
    async def ask(
        question: Question,
        request: Request,
        principal: Annotated[Principal, requires("ai:use", never_refused=endpoint in NEVER_REFUSED)],
    ) -> AiResponse:
        asking = Asking.of(request.app.state.parts, principal.tenant)
        return await service.ask(asking, principal, endpoint, question)

    return ask


def _ask_about_case(endpoint: AiEndpoint) -> Callable[..., Awaitable[AiResponse]]:
    async def ask_about_case(
        case_id: UUID,
        request: Request,
        principal: Annotated[Principal, requires("ai:use", never_refused=endpoint in NEVER_REFUSED)],
        question: Annotated[CaseQuestion, Body()] = CaseQuestion(),
    ) -> AiResponse:
        asking = Asking.of(request.app.state.parts, principal.tenant)
        return await service.ask_about_case(asking, principal, endpoint, case_id, question)

    return ask_about_case


# A route for each question, so that each has its own answer's schema in the API's description.
for _endpoint in AiEndpoint:
    _name = _endpoint.name.lower()
    router.add_api_route(
        f"/v1/ai/{_endpoint}",
        _ask(_endpoint),
        methods=["POST"],
        response_model=RESPONSES[_endpoint],
        summary=f"Ask the AI Service: {_SUMMARIES[_endpoint]}",
        description="The answer is kept. Photographs go on as upright copies without metadata.",
        operation_id=f"ai_{_name}",
        responses=responses(*_PROBLEMS, *_REFUSED_IMAGES),
    )
    router.add_api_route(
        f"/v1/cases/{{case_id}}/ai/{_endpoint}",
        _ask_about_case(_endpoint),
        methods=["POST"],
        response_model=RESPONSES[_endpoint],
        summary=f"Ask the AI Service about a case: {_SUMMARIES[_endpoint]}",
        description="Asks with what the case says, under a pseudonym, and its stored photographs. The answer is "
        "kept with the case. Red flags that mean an emergency put the case in front of the queue.",
        operation_id=f"cases_ai_{_name}",
        responses=responses(*_PROBLEMS, CaseNotFound, BlobNotFound, BlobStoreUnavailable),
    )


@router.get(
    "/v1/cases/{case_id}/ai",
    summary="Show how far the AI Service is with a case",
    operation_id="cases_ai_state",
    responses=responses(Unauthenticated, Forbidden, CaseNotFound),
)
async def read_state(
    case_id: UUID, principal: Annotated[Principal, requires("cases:read")], session: Session
) -> AiState:
    """What was and is to be asked after submission; why a case still waits for triage stands in `outcomes`."""
    return await pipeline.read_state(session, principal, case_id)


@router.get(
    "/v1/cases/{case_id}/ai-results",
    summary="List what the AI Service said about a case",
    operation_id="ai_results_list",
    responses=responses(Unauthenticated, Forbidden, CaseNotFound, BadCursor),
)
async def list_results(
    case_id: UUID,
    principal: Annotated[Principal, requires("cases:read")],
    session: Session,
    paged: Paged,
) -> Page[AiResultOut]:
    rows = await service.list_results(session, principal, case_id, paged.limit + 1, paged.after)
    results, cursor = paged.page(rows)
    return Page(items=[AiResultOut.model_validate(result) for result in results], next_cursor=cursor)


@router.post(
    "/v1/cases/{case_id}/ai-results/{result_id}/feedback",
    summary="Judge what the AI Service said",
    operation_id="ai_feedback_give",
    responses=responses(
        Unauthenticated,
        Forbidden,
        NotYourPart,
        CaseNotFound,
        AiResultNotFound,
        WrongStatus,
        AiItemUnknown,
        KeyInFlight,
        KeyReused,
    ),
)
async def give_feedback(
    case_id: UUID,
    result_id: UUID,
    new: NewFeedback,
    principal: Annotated[Principal, requires("cases:answer")],
    session: Session,
    idempotency: Annotated[Idempotency, Depends()],
) -> FeedbackOut:
    """By the physician who holds the case, in review or answered. A later verdict on the same item supersedes the
    earlier one, which stays."""

    async def give_once() -> UUID:
        return await feedback.give_feedback(session, principal, case_id, result_id, new)

    feedback_id = await idempotency.once(session, principal, give_once)
    row = await feedback.read_feedback(session, feedback_id)
    return FeedbackOut.model_validate(row, from_attributes=True)


@router.get(
    "/v1/cases/{case_id}/ai-results/{result_id}/feedback",
    summary="List what physicians made of an answer of the AI Service",
    operation_id="ai_feedback_list",
    responses=responses(Unauthenticated, Forbidden, CaseNotFound, AiResultNotFound, BadCursor),
)
async def list_feedback(
    case_id: UUID,
    result_id: UUID,
    principal: Annotated[Principal, requires("cases:read")],
    session: Session,
    paged: Paged,
    current: Annotated[bool, Query(description="Only those that nothing supersedes.")] = False,
) -> Page[FeedbackOut]:
    rows = await feedback.list_feedback(
        session, principal, case_id, result_id, paged.limit + 1, paged.after, current=current
    )
    verdicts, cursor = paged.page(rows)
    return Page(
        items=[FeedbackOut.model_validate(row, from_attributes=True) for row in verdicts], next_cursor=cursor
    )


@router.get(
    "/v1/ai/concordance",
    summary="Show how often physicians agree with the AI Service",
    operation_id="ai_concordance",
    responses=responses(Unauthenticated, Forbidden, Invalid),
)
async def show_concordance(
    principal: Annotated[Principal, requires("ai:review")],
    session: Session,
    since: Annotated[date | None, Query(description="Verdicts of this day (UTC) and later.")] = None,
    until: Annotated[date | None, Query(description="Verdicts of this day (UTC) and earlier.")] = None,
) -> Concordance:
    """Counts of all verdicts that stand, by model and skin type; of patients and physicians it names none."""
    return Concordance(since=since, until=until, groups=await concordance.agreement(session, since, until))
