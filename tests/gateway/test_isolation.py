"""Two tenants, every route: what belongs to one cannot be reached from the other by token, host or id."""

import re
from dataclasses import dataclass
from typing import Any

import pytest
from fastapi.routing import APIRoute

from auth.roles import ROLES
from core.ids import UUID, new_id
from core.pagination import encode_cursor
from gateway.app import ROUTERS
from tests.clinic.journey import ANSWER, CONSENT, NEW_CASE, Clinic, act, ok, photograph
from tests.fixtures.world import Person, World

SENTINEL = "Sentinel-Globex-7Q"

OPERATIONS = {
    f"{method} {route.path}": (method, route.path)
    for router in ROUTERS
    for route in router.routes
    if isinstance(route, APIRoute) and route.path.startswith("/v1/")
    for method in sorted(route.methods or ())
}
WITH_ID = {name: operation for name, operation in OPERATIONS.items() if "{" in name}

# A body that would do, so that a refusal is for the id and not for the body.
BODIES: dict[str, Any] = {
    "POST /v1/cases/{case_id}/submit": CONSENT,
    "POST /v1/cases/{case_id}/triage": {"level": "routine", "reasons": ["Looks so."]},
    "POST /v1/cases/{case_id}/enqueue": {"specialty": "dermatology"},
    "POST /v1/cases/{case_id}/decline": {"reason": "Holiday."},
    "POST /v1/cases/{case_id}/cancel": {"reason": "Mistake."},
    "POST /v1/cases/{case_id}/answer": ANSWER,
    "POST /v1/cases/{case_id}/images": photograph(),
    "POST /v1/cases/{case_id}/reports": {},
    "POST /v1/cases/{case_id}/images/{image_id}/annotations": {
        "shape": "point",
        "geometry": {"x": 0.5, "y": 0.5},
        "label": "lesion",
    },
    "POST /v1/cases/{case_id}/ai-results/{result_id}/feedback": {"item": "level", "verdict": "accepted"},
    "PATCH /v1/cases/{case_id}": {"complaint": "Changed from outside."},
    "PATCH /v1/physicians/{physician_id}": {"available": False},
    "PATCH /v1/users/{user_id}": {"granted_roles": []},
    "POST /v1/cases": {key: value for key, value in NEW_CASE.items() if key != "patient"},
}


@dataclass
class Globex:
    """A finished case of globex: the ids of everything in it, and somebody who may see it all."""

    ids: dict[str, str]
    insider: Person
    key: str
    etag: str


@pytest.fixture(scope="module")
async def globex(world: World) -> Globex:
    clinic = await Clinic.open(world, "globex")
    patient = NEW_CASE["patient"] | {"name": SENTINEL}  # type: ignore[operator]
    physician, registered = await clinic.physician()
    case = await clinic.queued(complaint=SENTINEL, patient=patient)
    ok(await clinic.coordinator.http.post(f"/v1/cases/{case['id']}/ai/triage", json={}))
    results = ok(await clinic.coordinator.http.get(f"/v1/cases/{case['id']}/ai-results"))["items"]
    case = ok(await clinic.coordinator.http.get(f"/v1/cases/{case['id']}"))
    case = ok(await act(physician, case, "claim"))
    case = ok(await act(physician, case, "start"))
    images = ok(await physician.http.get(f"/v1/cases/{case['id']}/images"))
    image = (images["items"] if isinstance(images, dict) else images)[0]
    case = ok(await act(physician, case, "answer", ANSWER | {"text": SENTINEL}))
    report = await physician.http.post(f"/v1/cases/{case['id']}/reports", json={})
    assert report.status_code in (200, 201), report.text
    invited = {"email": f"{new_id()}@invited.example", "roles": ["auditor"]}
    invitation = ok(await clinic.admin.http.post("/v1/users/invitations", json=invited), 201)
    return Globex(
        {
            "case_id": case["id"],
            "image_id": image["id"],
            "result_id": results[0]["id"],
            "patient_id": case["patient_id"],
            "physician_id": registered["id"],
            "report_id": report.json()["id"],
            "user_id": str(physician.user_id),
            "session_id": str(physician.session_id),
            "invitation_id": invitation["id"],
        },
        clinic.coordinator,
        world.tenant("globex").scope.key,
        f'"{case["version"]}"',
    )


@pytest.fixture(scope="module")
async def outsider(world: World) -> Person:
    """Somebody of acme with every role there is."""
    return await world.person(*ROLES)


