"""Questions to the AI Service through the gateway: what it is told, what is kept, and what its answers do."""

import asyncio
import base64
import hashlib
import io
import json
from typing import Any
from uuid import UUID

import httpx
import pytest
from PIL import Image as Picture
from sqlalchemy import func, select, text
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from clinic.ai import service
from clinic.ai.client import AiClient
from clinic.ai.models import AiResult
from clinic.ai.schemas import AskedImage, CaseQuestion, Question
from clinic.ai.service import Asking, pseudonym
from clinic.cases.models import Case
from core.access import Principal
from core.ai_contract import AiEndpoint
from core.blobs import BlobStores
from core.database import Database
from core.jail import Jail
from core.spool import Spool
from tenants.audit.models import AuditEvent
from tenants.directory.cache import Directory
from tenants.directory.service import update_tenant
from tenants.plans.counter import UsageCounter
from tenants.plans.service import set_quota
from tests.clinic.journey import Clinic, ok, photograph
from tests.fixtures.servers import serving
from tests.fixtures.world import World

MENINGITIS = ["fever", "non_blanching_rash", "very_unwell"]


@pytest.fixture(scope="module")
async def clinic(world: World) -> Clinic:
    return await Clinic.open(world)


async def row_of(world: World, case_id: str) -> Case:
    async with world.database.tenant(world.tenant().scope) as session:
        return await session.get_one(Case, UUID(case_id))


@pytest.mark.parametrize("endpoint", list(AiEndpoint))
async def test_every_question_can_be_asked_without_a_case(
    clinic: Clinic, world: World, endpoint: AiEndpoint
) -> None:
    picture = {name: photograph()[name] for name in ("data", "media_type")}
    question = {
        "context": {"age_years": 41, "symptoms": ["itch", "ring_shape"]},
        "images": [picture | {"image_id": "first", "view": "close_up"}],
    }
    answer = ok(await clinic.referrer.http.post(f"/v1/ai/{endpoint}", json=question))
    assert answer["model"]["name"].startswith("dermadetect-reference")
    async with world.database.tenant(world.tenant().scope) as session:
        kept = await session.scalar(
            select(AiResult).where(AiResult.input_hash == answer["input_hash"]).limit(1)
        )
    assert kept is not None
    assert (kept.case_id, kept.endpoint, kept.response["model"]) == (None, endpoint.value, answer["model"])
    assert len(kept.image_hashes) == 1


async def test_answers_about_a_case_are_kept_and_listed(clinic: Clinic) -> None:
    case = await clinic.draft(symptoms=["itch"])
    path = f"/v1/cases/{case['id']}"
    answers = [ok(await clinic.referrer.http.post(f"{path}/ai/{endpoint}")) for endpoint in AiEndpoint]
    listed = ok(await clinic.coordinator.http.get(f"{path}/ai-results"))["items"]
    assert [result["endpoint"] for result in listed] == list(reversed(AiEndpoint))
    assert [result["response"] for result in listed] == list(reversed(answers))
    (image,) = ok(await clinic.referrer.http.get(f"{path}/images"))["items"]
    display = await clinic.referrer.http.get(f"{path}/images/{image['id']}/content?variant=display")
    assert {*listed[0]["image_hashes"]} == {hashlib.sha256(display.content).hexdigest()}
    page = await clinic.coordinator.http.get(f"{path}/ai-results?limit=3")
    rest = await clinic.coordinator.http.get(page.headers["Link"].split(">")[0].lstrip("<"))
    assert ok(page)["items"] + ok(rest)["items"] == listed


async def test_answers_given_lead_to_other_questions(clinic: Clinic) -> None:
    case = await clinic.draft(symptoms=["rash"])
    path = f"/v1/cases/{case['id']}/ai/next-question"
    first = ok(await clinic.referrer.http.post(path))["questions"]
    body = {"answers": [{"link_id": question["link_id"], "value": False} for question in first]}
    second = ok(await clinic.referrer.http.post(path, json=body))["questions"]
    assert {each["link_id"] for each in first}.isdisjoint({each["link_id"] for each in second})


