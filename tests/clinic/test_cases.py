"""Cases and patients over HTTP: the whole way, who may do what, and what is kept."""

import json
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import func, select, text

from clinic.ai.models import AiResult
from clinic.cases.models import Case
from clinic.cases.transitions import ROUTED
from clinic.patients.models import Patient
from core.ai_contract import TriageResponse
from core.ids import new_id
from tenants.audit.models import AuditEvent
from tenants.directory.cache import Directory
from tenants.plans.service import set_quota
from tests.clinic.journey import ANSWER, CONSENT, NEW_CASE, Clinic, act, ok, photograph
from tests.fixtures.world import World


@pytest.fixture(scope="session")
async def clinic(world: World) -> Clinic:
    return await Clinic.open(world)


async def test_a_case_walks_from_draft_to_closed(clinic: Clinic) -> None:
    physician, registered = await clinic.physician()
    draft = ok(await clinic.referrer.http.post("/v1/cases", json=NEW_CASE), 201)
    assert draft["reference"].startswith("D-")
    assert (draft["patient_sex"], draft["patient_birth_year"]) == ("female", 1984)
    assert draft["allowed_actions"] == ["submit", "cancel"]
    read = await clinic.referrer.http.get(f"/v1/cases/{draft['id']}")
    assert ok(read) == draft, "the short way of reading leaves nothing out"
    assert read.headers["ETag"] == '"1"'

    refused = await act(clinic.referrer, draft, "submit", CONSENT)
    assert (refused.status_code, refused.json()["type"][-13:]) == (409, "image-missing")
    ok(await clinic.referrer.http.post(f"/v1/cases/{draft['id']}/images", json=photograph()), 201)
    case = ok(await act(clinic.referrer, draft, "submit", CONSENT))
    assert (case["status"], case["version"]) == ("submitted", draft["version"] + 1)

    case = ok(await clinic.coordinator.http.get(f"/v1/cases/{draft['id']}"))
    assert case["allowed_actions"] == ["triage"]
    case = ok(await act(clinic.coordinator, case, "triage", {"level": "urgent", "reasons": ["It grew."]}))
    assert (case["triage_level"], case["triage_source"], case["emergency"]) == (
        "urgent",
        "coordinator",
        False,
    )
    case = ok(await act(clinic.coordinator, case, "enqueue", {"specialty": "dermatology"}))
    assert case["due_at"] > case["submitted_at"]

    case = ok(await physician.http.get(f"/v1/cases/{draft['id']}"))
    assert case["allowed_actions"] == ["claim"]
    case = ok(await act(physician, case, "claim"))
    assert (case["status"], case["physician_id"]) == ("assigned", registered["id"])
    case = ok(await act(physician, case, "start"))
    assert case["allowed_actions"] == ["answer"]
    case = ok(await act(physician, case, "answer", ANSWER))
    assert case["allowed_actions"] == []
    assert (case["answered_by"], case["answer"]) == (registered["id"], ANSWER["text"])
    assert ok(await physician.http.get("/v1/physicians/me"))["open_cases"] == 0

    case = ok(await act(clinic.referrer, case, "close"))
    assert (case["status"], case["allowed_actions"]) == ("closed", [])
    events = ok(await clinic.referrer.http.get(f"/v1/cases/{draft['id']}/events"))["items"]
    walked = ["submit", "triage", "enqueue", "claim", "start", "answer", "close"]
    assert [event["action"] for event in reversed(events)] == walked
    async with clinic.world.database.tenant(clinic.world.tenant().scope) as session:
        audited = await session.scalars(
            select(AuditEvent.action).where(AuditEvent.subject == UUID(draft["id"])).order_by(AuditEvent.id)
        )
        assert [name for name in audited if name.removeprefix("case.") in walked] == [
            f"case.{name}" for name in walked
        ]


async def test_every_allowed_action_has_its_route(clinic: Clinic) -> None:
    paths = clinic.world.app.openapi()["paths"]
    for action in ROUTED:
        assert paths[f"/v1/cases/{{case_id}}/{action}"]["post"]["operationId"] == f"cases_{action}"


