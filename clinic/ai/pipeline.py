"""What is asked about every submitted case without anybody's doing: validity, red flags, triage, diagnosis.

`lifecycle.submit` writes what is to be done and rings the doorbell in its own transaction, so neither survives
without the other. A worker leases a case's row, asks, and commits each answer with its effects. Its request's key is
made of the question, so that a call repeated after a crash is the same call to the AI Service. What fails for now
remains, and a bell rings for it later; meanwhile the case waits for a coordinator like any other.
"""

import hashlib
import logging
import time
from collections.abc import Iterable, Sequence
from datetime import timedelta
from uuid import UUID

from sqlalchemy import func, select, text, update

from clinic.ai.models import PIPELINE, AiPipeline, AiResult
from clinic.ai.schemas import AiState, CaseQuestion
from clinic.ai.service import Asking, count, gather, keep, mark_emergency, request_about
from clinic.cases.lifecycle import triage_by_ai
from clinic.cases.models import Case
from clinic.cases.transitions import OVER
from clinic.cases.visibility import find_case
from core.access import Principal
from core.ai_contract import (
    RESPONSES,
    AiEndpoint,
    AiRequest,
    RedFlagsResponse,
    TriageResponse,
    input_hash,
)
from core.database import TenantSession
from core.problems import Problem

log = logging.getLogger(__name__)

LEASE = timedelta(minutes=5)  # the worker ends a handler before that
FIRST_WAIT = timedelta(seconds=10)
LONGEST_WAIT = timedelta(minutes=10)
PATIENCE_S = 20.0

_RING = text("SELECT doorbell.ring('ai-pipeline', :due_at)")


async def read_state(session: TenantSession, principal: Principal, case_id: UUID) -> AiState:
    """How far the pipeline is with a case. Raises `CaseNotFound`."""
    await find_case(session, principal, case_id)
    pipeline = await session.scalar(select(AiPipeline).where(AiPipeline.case_id == case_id))
    return AiState() if pipeline is None else AiState.model_validate(pipeline)


async def run_pipeline(asking: Asking) -> int:
    """Ask what is due about the tenant's cases: the handler of the doorbell kind `ai-pipeline`.

    Returns how many cases were worked on. May run any number of times, also at once. After some time the rest is
    left to another bell, so that other tenants have their turn.
    """
    cases, began = 0, time.monotonic()
    while asking.client.configured and (case_id := await _lease(asking)):
        await _work_on(asking, case_id)
        cases += 1
        if time.monotonic() - began > PATIENCE_S:
            async with asking.database.tenant(asking.scope) as session:
                await session.execute(_RING, {"due_at": await session.scalar(select(func.now()))})
            break
    return cases


def request_key(endpoint: AiEndpoint, request: AiRequest) -> str:
    """The id and idempotency key of a request of the pipeline: the same for the same question about a case."""
    question = f"{endpoint}|{request.case_ref}|{input_hash(request)}"
    return hashlib.sha256(question.encode()).hexdigest()