async def test_what_the_ai_service_is_told_names_nobody(clinic: Clinic, world: World, ai_url: str) -> None:
    told: list[dict[str, Any]] = []

    async def listen(request: Request) -> Response:
        body = await request.body()
        told.append(json.loads(body))
        async with httpx.AsyncClient() as real:
            answer = await real.post(f"{ai_url}{request.url.path}", json=json.loads(body))
        return Response(answer.content, media_type="application/json")

    case = await clinic.draft(history="Ada Example, born in May, lives at the lake.", symptoms=["itch"])
    tenant = world.tenant()
    principal = Principal(
        tenant=tenant.scope,
        kind="user",
        subject=clinic.referrer.user_id,
        session=clinic.referrer.session_id,
        roles=frozenset({"referrer"}),
        scopes=frozenset(),
    )
    with serving(Starlette(routes=[Route("/v1/{endpoint}", listen, methods=["POST"])])) as url:
        client = AiClient(url, None, deadline_s=10)
        asking = Asking(
            scope=tenant.scope,
            directory=world.parts[Directory],
            database=world.parts[Database],
            client=client,
            counter=world.parts[UsageCounter],
            stores=world.parts[BlobStores],
            jail=world.parts[Jail],
            spool=world.parts[Spool],
            max_image_bytes=10**7,
            max_image_pixels=10**7,
        )
        await service.ask_about_case(
            asking, principal, AiEndpoint.DIAGNOSIS, UUID(case["id"]), CaseQuestion()
        )
        exif = Picture.Exif()
        exif[0x010E] = "Ada Example at the lake"
        file = io.BytesIO()
        Picture.new("RGB", (64, 64)).save(file, "JPEG", exif=exif)
        data = base64.b64encode(file.getvalue()).decode()
        image = AskedImage(image_id="1", data=data, media_type="image/jpeg")
        question = Question(images=[image])
        await service.ask(asking, principal, AiEndpoint.DIAGNOSIS, question)
        await client.aclose()

    about_case, free = told
    assert about_case["case_ref"] == pseudonym(tenant.scope, UUID(case["id"]))
    for secret in ("Ada", "lake", case["id"], case["reference"], case["patient_id"], "1984"):
        assert secret not in json.dumps(about_case)
    assert about_case["context"]["sex"] == "female"
    assert about_case["context"]["age_years"] in range(42, 150)
    assert about_case["images"][0]["view"] == "close_up"
    assert b"Ada" not in base64.b64decode(free["images"][0]["base64"])
    assert pseudonym(world.tenant("globex").scope, UUID(case["id"])) != about_case["case_ref"]


async def test_red_flags_mark_an_emergency_for_good(clinic: Clinic, world: World) -> None:
    case = await clinic.queued(symptoms=MENINGITIS)
    before = await row_of(world, case["id"])
    assert (before.emergency, before.urgency, before.triage_level) == (False, 3, "routine")
    path = f"/v1/cases/{case['id']}/ai/red-flags"
    assert ok(await clinic.coordinator.http.post(path))["emergency"] is True
    after = await row_of(world, case["id"])
    assert (after.emergency, after.urgency, after.triage_level) == (True, 0, "emergency")
    assert after.due_at is not None
    assert before.due_at is not None
    assert after.due_at < before.due_at
    assert after.version == before.version + 1

    # A later answer without danger signs takes nothing back, and the same one again changes nothing.
    calm = {"answers": [{"link_id": symptom, "value": False} for symptom in MENINGITIS]}
    ok(await clinic.coordinator.http.post(path, json=calm))
    ok(await clinic.coordinator.http.post(path))
    last = await row_of(world, case["id"])
    assert (last.emergency, last.urgency, last.version) == (True, 0, after.version)
    async with world.database.tenant(world.tenant().scope) as session:
        assert (
            await session.scalar(
                select(func.count()).where(
                    AuditEvent.action == "case.emergency", AuditEvent.subject == UUID(case["id"])
                )
            )
            == 1
        )


async def test_harmless_answers_leave_the_case_as_it_is(clinic: Clinic, world: World) -> None:
    case = await clinic.queued(symptoms=["itch"])
    for endpoint in AiEndpoint:
        ok(await clinic.coordinator.http.post(f"/v1/cases/{case['id']}/ai/{endpoint}"))
    after = await row_of(world, case["id"])
    assert (after.emergency, after.urgency, after.version) == (False, 3, case["version"])