def url(path: str, ids: dict[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda match: ids[match[1]], path)


def leaks(globex: Globex, text: str) -> bool:
    return SENTINEL in text or globex.key in text


@pytest.mark.parametrize("name", WITH_ID)
async def test_an_id_of_another_tenant_does_not_exist_here(
    outsider: Person, globex: Globex, name: str
) -> None:
    method, path = WITH_ID[name]
    answer = await outsider.http.request(
        method, url(path, globex.ids), json=BODIES.get(name, {}), headers={"If-Match": globex.etag}
    )
    assert answer.status_code == 404, answer.text
    assert not leaks(globex, answer.text)


@pytest.mark.parametrize("name", OPERATIONS)
async def test_a_token_of_another_tenant_opens_no_route(
    world: World, outsider: Person, globex: Globex, name: str
) -> None:
    method, path = OPERATIONS[name]
    http = await world.http("globex.localhost", Authorization=f"Bearer {outsider.token}")
    answer = await http.request(method, url(path, globex.ids), json=BODIES.get(name, {}))
    assert answer.status_code == 401
    assert not leaks(globex, answer.text)


@pytest.mark.parametrize("name", OPERATIONS)
async def test_no_route_answers_without_a_token(world: World, globex: Globex, name: str) -> None:
    method, path = OPERATIONS[name]
    answer = await (await world.http("globex.localhost")).request(method, url(path, globex.ids))
    assert answer.status_code == 401


LISTS = sorted(path for method, path in OPERATIONS.values() if method == "GET" and "{" not in path)


@pytest.mark.parametrize("path", LISTS)
async def test_no_list_shows_anything_of_another_tenant(outsider: Person, globex: Globex, path: str) -> None:
    for parameters in ({}, {"limit": 200}):
        answer = await outsider.http.get(path, params=parameters)
        assert not leaks(globex, answer.text)
        assert not any(value in answer.text for value in globex.ids.values())


async def test_a_cursor_of_another_tenant_names_no_row_here(outsider: Person, globex: Globex) -> None:
    cursor = encode_cursor(UUID(globex.ids["case_id"]))
    answer = await outsider.http.get("/v1/cases", params={"cursor": cursor})
    assert answer.status_code == 200
    assert not any(value in answer.text for value in globex.ids.values())


async def test_a_patient_of_another_tenant_cannot_be_given_a_case(outsider: Person, globex: Globex) -> None:
    body = BODIES["POST /v1/cases"] | {"patient_id": globex.ids["patient_id"]}
    answer = await outsider.http.post("/v1/cases", json=body)
    assert answer.status_code == 404


async def test_one_idempotency_key_at_two_tenants_makes_two_cases(world: World) -> None:
    ids = set()
    for slug in ("acme", "globex"):
        person = await world.person("referrer", tenant=slug)
        answer = await person.http.post("/v1/cases", json=NEW_CASE, headers={"Idempotency-Key": "same"})
        assert answer.status_code == 201
        assert "Idempotency-Replayed" not in answer.headers
        ids.add(answer.json()["id"])
    assert len(ids) == 2


async def test_the_insider_sees_it_all(globex: Globex) -> None:
    """Else the tests above could pass because there was nothing to see."""
    for path in (
        "/v1/cases/{case_id}",
        "/v1/cases/{case_id}/images/{image_id}",
        "/v1/reports/{report_id}/pdf",
    ):
        assert (await globex.insider.http.get(url(path, globex.ids))).status_code == 200
    assert leaks(globex, (await globex.insider.http.get(url("/v1/cases/{case_id}", globex.ids))).text)


# What anybody who is signed in may ask.
FOR_ANYONE = {"GET /v1/me", "GET /v1/sessions", "DELETE /v1/sessions/{session_id}"}


@pytest.mark.parametrize("name", sorted(set(OPERATIONS) - FOR_ANYONE))
async def test_every_route_demands_a_scope(world: World, globex: Globex, name: str) -> None:
    scopeless = await world.person("patient", tenant="globex", scope="none-of-these")
    method, path = OPERATIONS[name]
    body = BODIES.get(name) or example_of(world, method, path)
    answer = await scopeless.http.request(
        method, url(path, globex.ids), json=body, headers={"If-Match": globex.etag}
    )
    assert answer.status_code == 403, answer.text
    assert answer.json()["scope"] in answer.json()["detail"]


def example_of(world: World, method: str, path: str) -> Any:
    """The documented example of a route's body, if it has one."""
    document = world.app.openapi()
    content = document["paths"][path][method.lower()].get("requestBody", {}).get("content", {})
    schema = content.get("application/json", {}).get("schema", {})
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[-1]]
    return schema.get("example", (schema.get("examples") or [{}])[0])