async def test_what_identifies_a_patient_is_encrypted_and_its_reading_audited(clinic: Clinic) -> None:
    case = ok(await clinic.referrer.http.post("/v1/cases", json=NEW_CASE), 201)
    patient = ok(await clinic.referrer.http.get(f"/v1/patients/{case['patient_id']}"))
    assert (patient["name"], patient["birth_date"]) == ("Ada Example", "1984-05-17")
    assert patient["contact"] == {"email": "ada@patients.example", "phone": None}
    async with clinic.world.database.tenant(clinic.world.tenant().scope) as session:
        row = await session.get_one(Patient, UUID(case["patient_id"]))
        stored = await session.scalar(
            text("SELECT patients::text || encode(sealed, 'escape') FROM patients WHERE id = :id"),
            {"id": row.id},
        )
        assert b"Ada" not in row.sealed
        assert "Ada" not in str(stored)
        assert "ada@" not in str(stored)
        read = select(func.count()).where(AuditEvent.subject == row.id, AuditEvent.action == "patient.read")
        assert await session.scalar(read) == 1


async def test_what_one_may_not_see_does_not_exist(clinic: Clinic) -> None:
    case = await clinic.submitted()
    path, patient_path = f"/v1/cases/{case['id']}", f"/v1/patients/{case['patient_id']}"
    registered, _ = await clinic.physician()
    strangers = [
        await clinic.world.person("referrer"),
        await clinic.world.person("patient"),
        await clinic.world.person("physician"),
        registered,
        await clinic.world.person("tenant_admin", "coordinator", tenant="globex"),
    ]
    for stranger in strangers:
        for hidden in (path, f"{path}/events", patient_path):
            assert (await stranger.http.get(hidden)).status_code == 404
        assert case["id"] not in (await stranger.http.get("/v1/cases")).text
        answer = await stranger.http.post(f"{path}/cancel", json={"reason": "x"}, headers={"If-Match": '"2"'})
        assert answer.status_code in {403, 404}
    for concerned in (clinic.referrer, clinic.coordinator, clinic.admin):
        assert (await concerned.http.get(path)).status_code == 200
        assert (await concerned.http.get(patient_path)).status_code == 200


async def test_a_physician_sees_what_waits_but_no_name_until_it_is_theirs(clinic: Clinic) -> None:
    case = await clinic.queued()
    physician, _ = await clinic.physician()
    assert (await physician.http.get(f"/v1/cases/{case['id']}")).status_code == 200
    assert (await physician.http.get(f"/v1/patients/{case['patient_id']}")).status_code == 404
    ok(await act(physician, case, "claim"))
    assert ok(await physician.http.get(f"/v1/patients/{case['patient_id']}"))["name"] == "Ada Example"
    other, _ = await clinic.physician()
    assert (await other.http.get(f"/v1/cases/{case['id']}")).status_code == 404


async def test_seeing_a_case_is_not_yet_being_allowed_to_move_it(clinic: Clinic) -> None:
    case = await clinic.submitted()
    refused = await act(clinic.admin, case, "close")
    assert (refused.status_code, refused.json()["action"]) == (403, "close")
    refused = await act(clinic.referrer, case, "triage", {"level": "soon", "reasons": ["x"]})
    assert refused.status_code == 403
    assert refused.json()["scope"] == "cases:triage"
    refused = await act(clinic.referrer, case, "submit", CONSENT)
    assert (refused.status_code, refused.json()["case_status"]) == (409, "submitted")
    case = ok(await act(clinic.admin, case, "cancel", {"reason": "Entered twice."}))
    assert case["status"] == "cancelled"


