"""What is asked about a submitted case without anybody's doing, with the real AI service, its faults, and crashes."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import func, select, text, update
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from clinic.ai.client import AiClient
from clinic.ai.models import PIPELINE, AiPipeline, AiResult
from clinic.ai.pipeline import run_pipeline
from clinic.ai.service import Asking
from clinic.cases.models import Case, CaseEvent
from gateway.assembly import background_worker
from tenants.directory.cache import Directory
from tenants.directory.service import update_tenant
from tenants.plans.service import set_quota
from tests.clinic.journey import CONSENT, Clinic, act, ok
from tests.fixtures.servers import free_port, serving
from tests.fixtures.world import World

SLUG = "pipeline"
MENINGITIS = ["fever", "non_blanching_rash", "very_unwell"]
RASH = ["rash", "itch", "dry_skin", "new_contact"]  # that the rules have an opinion on
ALL_DONE = dict.fromkeys(map(str, PIPELINE), "done")


@dataclass
class Onlooker:
    """Stands between the gateway and the AI service, writes the calls down, and can hold answers back."""

    ai_url: str
    url: str = ""
    calls: list[tuple[str, str]] = field(default_factory=list)
    holding: bool = False

    async def __call__(self, request: Request) -> Response:
        endpoint, key = request.path_params["endpoint"], request.headers["Idempotency-Key"]
        self.calls.append((endpoint, key))
        headers = {"Idempotency-Key": key, "Content-Type": "application/json"}
        async with httpx.AsyncClient() as real:
            answer = await real.post(
                f"{self.ai_url}/v1/{endpoint}", content=await request.body(), headers=headers
            )
        while self.holding:
            await asyncio.sleep(0.01)
        return Response(answer.content, answer.status_code, media_type="application/json")

    async def called(self, times: int) -> None:
        async with asyncio.timeout(10):
            while len(self.calls) < times:
                await asyncio.sleep(0.01)


@dataclass
class Ward:
    """A tenant of this file's own, and its pipeline."""

    clinic: Clinic
    asking: Asking

    @asynccontextmanager
    async def with_ai(self, url: str | None) -> AsyncIterator["Ward"]:
        """The same with another AI Service."""
        client = AiClient(url, None, deadline_s=10)
        try:
            yield replace(self, asking=replace(self.asking, client=client))
        finally:
            await client.aclose()

    def transaction(self) -> Any:
        return self.asking.database.tenant(self.asking.scope)

    async def run(self) -> int:
        return await run_pipeline(self.asking)

    async def case(self, case: dict[str, Any]) -> Case:
        async with self.transaction() as session:
            found: Case = await session.get_one(Case, UUID(case["id"]))
            return found

    async def pipeline(self, case: dict[str, Any]) -> AiPipeline:
        async with self.transaction() as session:
            query = select(AiPipeline).where(AiPipeline.case_id == UUID(case["id"]))
            found: AiPipeline = (await session.scalars(query)).one()
            return found

    async def results(self, case: dict[str, Any]) -> list[str]:
        """The endpoints whose answer is kept, in the order of keeping."""
        async with self.transaction() as session:
            query = select(AiResult.endpoint).where(AiResult.case_id == UUID(case["id"]))
            return list(await session.scalars(query.order_by(AiResult.id)))

    async def triage_events(self, case: dict[str, Any]) -> list[tuple[UUID | None, str]]:
        async with self.transaction() as session:
            query = select(CaseEvent).where(
                CaseEvent.case_id == UUID(case["id"]), CaseEvent.action == "triage"
            )
            return [(each.actor, each.detail["source"]) for each in await session.scalars(query)]

    async def time_passes(self) -> None:
        """Leases and waits end."""
        async with self.transaction() as session:
            await session.execute(
                update(AiPipeline).where(AiPipeline.due_at.is_not(None)).values(due_at=func.now())
            )

    async def bells(self) -> int:
        """Bells that ring for what is due now or will be."""
        async with self.asking.database.control() as session:
            query = text(
                "SELECT count(*) FROM control.doorbells WHERE kind = 'ai-pipeline' AND tenant_key = :key"
            )
            return await session.scalar(query, {"key": self.asking.scope.key}) or 0

    async def somebody_waits_for_a_lock(self) -> bool:
        query = text(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        async with self.asking.database.control() as session:
            return bool(await session.scalar(query))

    async def used(self) -> int:
        """AI calls that were counted, without what was leased and not used."""
        await self.asking.counter.close()
        query = text(
            "SELECT coalesce(sum(used), 0) FROM control.usage JOIN control.tenants t ON t.id = tenant_id "
            "WHERE t.key = :key AND metric = 'ai_calls'"
        )
        async with self.asking.database.control() as session:
            return int(await session.scalar(query, {"key": self.asking.scope.key}) or 0)


@pytest.fixture(scope="module")
async def open_ward(world: World) -> Ward:
    await world.create_tenant(SLUG)
    clinic = await Clinic.open(world, SLUG)
    return Ward(clinic, Asking.of(world.parts, world.tenant(SLUG).scope))


@pytest.fixture
async def ward(open_ward: Ward) -> AsyncIterator[Ward]:
    yield open_ward
    async with open_ward.transaction() as session:  # what one test left due is not the next one's
        await session.execute(update(AiPipeline).values(due_at=None))


@pytest.fixture
def onlooker(ai_url: str) -> Iterator[Onlooker]:
    onlooker = Onlooker(ai_url)

    async def look(request: Request) -> Response:
        return await onlooker(request)

    with serving(Starlette(routes=[Route("/v1/{endpoint}", look, methods=["POST"])])) as url:
        onlooker.url = url
        yield onlooker
        onlooker.holding = False


@pytest.fixture
def faults(ai_url: str) -> Iterator[Callable[..., None]]:
    def switch(**faults: Any) -> None:
        assert httpx.put(f"{ai_url}/faults", json=faults).status_code == 200

    yield switch
    switch()


async def test_a_submitted_case_is_triaged_by_the_worker(ward: Ward, world: World) -> None:
    case = await ward.clinic.submitted(symptoms=RASH)
    assert case["status"] == "submitted"
    others = text("DELETE FROM control.doorbells WHERE kind = 'ai-pipeline' AND tenant_key <> :key")
    async with world.database.control() as session:  # other files' cases would be worked on first
        await session.execute(others, {"key": ward.asking.scope.key})
    worker = background_worker(world.parts)
    while (await ward.pipeline(case)).due_at is not None:
        assert await worker.run_one()

    assert await ward.results(case) == [str(endpoint) for endpoint in PIPELINE]
    assert (await ward.pipeline(case)).outcomes == ALL_DONE
    after = await ward.case(case)
    assert (after.status, after.triage_level, after.triage_source) == ("triaged", "routine", "ai")
    assert await ward.triage_events(case) == [(None, "ai")]
    coordinator = ward.clinic.coordinator.http
    listed = ok(await coordinator.get(f"/v1/cases/{case['id']}/ai-results"))["items"]
    assert {result["requested_by"] for result in listed} == {None}
    seen = ok(await coordinator.get(f"/v1/cases/{case['id']}"))
    placement = {"specialty": "dermatology", "pool": "shared"}
    assert ok(await act(ward.clinic.coordinator, seen, "enqueue", placement))["status"] == "queued"
    assert await ward.run() == 0


async def test_a_draft_is_not_asked_about(ward: Ward) -> None:
    before = await ward.bells()
    await ward.clinic.draft(symptoms=RASH)
    assert await ward.run() == 0
    assert await ward.bells() == before


async def test_a_worker_killed_between_call_and_commit_repeats_the_same_call(
    ward: Ward, onlooker: Onlooker
) -> None:
    case = await ward.clinic.submitted(symptoms=RASH)
    async with ward.with_ai(onlooker.url) as watched:
        onlooker.holding = True
        killed = asyncio.create_task(watched.run())
        await onlooker.called(1)
        async with ward.transaction() as session:  # its commit waits for this lock; the answer is there
            await session.execute(
                select(AiPipeline.id).where(AiPipeline.case_id == UUID(case["id"])).with_for_update()
            )
            onlooker.holding = False
            async with asyncio.timeout(10):
                while not await ward.somebody_waits_for_a_lock():
                    await asyncio.sleep(0.01)
            killed.cancel()
            with pytest.raises(asyncio.CancelledError):
                await killed
        assert await ward.results(case) == []
        assert await watched.run() == 0, "its lease holds"
        await ward.time_passes()
        assert await watched.run() == 1
    asked = [endpoint for endpoint, _ in onlooker.calls]
    assert asked == ["image-validity", *map(str, PIPELINE)]
    assert len({key for _, key in onlooker.calls}) == len(PIPELINE)
    assert await ward.results(case) == [str(endpoint) for endpoint in PIPELINE]
    assert await ward.triage_events(case) == [(None, "ai")]


async def test_a_lease_that_ended_early_leaves_one_answer(ward: Ward, onlooker: Onlooker) -> None:
    case = await ward.clinic.submitted(symptoms=RASH)
    async with ward.with_ai(onlooker.url) as watched:
        onlooker.holding = True
        slow = asyncio.create_task(watched.run())
        await onlooker.called(1)
        await ward.time_passes()
        fast = asyncio.create_task(watched.run())
        await onlooker.called(2)
        onlooker.holding = False
        await asyncio.gather(slow, fast)
    assert sorted(await ward.results(case)) == sorted(PIPELINE)
    assert len(set(onlooker.calls)) == len(PIPELINE)
    assert await ward.triage_events(case) == [(None, "ai")]
    assert (await ward.pipeline(case)).due_at is None


async def test_while_the_ai_is_away_the_case_waits_and_is_caught_up_later(ward: Ward) -> None:
    used = await ward.used()
    case = await ward.clinic.submitted(symptoms=RASH)
    async with ward.with_ai(f"http://127.0.0.1:{free_port()}") as alone:
        bells = await ward.bells()
        for attempt in (1, 2):
            assert await alone.run() == 1
            waiting = await ward.pipeline(case)
            assert (len(waiting.remaining), waiting.attempts) == (4, attempt)
            assert set(waiting.outcomes.values()) == {"ai-unreachable"}
            assert await ward.bells() == bells + 2 * attempt, "for a crash, and for the next attempt"
            assert await alone.run() == 0, "not before its time"
            await ward.time_passes()
    assert (await ward.case(case)).status == "submitted"
    assert await ward.run() == 1
    assert (await ward.case(case)).status == "triaged"
    assert (await ward.pipeline(case)).outcomes == ALL_DONE
    assert await ward.used() - used == len(PIPELINE), "an attempt that came to nothing costs nothing more"


async def test_without_an_ai_service_nothing_is_tried(ward: Ward) -> None:
    case = await ward.clinic.submitted(symptoms=RASH)
    async with ward.with_ai(None) as none:
        assert await none.run() == 0
    assert (await ward.pipeline(case)).attempts == 0
    assert await ward.run() == 1


async def test_503_twice_and_then_fine_is_one_attempt(ward: Ward, faults: Callable[..., None]) -> None:
    case = await ward.clinic.submitted(symptoms=RASH)
    faults(status=503, times=2)
    assert await ward.run() == 1
    done = await ward.pipeline(case)
    assert (done.outcomes, done.attempts) == (ALL_DONE, 0)


async def test_one_that_fails_does_not_hold_up_the_others(ward: Ward, faults: Callable[..., None]) -> None:
    case = await ward.clinic.submitted(symptoms=RASH)
    faults(status=500, endpoint="image-validity", times=1)
    await ward.run()
    waiting = await ward.pipeline(case)
    assert (waiting.remaining, waiting.outcomes["image-validity"]) == (["image-validity"], "ai-unreachable")
    assert (await ward.case(case)).status == "triaged"
    await ward.time_passes()
    await ward.run()
    assert (await ward.pipeline(case)).outcomes == ALL_DONE


async def test_what_the_ai_rejects_is_not_asked_again(ward: Ward, faults: Callable[..., None]) -> None:
    case = await ward.clinic.submitted(symptoms=RASH)
    faults(status=422, endpoint="triage", times=1)
    await ward.run()
    done = await ward.pipeline(case)
    assert (done.due_at, done.outcomes) == (None, ALL_DONE | {"triage": "ai-input-rejected"})
    assert (await ward.case(case)).status == "submitted", "for the manual queue"


async def test_a_case_waits_for_a_model_that_is_gone_until_the_pin_changes(
    ward: Ward, world: World, onlooker: Onlooker
) -> None:
    async def pin(version: str | None) -> None:
        async with world.admin.control() as session:
            await update_tenant(session, SLUG, {"ai_model": version})
        await asyncio.sleep(0.3)

    case = await ward.clinic.draft(symptoms=RASH)
    state = f"/v1/cases/{case['id']}/ai"
    nothing = {"remaining": [], "outcomes": {}, "attempts": 0, "due_at": None}
    assert ok(await ward.clinic.coordinator.http.get(state)) == nothing
    case = ok(await act(ward.clinic.referrer, case, "submit", CONSENT))
    async with ward.with_ai(onlooker.url) as watched:
        await pin("0.9")
        await watched.run()
        waiting = ok(await ward.clinic.coordinator.http.get(state))
        assert waiting["remaining"] == list(PIPELINE)
        assert waiting["outcomes"] == dict.fromkeys(PIPELINE, "ai-model-missing")
        assert (waiting["attempts"], waiting["due_at"] > case["submitted_at"]) == (1, True)
        assert (await ward.case(case)).status == "submitted", "for the manual queue"
        await pin("1.0.0")
        await ward.time_passes()
        await watched.run()
        assert (await ward.pipeline(case)).outcomes == ALL_DONE
        assert len(set(onlooker.calls)) == 2 * len(PIPELINE), "another version is another question"
        await pin(None)
    done = ok(await ward.clinic.referrer.http.get(state))
    assert (done["remaining"], done["outcomes"], done["due_at"]) == ([], ALL_DONE, None)
    for stranger in (await world.person("referrer", tenant=SLUG), await world.person("coordinator")):
        assert (await stranger.http.get(state)).status_code == 404


async def test_an_abstention_leaves_triage_to_people(ward: Ward) -> None:
    case = await ward.clinic.submitted(symptoms=["unheard_of"])
    await ward.run()
    done = await ward.pipeline(case)
    assert (done.due_at, done.outcomes["triage"]) == (None, "abstained")
    assert (await ward.case(case)).status == "submitted"
    said = {"level": "soon", "reasons": ["Looks so."]}
    case = ok(await act(ward.clinic.coordinator, case, "triage", said))
    assert (case["status"], case["triage_level"]) == ("triaged", "soon")


async def test_an_emergency_is_found(ward: Ward) -> None:
    case = await ward.clinic.submitted(symptoms=MENINGITIS)
    await ward.run()
    after = await ward.case(case)
    assert (after.status, after.emergency, after.urgency, after.triage_level) == (
        "triaged",
        True,
        0,
        "emergency",
    )


async def test_red_flags_count_without_triage(ward: Ward, faults: Callable[..., None]) -> None:
    case = await ward.clinic.submitted(symptoms=MENINGITIS)
    faults(status=500, endpoint="triage")
    await ward.run()
    after = await ward.case(case)
    assert (after.status, after.emergency, after.urgency) == ("submitted", True, 0)


@pytest.mark.parametrize(
    ("symptoms", "said", "then"),
    [
        (["non_blanching_rash"], "routine", ("urgent", "ai")),
        (["itch"], "urgent", ("urgent", "coordinator")),
        (MENINGITIS, "routine", ("emergency", "red_flags")),
    ],
)
async def test_a_coordinator_who_was_faster_is_only_ever_raised(
    ward: Ward, symptoms: list[str], said: str, then: tuple[str, str]
) -> None:
    case = await ward.clinic.queued(level=said, symptoms=symptoms)
    before = await ward.case(case)
    await ward.run()
    after = await ward.case(case)
    assert (after.status, after.triage_level, after.triage_source) == ("queued", *then)
    assert after.due_at is not None
    assert before.due_at is not None
    raised = then[1] != "coordinator"
    assert (after.due_at < before.due_at, after.version > before.version) == (raised, raised)
    assert await ward.triage_events(case) == [(ward.clinic.coordinator.user_id, "coordinator")]


async def test_a_case_withdrawn_meanwhile_is_not_asked_about(ward: Ward, onlooker: Onlooker) -> None:
    case = await ward.clinic.submitted(symptoms=RASH)
    ok(await act(ward.clinic.referrer, case, "cancel", {"reason": "A mistake."}))
    async with ward.with_ai(onlooker.url) as watched:
        assert await watched.run() == 1
    assert onlooker.calls == []
    assert set((await ward.pipeline(case)).outcomes.values()) == {"case-over"}
    assert (await ward.case(case)).status == "cancelled"


async def test_workers_at_once_ask_everything_once(ward: Ward, onlooker: Onlooker) -> None:
    cases = [await ward.clinic.submitted(symptoms=RASH) for _ in range(4)]
    async with ward.with_ai(onlooker.url) as watched:
        worked = await asyncio.gather(*(watched.run() for _ in range(3)))
    assert sum(worked) == len(cases)
    assert len(onlooker.calls) == len(set(onlooker.calls)) == len(cases) * len(PIPELINE)
    for case in cases:
        assert sorted(await ward.results(case)) == sorted(PIPELINE)
        assert await ward.triage_events(case) == [(None, "ai")]


async def test_what_was_asked_of_the_draft_is_not_asked_again(ward: Ward, onlooker: Onlooker) -> None:
    case = await ward.clinic.draft(symptoms=RASH)
    ok(await ward.clinic.referrer.http.post(f"/v1/cases/{case['id']}/ai/triage"))
    case = ok(
        await act(ward.clinic.referrer, case, "submit", {"consent": {"wording": "I agree to be looked at."}})
    )
    async with ward.with_ai(onlooker.url) as watched:
        await watched.run()
    assert [endpoint for endpoint, _ in onlooker.calls] == ["image-validity", "red-flags", "diagnosis"]
    assert (await ward.pipeline(case)).outcomes == ALL_DONE
    assert (await ward.case(case)).status == "triaged"


async def test_beyond_the_quota_only_emergencies_are_looked_for(world: World) -> None:
    await world.create_tenant("sparing")
    async with world.admin.control() as session:
        await set_quota(session, "sparing", "ai_calls", 1)
    await world.parts[Directory].refresh()
    clinic = await Clinic.open(world, "sparing")
    ward = Ward(clinic, Asking.of(world.parts, world.tenant("sparing").scope))
    case = await clinic.submitted(symptoms=RASH)
    await ward.run()
    assert (await ward.pipeline(case)).outcomes == ALL_DONE | {"diagnosis": "quota-exceeded"}
    assert (await ward.case(case)).status == "triaged"
    assert await ward.used() == 3