async def _lease(asking: Asking) -> UUID | None:
    """The case that has waited longest, ours until the lease ends. The bell is for what a crash would leave."""
    # The tenant's model may be another by now, and a process that only works does not poll the directory.
    await asking.directory.fresh()
    async with asking.database.tenant(asking.scope) as session:
        waiting = (
            select(AiPipeline.id)
            .where(AiPipeline.due_at <= func.now())
            .order_by(AiPipeline.due_at)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        leased = (
            await session.execute(
                update(AiPipeline)
                .where(AiPipeline.id == waiting.scalar_subquery())
                .values(due_at=func.now() + LEASE)
                .returning(AiPipeline.case_id, AiPipeline.due_at)
                .execution_options(synchronize_session=False)
            )
        ).one_or_none()
        if leased is None:
            return None
        await session.execute(_RING, {"due_at": leased.due_at})
        case_id: UUID = leased.case_id
        return case_id


async def _work_on(asking: Asking, case_id: UUID) -> None:
    scope = asking.scope
    async with asking.database.tenant(scope) as session:
        case = await session.get_one(Case, case_id)
        subject = await gather(session, case)
        pipeline = await _locked(session, case_id)
        if case.status in OVER:
            _settle(pipeline, pipeline.remaining, "case-over")
        remaining = [endpoint for endpoint in PIPELINE if endpoint in pipeline.remaining]
        tried = set(pipeline.outcomes)
    if remaining:
        try:
            request = await request_about(asking, subject, "unsent", CaseQuestion())
        except Problem as problem:
            await _failed(asking, case_id, remaining, problem, asked=False)
        else:
            # One that fails does not hold the others up, danger signs least of all; what was never tried goes first.
            for endpoint in sorted(remaining, key=tried.__contains__):
                try:
                    await _ask(asking, case_id, endpoint, request, counted=endpoint in tried)
                except Problem as problem:
                    await _failed(asking, case_id, [endpoint], problem, asked=True)
    async with asking.database.tenant(scope) as session:
        await _put_back(session, await _locked(session, case_id))


async def _ask(
    asking: Asking, case_id: UUID, endpoint: AiEndpoint, request: AiRequest, *, counted: bool
) -> None:
    """Get an answer, from the AI Service or from what it said of the same input before, and let it take effect."""
    request = request.model_copy(update={"request_id": request_key(endpoint, request)})
    async with asking.database.tenant(asking.scope) as session:
        known = await session.scalar(
            select(AiResult.response)
            .where(
                AiResult.case_id == case_id,
                AiResult.endpoint == endpoint.value,
                AiResult.input_hash == input_hash(request),
            )
            .order_by(AiResult.id.desc())
            .limit(1)
        )
    if known is None:
        if not counted:
            await count(asking, endpoint)
        reply = await asking.client.ask(asking.scope, endpoint, request)
        response = reply.response
    else:
        reply, response = None, RESPONSES[endpoint].model_validate(known)
    async with asking.database.tenant(asking.scope) as session:
        pipeline = await _locked(session, case_id)
        if endpoint not in pipeline.remaining:
            return  # our lease had ended, and whoever took the case over was faster
        if reply is not None:
            keep(session, None, endpoint, request, reply, case_id)
        if isinstance(response, RedFlagsResponse) and response.emergency:
            await mark_emergency(session, None, case_id)
        elif isinstance(response, TriageResponse) and response.level is not None:
            await triage_by_ai(session, case_id, response.level)
        _settle(pipeline, [endpoint], "abstained" if response.abstained else "done")


async def _failed(
    asking: Asking, case_id: UUID, endpoints: Sequence[AiEndpoint], problem: Problem, *, asked: bool
) -> None:
    """Write down what came instead of answers. What passes (status 5xx) remains to be asked."""
    passes = problem.status >= 500
    log.warning("AI pipeline got no answer", extra={"endpoint": ", ".join(endpoints), "error": problem.slug})
    async with asking.database.tenant(asking.scope) as session:
        pipeline = await _locked(session, case_id)
        if not passes:
            _settle(pipeline, endpoints, problem.slug)
        elif asked:
            pipeline.outcomes = pipeline.outcomes | dict.fromkeys(map(str, endpoints), problem.slug)


async def _locked(session: TenantSession, case_id: UUID) -> AiPipeline:
    """The case's row, locked before the case itself wherever both are."""
    query = select(AiPipeline).where(AiPipeline.case_id == case_id).with_for_update()
    return (await session.scalars(query)).one()


def _settle(pipeline: AiPipeline, endpoints: Iterable[str], outcome: str) -> None:
    settled = set(map(str, endpoints)) & set(pipeline.remaining)
    pipeline.outcomes = pipeline.outcomes | dict.fromkeys(settled, outcome)
    pipeline.remaining = [endpoint for endpoint in pipeline.remaining if endpoint not in settled]


async def _put_back(session: TenantSession, pipeline: AiPipeline) -> None:
    """End the lease: what remains is due after a wait that doubles with each attempt."""
    if not pipeline.remaining:
        pipeline.due_at = None
        return
    wait = min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(pipeline.attempts, 10))
    pipeline.attempts += 1
    pipeline.due_at = await session.scalar(select(func.now() + wait))
    await session.execute(_RING, {"due_at": pipeline.due_at})