async def test_a_lost_update_is_prevented(clinic: Clinic) -> None:
    draft = await clinic.draft()
    path, seen = f"/v1/cases/{draft['id']}", {"If-Match": f'"{draft["version"]}"'}
    first = await clinic.referrer.http.patch(
        path, json={"duration_days": 75, "body_site": None}, headers=seen
    )
    changed = ok(first)
    assert (changed["duration_days"], changed["body_site"]) == (75, None)
    assert (changed["complaint"], changed["region"]) == (draft["complaint"], draft["region"])
    assert first.headers["ETag"] == f'"{draft["version"] + 1}"'
    stale = await clinic.referrer.http.patch(path, json={"duration_days": 90}, headers=seen)
    assert (stale.status_code, stale.json()["version"]) == (412, changed["version"])
    assert (await act(clinic.referrer, draft, "submit", CONSENT)).status_code == 412
    assert (await clinic.referrer.http.patch(path, json={"duration_days": 90})).status_code == 428
    ok(await act(clinic.referrer, changed, "submit", CONSENT))
    late = await clinic.referrer.http.patch(
        path, json={"duration_days": 90}, headers={"If-Match": f'"{changed["version"] + 1}"'}
    )
    assert (late.status_code, late.json()["case_status"]) == (409, "submitted")


@pytest.mark.parametrize(
    ("said", "ai", "red_flag", "level", "source"),
    [
        ({"level": "soon", "reasons": ["r"]}, "emergency", False, "emergency", "ai"),
        ({"level": "urgent", "reasons": ["r"]}, "routine", False, "urgent", "coordinator"),
        ({"level": "soon", "reasons": ["r"]}, "soon", False, "soon", "coordinator"),
        ({"source": "ai"}, "soon", False, "soon", "ai"),
        ({"source": "ai"}, "routine", True, "emergency", "red_flags"),
        ({"level": "routine", "reasons": ["r"]}, None, True, "emergency", "red_flags"),
    ],
)
async def test_the_more_urgent_opinion_counts(
    clinic: Clinic, said: dict[str, Any], ai: str | None, red_flag: bool, level: str, source: str
) -> None:
    case = await clinic.submitted()
    async with clinic.world.database.tenant(clinic.world.tenant().scope) as session:
        for answer in ("emergency", ai):  # the latest counts, not an earlier one
            if ai is not None:
                session.add(ai_triage(UUID(case["id"]), answer))
                await session.flush()
        if red_flag:
            (await session.get_one(Case, UUID(case["id"]))).emergency = True
    case = ok(await clinic.coordinator.http.get(f"/v1/cases/{case['id']}"))
    case = ok(await act(clinic.coordinator, case, "triage", said))
    assert (case["triage_level"], case["triage_source"]) == (level, source)
    assert case["emergency"] == (level == "emergency")


def ai_triage(case_id: UUID, level: str | None) -> AiResult:
    response = TriageResponse.model_validate(
        {
            "request_id": str(new_id()),
            "model": {"name": "reference", "version": "1"},
            "input_hash": "0" * 64,
            "latency_ms": 1,
            "abstained": level is None,
            "abstain_reason": None if level else "too little is known",
            "level": level,
            "target_hours": 1 if level else None,
        }
    )
    return AiResult(
        case_id=case_id,
        endpoint="triage",
        requested_by=new_id(),
        input_hash="0" * 64,
        image_hashes=[],
        model_name="reference",
        model_version="1",
        latency_ms=1,
        response=response.model_dump(mode="json"),
    )


async def test_an_ai_that_abstained_decides_nothing(clinic: Clinic) -> None:
    case = await clinic.submitted()
    async with clinic.world.database.tenant(clinic.world.tenant().scope) as session:
        session.add(ai_triage(UUID(case["id"]), None))
    refused = await act(clinic.coordinator, case, "triage", {"source": "ai"})
    assert (refused.status_code, refused.json()["type"][-12:]) == (409, "no-ai-triage")
    assert ok(await act(clinic.coordinator, case, "triage", {"level": "soon", "reasons": ["r"]}))


async def test_a_patient_has_one_record_and_sees_their_own_cases(clinic: Clinic) -> None:
    person = await clinic.world.person("patient")
    first = ok(await person.http.post("/v1/cases", json=NEW_CASE), 201)
    again = await person.http.post("/v1/cases", json=NEW_CASE)
    assert (again.status_code, again.json()["patient_id"]) == (409, first["patient_id"])
    known = {name: value for name, value in NEW_CASE.items() if name != "patient"}
    second = ok(await person.http.post("/v1/cases", json=known | {"patient_id": first["patient_id"]}), 201)
    theirs = ok(await person.http.get("/v1/cases?mine=true"))["items"]
    assert [case["id"] for case in theirs] == [second["id"], first["id"]]
    foreign = await clinic.draft()
    borrowed = await person.http.post("/v1/cases", json=known | {"patient_id": foreign["patient_id"]})
    assert borrowed.status_code == 404