async def test_whose_case_it_is_not_asks_nothing(clinic: Clinic, world: World) -> None:
    case = await clinic.draft()
    for who, status in (
        (await world.person("referrer"), 404),
        (await world.person("referrer", tenant="globex"), 404),
        (await world.person("auditor"), 403),
    ):
        assert (await who.http.post(f"/v1/cases/{case['id']}/ai/triage")).status_code == status
        assert (await who.http.get(f"/v1/cases/{case['id']}/ai-results")).status_code == status


@pytest.mark.parametrize(
    "change",
    [
        {"images": [{"image_id": "1", "url": "http://127.0.0.1/secret"}]},
        {"images": [{"image_id": "1", "data": "R0lG", "media_type": "image/jpeg"}]},
        {"images": [{"image_id": "1", "data": "?", "media_type": "image/jpeg"}]},
        {"context": {"age_years": 200}},
        {"case_ref": "mine"},
        {"answers": [{"link_id": "x"}]},
    ],
)
async def test_what_is_no_question_is_refused(clinic: Clinic, change: dict[str, Any]) -> None:
    refused = await clinic.referrer.http.post("/v1/ai/diagnosis", json=change)
    assert refused.status_code in (415, 422)


async def test_the_quota_stops_all_but_the_search_for_emergencies(world: World) -> None:
    await world.create_tenant("ai-frugal")
    async with world.admin.control() as session:
        await set_quota(session, "ai-frugal", "ai_calls", 1)
    await world.parts[Directory].refresh()
    who = await world.person("referrer", tenant="ai-frugal")
    ok(await who.http.post("/v1/ai/diagnosis", json={}))
    refused = await who.http.post("/v1/ai/diagnosis", json={})
    assert (refused.status_code, refused.json()["metric"]) == (429, "ai_calls")
    ok(await who.http.post("/v1/ai/red-flags", json={}))
    ok(await who.http.post("/v1/ai/triage", json={}))
    async with world.database.control() as session:
        used = await session.scalar(
            text(
                "SELECT used FROM control.usage JOIN control.tenants t ON t.id = tenant_id "
                "WHERE t.slug = 'ai-frugal' AND metric = 'ai_calls'"
            )
        )
    assert used == 3


async def test_a_pinned_model_is_asked_for_and_no_other(world: World) -> None:
    await world.create_tenant("pinned")

    async def pin(version: str | None) -> None:
        async with world.admin.control() as session:
            await update_tenant(session, "pinned", {"ai_model": version})
        async with asyncio.timeout(10):  # the running gateway notices by itself
            while world.tenant("pinned").ai_model != version:
                await asyncio.sleep(0.02)

    clinic = await Clinic.open(world, "pinned")
    ask = clinic.referrer.http.post
    case = await clinic.draft()
    paths = ("/v1/ai/triage", f"/v1/cases/{case['id']}/ai/triage")
    free = [ok(await ask(path, json={})) for path in paths]
    await pin("1.0.0")
    for path, before in zip(paths, free, strict=True):
        assert ok(await ask(path, json={}))["input_hash"] != before["input_hash"], "the version is asked for"
        ok(await ask(path, json={"model_version": "1.0.0"}))
        refused = await ask(path, json={"model_version": "1.0.1"})
        assert (refused.status_code, refused.json()["model_version"]) == (422, "1.0.0")
        assert refused.json()["type"].endswith(":ai-model-pinned")
    await pin("0.9")
    for path in paths:
        missing = await ask(path, json={})
        assert (missing.status_code, missing.headers["Retry-After"]) == (503, "600")
        assert missing.json()["type"].endswith(":ai-model-missing")
    await pin(None)
    for path in paths:
        ok(await ask(path, json={}))
        gone = await ask(path, json={"model_version": "0.9"})
        assert gone.json()["type"].endswith(":ai-model-missing")
    kept = ok(await clinic.referrer.http.get(f"/v1/cases/{case['id']}/ai-results"))["items"]
    assert [result["model_version"] for result in kept] == ["1.0.0"] * 4


async def test_every_question_describes_its_own_answer(world: World) -> None:
    paths = world.app.openapi()["paths"]
    for endpoint in AiEndpoint:
        for path in (f"/v1/ai/{endpoint}", f"/v1/cases/{{case_id}}/ai/{endpoint}"):
            schema = paths[path]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
            assert schema["$ref"].endswith(f"{endpoint.name.title().replace('_', '')}Response")
