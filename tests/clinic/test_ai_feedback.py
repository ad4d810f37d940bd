"""What physicians make of the AI Service's answers."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select

from core.ai_contract import AiEndpoint
from core.ids import new_id
from tenants.audit.models import AuditEvent
from tests.clinic.journey import ANSWER, Clinic, act, ok
from tests.fixtures.world import Person, World

ITEM: dict[AiEndpoint, Callable[[Any], str]] = {
    AiEndpoint.DIAGNOSIS: lambda response: response["differential"][0]["label"],
    AiEndpoint.RED_FLAGS: lambda response: response["flags"][0]["code"],
    AiEndpoint.TRIAGE: lambda response: "level",
    AiEndpoint.IMAGE_VALIDITY: lambda response: response["images"][0]["image_id"],
    AiEndpoint.NEXT_QUESTION: lambda response: response["questions"][0]["link_id"],
}


@dataclass
class Reviewed:
    """A case in review, its physician, and what the AI Service said about it, by endpoint."""

    clinic: Clinic
    case: dict[str, Any]
    physician: Person
    registered: dict[str, Any]
    results: dict[str, dict[str, Any]]

    def path(self, endpoint: AiEndpoint = AiEndpoint.TRIAGE) -> str:
        return f"/v1/cases/{self.case['id']}/ai-results/{self.results[endpoint]['id']}/feedback"


@pytest.fixture
async def reviewed(world: World) -> Reviewed:
    clinic = await Clinic.open(world)
    case = await clinic.queued(symptoms=["itch", "ring_shape"])
    path = f"/v1/cases/{case['id']}"
    for endpoint in AiEndpoint:
        ok(await clinic.coordinator.http.post(f"{path}/ai/{endpoint}"))
    listed = ok(await clinic.coordinator.http.get(f"{path}/ai-results"))["items"]
    physician, registered = await clinic.physician()
    case = ok(await clinic.coordinator.http.get(path))
    case = ok(await act(physician, ok(await act(physician, case, "claim")), "start"))
    return Reviewed(clinic, case, physician, registered, {each["endpoint"]: each for each in listed})


def slug(answer: Any) -> str:
    return str(answer.json()["type"].rsplit(":", 1)[1])


async def test_an_item_of_every_kind_of_answer_can_be_judged(reviewed: Reviewed) -> None:
    for endpoint in AiEndpoint:
        item = ITEM[endpoint](reviewed.results[endpoint]["response"])
        given = ok(
            await reviewed.physician.http.post(
                reviewed.path(endpoint), json={"item": item, "verdict": "accepted"}
            )
        )
        assert (given["item"], given["verdict"], given["reason"]) == (item, "accepted", None)
        assert given["physician_id"] == reviewed.registered["id"]
        assert ok(await reviewed.clinic.coordinator.http.get(reviewed.path(endpoint)))["items"] == [given]


async def test_a_later_verdict_supersedes_the_earlier_one_and_both_stay(
    reviewed: Reviewed, world: World
) -> None:
    async def give(verdict: str, reason: str | None = None) -> Any:
        body = {"item": "level", "verdict": verdict, "reason": reason}
        return ok(await reviewed.physician.http.post(reviewed.path(), json=body))

    first = await give("accepted")
    assert await give("accepted") == first
    second = await give("overridden", "It bleeds; see the photograph.")
    third = await give("overridden", "It bleeds again.")
    assert (first["supersedes"], second["supersedes"], third["supersedes"]) == (
        None,
        first["id"],
        second["id"],
    )
    (listed,) = ok(await reviewed.physician.http.get(f"{reviewed.path()}?current=true"))["items"]
    assert listed == third
    listed = ok(await reviewed.physician.http.get(reviewed.path()))["items"]
    assert listed == [
        third,
        second | {"superseded_by": third["id"]},
        first | {"superseded_by": second["id"]},
    ]
    async with world.database.tenant(world.tenant().scope) as session:
        told = (
            await session.scalars(
                select(AuditEvent.detail)
                .where(
                    AuditEvent.action == "ai.feedback",
                    AuditEvent.subject.in_([UUID(each["id"]) for each in (first, second, third)]),
                )
                .order_by(AuditEvent.id)
            )
        ).all()
    assert [each["verdict"] for each in told] == ["accepted", "overridden", "overridden"]
    assert all("bleeds" not in str(each) for each in told)


async def test_simultaneous_verdicts_leave_one_standing(reviewed: Reviewed) -> None:
    answers = await asyncio.gather(
        *(
            reviewed.physician.http.post(reviewed.path(), json={"item": "level", "verdict": verdict})
            for verdict in ("accepted", "overridden") * 4
        )
    )
    given = {ok(answer)["id"] for answer in answers}
    listed = ok(await reviewed.physician.http.get(reviewed.path()))["items"]
    assert {each["id"] for each in listed} == given
    assert [each["supersedes"] for each in listed] == [*(each["id"] for each in listed[1:]), None]
    assert len(ok(await reviewed.physician.http.get(f"{reviewed.path()}?current=true"))["items"]) == 1


async def test_a_repeated_request_does_not_bring_an_old_verdict_back(reviewed: Reviewed) -> None:
    async def give(verdict: str, key: str) -> Any:
        body = {"item": "level", "verdict": verdict}
        return await reviewed.physician.http.post(
            reviewed.path(), json=body, headers={"Idempotency-Key": key}
        )

    ok(await give("accepted", "first"))
    second = ok(await give("overridden", "second"))
    late = await give("accepted", "first")
    assert late.headers["Idempotency-Replayed"] == "true"
    assert ok(late)["superseded_by"] == second["id"]
    assert slug(await give("accepted", "second")) == "idempotency-key-reused"


async def test_only_the_physician_who_holds_the_case_judges(reviewed: Reviewed, world: World) -> None:
    body = {"item": "level", "verdict": "accepted"}
    other, _ = await reviewed.clinic.physician()
    both = await world.person("physician", "coordinator")
    for who, status, expected in (
        (other, 404, "case-not-found"),
        (reviewed.clinic.referrer, 403, "forbidden"),
        (reviewed.clinic.coordinator, 403, "forbidden"),
        (both, 403, "not-your-part"),
        (await world.person("physician", tenant="globex"), 404, "case-not-found"),
    ):
        answer = await who.http.post(reviewed.path(), json=body)
        assert (answer.status_code, slug(answer)) == (status, expected)
    assert slug(await other.http.get(reviewed.path())) == "case-not-found"
    assert ok(await reviewed.clinic.referrer.http.get(reviewed.path()))["items"] == []


async def test_when_a_verdict_can_be_given(reviewed: Reviewed) -> None:
    body = {"item": "level", "verdict": "accepted"}
    case = ok(await act(reviewed.physician, reviewed.case, "answer", ANSWER))
    ok(await reviewed.physician.http.post(reviewed.path(), json=body))
    ok(await act(reviewed.clinic.referrer, case, "close"))
    closed = await reviewed.physician.http.post(reviewed.path(), json=body | {"verdict": "overridden"})
    assert (closed.status_code, closed.json()["case_status"]) == (409, "closed")


async def test_what_is_no_verdict_is_refused(reviewed: Reviewed) -> None:
    body = {"item": "level", "verdict": "accepted"}
    unknown = await reviewed.physician.http.post(reviewed.path(), json=body | {"item": "score"})
    assert (unknown.status_code, slug(unknown), unknown.json()["items"]) == (
        422,
        "ai-item-unknown",
        ["level"],
    )
    for change in ({"verdict": "maybe"}, {"reason": ""}, {"reason": "a\0b"}, {"item": ""}, {"extra": 1}):
        assert (await reviewed.physician.http.post(reviewed.path(), json=body | change)).status_code == 422
    # An answer about another case does not belong to this one.
    other = await reviewed.clinic.draft()
    ok(await reviewed.clinic.referrer.http.post(f"/v1/cases/{other['id']}/ai/triage"))
    listed = ok(await reviewed.clinic.referrer.http.get(f"/v1/cases/{other['id']}/ai-results"))["items"]
    for result_id in (listed[0]["id"], new_id()):
        path = f"/v1/cases/{reviewed.case['id']}/ai-results/{result_id}/feedback"
        for answer in (
            await reviewed.physician.http.post(path, json=body),
            await reviewed.physician.http.get(path),
        ):
            assert (answer.status_code, slug(answer)) == (404, "ai-result-not-found")