async def test_a_retried_creation_makes_one_case(clinic: Clinic) -> None:
    headers = {"Idempotency-Key": str(new_id())}
    first = await clinic.referrer.http.post("/v1/cases", json=NEW_CASE, headers=headers)
    again = await clinic.referrer.http.post("/v1/cases", json=NEW_CASE, headers=headers)
    assert ok(first, 201) == ok(again, 201)
    assert again.headers["Idempotency-Replayed"] == "true"
    other = await clinic.referrer.http.post("/v1/cases", json=NEW_CASE | {"locale": "en"}, headers=headers)
    assert other.status_code == 422


async def test_a_used_up_quota_refuses_neither_a_submission_nor_an_answer(world: World) -> None:
    await world.create_tenant("frugal")
    clinic = await Clinic.open(world, "frugal")
    physician, _ = await clinic.physician()
    draft, case = await clinic.draft(), await clinic.queued()
    case = ok(await act(physician, ok(await act(physician, case, "claim")), "start"))
    async with world.admin.control() as session:
        await set_quota(session, "frugal", "requests", 0)
    await world.parts[Directory].refresh()
    assert (await clinic.referrer.http.get(f"/v1/cases/{draft['id']}")).status_code == 429
    assert (await act(clinic.referrer, draft, "cancel", {"reason": "x"})).status_code == 429
    assert ok(await act(clinic.referrer, draft, "submit", CONSENT))["status"] == "submitted"
    assert ok(await act(physician, case, "answer", ANSWER))["status"] == "answered"


async def test_a_list_is_filtered_and_paged(clinic: Clinic) -> None:
    referrer = await clinic.world.person("referrer")
    mine = Clinic(clinic.world, clinic.tenant, clinic.admin, clinic.coordinator, referrer)
    made = [(await mine.draft())["id"] for _ in range(3)]
    emergency = await mine.queued("emergency", "dermato-oncology")
    pages, url = [], "/v1/cases?limit=2"
    while url:
        page = await referrer.http.get(url)
        pages.append([case["id"] for case in ok(page)["items"]])
        url = page.links.get("next", {}).get("url", "")
    assert pages == [[emergency["id"], made[2]], [made[1], made[0]]]
    for query, found in {
        "status=draft": 3,
        "status=queued&emergency=true&specialty=dermato-oncology": 1,
        "emergency=false": 3,
        "specialty=dermatology": 0,
        "mine=true": 4,
    }.items():
        assert len(ok(await referrer.http.get(f"/v1/cases?{query}"))["items"]) == found, query


@pytest.mark.parametrize(
    "change",
    [
        {"complaint": "nul \0 inside"},
        {"complaint": "half \ud83d of a pair"},
        {"complaint": "   "},
        {"complaint": None},
        {"complaint": "x" * 2001},
        {"region": "XX"},
        {"region": "de"},
        {"fitzpatrick": 7},
        {"duration_days": -1},
        {"symptoms": ["x"] * 51},
        {"symptoms": ["\0"]},
        {"locale": "en\0"},
        {"status": "answered"},
        {"patient_id": "0198b0c5-0000-7000-8000-000000000000"},
        {"patient": {**NEW_CASE["patient"], "birth_date": "2999-01-01"}},  # type: ignore[dict-item]
        {"patient": {**NEW_CASE["patient"], "name": "\0"}},  # type: ignore[dict-item]
    ],
    ids=lambda change: json.dumps(change)[:40],
)
async def test_nonsense_is_refused_by_name(clinic: Clinic, change: dict[str, Any]) -> None:
    body = json.dumps(NEW_CASE | change)
    answer = await clinic.referrer.http.post(
        "/v1/cases", content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 422, answer.text
    if next(iter(change)) != "patient_id":
        assert next(iter(change)) in answer.json()["errors"][0]["location"]
