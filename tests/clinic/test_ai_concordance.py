"""How often physicians agree with the AI Service: who counts, how often, and in which group."""

from typing import Any

import pytest

from clinic.ai.concordance import wilson
from core.ids import new_id
from tests.clinic.journey import Clinic, act, ok
from tests.fixtures.world import Person, World


@pytest.mark.parametrize(
    ("accepted", "judged", "low", "high"),
    [
        # Newcombe, Two-sided confidence intervals for the single proportion. Stat. Med. 1998;17:857-872, table I
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        # and its mirror image
        (20, 20, 0.8389, 1.0),
    ],
)
def test_the_interval_is_wilsons(accepted: int, judged: int, low: float, high: float) -> None:
    assert wilson(accepted, judged) == pytest.approx((low, high), abs=5e-5)


@pytest.fixture
async def clinic(world: World) -> Clinic:
    """A tenant without anybody's verdicts yet."""
    slug = f"agree-{new_id().hex[-8:]}"
    await world.create_tenant(slug)
    return await Clinic.open(world, slug)


async def in_review(clinic: Clinic, physician: Person, **changes: Any) -> dict[str, Any]:
    case = await clinic.queued(symptoms=["itch"], **changes)
    case = ok(await act(physician, case, "claim"))
    started: dict[str, Any] = ok(await act(physician, case, "start"))
    return started


async def triaged(clinic: Clinic, case: dict[str, Any]) -> str:
    """The path to judge another answer of the AI Service on the case's urgency at."""
    path = f"/v1/cases/{case['id']}"
    ok(await clinic.coordinator.http.post(f"{path}/ai/triage"))
    newest = ok(await clinic.coordinator.http.get(f"{path}/ai-results?limit=1"))["items"][0]
    return f"{path}/ai-results/{newest['id']}/feedback"


async def judge(physician: Person, path: str, verdict: str) -> None:
    ok(await physician.http.post(path, json={"item": "level", "verdict": verdict}))


async def groups(clinic: Clinic, query: str = "") -> list[tuple[Any, ...]]:
    found = ok(await clinic.admin.http.get(f"/v1/ai/concordance{query}"))["groups"]
    return [
        tuple(each[name] for name in ("fitzpatrick", "cases", "judged", "accepted", "overridden", "share"))
        for each in found
    ]


async def test_verdicts_are_counted_by_model_and_skin_type(clinic: Clinic) -> None:
    assert await groups(clinic) == []
    physician, _ = await clinic.physician()
    for fitzpatrick, verdict in ((2, "accepted"), (2, "overridden"), (6, "accepted"), (None, "overridden")):
        case = await in_review(clinic, physician, fitzpatrick=fitzpatrick)
        await judge(physician, await triaged(clinic, case), verdict)
    assert await groups(clinic) == [(2, 2, 2, 1, 1, 0.5), (6, 1, 1, 1, 0, 1.0), (None, 1, 1, 0, 1, 0.0)]
    (first, *_) = ok(await clinic.admin.http.get("/v1/ai/concordance"))["groups"]
    assert (first["endpoint"], first["model_version"]) == ("triage", "1.0.0")
    assert (first["low"], first["high"]) == (0.0945, 0.9055)

    # Days are whole and in UTC.
    day = case["submitted_at"][:10]
    assert len(await groups(clinic, f"?since={day}&until={day}")) == 3
    assert await groups(clinic, "?since=2999-01-01") == []
    assert await groups(clinic, "?until=2001-01-01") == []
    assert len(await groups(clinic, "?since=0001-01-01&until=9999-12-31")) == 3


async def test_a_physicians_verdict_on_an_item_counts_once(clinic: Clinic) -> None:
    physician, _ = await clinic.physician()
    case = await in_review(clinic, physician, fitzpatrick=4)
    path = await triaged(clinic, case)
    for verdict in ("accepted", "overridden"):
        await judge(physician, path, verdict)
    assert await groups(clinic) == [(4, 1, 1, 0, 1, 0.0)]
    # The same question again, and judged otherwise: the latest verdict counts.
    await judge(physician, await triaged(clinic, case), "accepted")
    assert await groups(clinic) == [(4, 1, 1, 1, 0, 1.0)]


async def test_who_sees_it(clinic: Clinic, world: World) -> None:
    for role, status in (("auditor", 200), ("physician", 403), ("coordinator", 403), ("patient", 403)):
        who = await world.person(role, tenant=clinic.tenant)
        assert (await who.http.get("/v1/ai/concordance")).status_code == status
