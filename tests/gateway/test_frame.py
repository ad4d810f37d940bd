"""What every request gets, whatever it asks for: an id, headers, limits, and errors of one shape."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import httpx
import lxml.html
import pytest

from core.limits import RateLimited
from core.telemetry import JsonFormatter
from tenants.directory.cache import Directory
from tenants.plans.service import set_quota
from tests.fixtures.world import World


async def test_every_answer_has_an_id_and_the_security_headers(world: World) -> None:
    http = await world.http()
    first, second = [await http.get(path) for path in ("/healthy", "/nothing-here")]
    assert first.status_code == 200
    assert second.status_code == 404
    assert first.headers["X-Request-Id"] != second.headers["X-Request-Id"]
    for answer in (first, second):
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["Cache-Control"] == "no-store"


async def test_a_problem_names_the_request(world: World) -> None:
    answer = await (await world.http()).get("/nothing-here")
    body = answer.json()
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert body["instance"] == f"urn:uuid:{answer.headers['X-Request-Id']}"
    assert {"type", "title", "status", "detail"} <= set(body)


async def test_a_wrong_method_says_which_are_right(world: World) -> None:
    answer = await (await world.http()).put("/.well-known/jwks.json")
    assert answer.status_code == 405
    assert answer.headers["Allow"] == "GET"
    assert answer.json()["type"].endswith(":method-not-allowed")


async def test_a_long_body_is_refused_by_its_announcement(world: World) -> None:
    answer = await (await world.http()).post(
        "/auth/token", content=b"x", headers={"Content-Length": str(world.settings.max_json_bytes + 1)}
    )
    assert answer.status_code == 413
    assert answer.json()["type"].endswith(":too-large")


async def test_a_long_body_is_refused_while_it_arrives(world: World) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1_000_000
            yield b"a" * 1_000_000

    person = await world.person("referrer")
    answer = await person.http.post(
        "/v1/cases", content=endless(), headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 413
    assert answer.json()["type"].endswith(":too-large")
    assert sent <= world.settings.max_json_bytes + 2_000_000


@pytest.mark.parametrize(
    ("method", "path", "sent", "status"),
    [
        ("GET", "/auth/authorize", {"params": {"client_id": "<b>", "redirect_uri": "https://x"}}, 400),
        ("GET", "/auth/authorize", {"params": {"redirect_uri": "<i>"}}, 422),
        ("POST", "/auth/saml/acs", {"data": {"SAMLResponse": "PHg+", "RelayState": "<b>"}}, 403),
    ],
)
async def test_a_browser_that_signs_in_sees_a_page_with_a_reference(
    world: World, method: str, path: str, sent: dict[str, Any], status: int
) -> None:
    answer = await (await world.http(Accept="text/html,*/*;q=0.8")).request(method, path, **sent)
    assert answer.status_code == status
    assert answer.headers["Content-Type"].startswith("text/html")
    page = lxml.html.document_fromstring(answer.text)
    # What a screen reader goes by, and what every page must have (WCAG 2.2: 2.4.2, 3.1.1, 1.3.1).
    assert page.get("lang") == "en"
    assert page.findtext(".//title") == page.findtext(".//main/h1")
    assert [heading.tag for heading in page.iter("h1", "h2", "h3")] == ["h1", "h2"]
    assert page.findtext(".//main/p/code") == answer.headers["X-Request-Id"]
    # Nothing runs, nothing is fetched, nothing of the request is repeated.
    assert not page.xpath("//script|//img|//link|//iframe|//@onclick|//@src|//@href|//b|//i")
    assert "saml." not in answer.text
    assert "login." not in answer.text


async def test_a_providers_form_has_a_page_for_an_answer_and_a_program_a_document(world: World) -> None:
    form = {"SAMLResponse": "PHg+", "RelayState": "made up"}
    for accept, kind in (("*/*", "text/html"), ("application/json", "application/problem+json")):
        answer = await (await world.http(Accept=accept)).post("/auth/saml/acs", data=form)
        assert answer.status_code == 403
        assert answer.headers["Content-Type"].startswith(kind)
    token = await (await world.http()).post("/auth/token", data={"grant_type": "x"})
    assert token.headers["Content-Type"] == "application/json"


async def limited(world: World, slug: str, **limits: int) -> None:
    await world.create_tenant(slug)
    async with world.admin.control() as session:
        for metric, limit in limits.items():
            await set_quota(session, slug, metric, limit)
    await world.parts[Directory].refresh()


async def test_rate_limits_are_told_and_enforced_per_user(world: World) -> None:
    await limited(world, "limited", requests_per_minute_user=5)
    first, second = [await world.person("coordinator", tenant="limited") for _ in range(2)]
    answers = [await first.http.get("/v1/me") for _ in range(6)]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429]
    assert answers[0].headers["RateLimit-Policy"] == '"user";q=5;w=60'
    assert answers[0].headers["RateLimit"].startswith('"user";r=4;t=')
    refused = answers[-1]
    assert refused.json()["type"].endswith(f":{RateLimited.slug}")
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert (await second.http.get("/v1/me")).status_code == 200


async def test_a_tenants_users_share_its_limit_and_other_tenants_do_not(world: World) -> None:
    await limited(world, "crowded", requests_per_minute_tenant=6)
    people = [await world.person("coordinator", tenant="crowded") for _ in range(3)]
    codes = [(await people[number % 3].http.get("/v1/me")).status_code for number in range(7)]
    assert codes == [200] * 6 + [429]
    other = await world.person("coordinator", tenant="globex")
    assert (await other.http.get("/v1/me")).status_code == 200


async def test_a_declared_limit_counts_each_address_of_a_tenant(world: World) -> None:
    await world.create_tenant("hammered")
    http = await world.http("hammered.localhost")
    codes = [(await http.post("/auth/token", data={"grant_type": "x"})).status_code for _ in range(121)]
    assert codes == [400] * 120 + [429]
    other = httpx.AsyncClient(
        transport=httpx.ASGITransport(app=world.app, client=("127.0.0.2", 1)),
        base_url="http://hammered.localhost",
    )
    async with other:
        assert (await other.post("/auth/token", data={"grant_type": "x"})).status_code == 400


async def test_health_tells_each_component_and_its_latency(world: World) -> None:
    answer = await (await world.http("10.0.0.1")).get("/health")
    assert answer.status_code == 200
    body = answer.json()
    assert body["status"] == "up"
    assert set(body["components"]) == {"database", "blobs", "ai", "limits"}
    assert all(component["latency_ms"] >= 0 for component in body["components"].values())


async def test_a_log_line_holds_the_route_but_neither_path_nor_token(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    person = await world.person("coordinator")
    with caplog.at_level(logging.INFO):
        await person.http.get("/v1/cases/0195b2b0-0000-7000-8000-000000000000?secret=1")
    lines = [JsonFormatter().format(record) for record in caplog.records]
    request = next(json.loads(line) for line in lines if json.loads(line)["message"] == "request")
    assert request["route"] == "/v1/cases/{case_id}"
    assert request["status"] == 404
    ours = [
        line for line, record in zip(lines, caplog.records, strict=True) if record.name != "httpx"
    ]  # the client's
    assert not any(person.token in line or "secret=1" in line for line in ours)


async def test_the_platform_host_refuses_before_it_reads(world: World) -> None:
    read = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        for _ in range(20):
            read += 1
            yield b"[" * 100_000

    answer = await (await world.http("localhost")).post(
        "/v1/cases", content=body(), headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 404
    assert read <= 1  # the test's client sends the first part unasked


async def test_many_questions_for_health_are_one_examination(world: World) -> None:
    http = await world.http()
    await asyncio.sleep(1.1)  # what was found before is stale by then
    answers = await asyncio.gather(*(http.get("/health") for _ in range(50)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1


async def test_a_character_that_cannot_be_stored_is_422(world: World) -> None:
    answer = await (await world.http()).get(
        "/auth/authorize?client_id=a%00b&redirect_uri=https://x.example/", headers={"Accept": "*/*"}
    )
    assert answer.status_code == 422
    assert answer.json()["type"].endswith(":invalid")


async def test_a_tenant_whose_role_is_missing_is_a_fault_and_no_outage(world: World) -> None:
    tenant = await world.create_tenant("roleless")
    person = await world.person("coordinator", tenant="roleless")
    async with world.admin.connection() as connection:
        await connection.execute(f"REVOKE {tenant.scope.role} FROM dermadetect_gateway")
    answer = await person.http.get("/v1/users")
    assert answer.status_code == 500
    assert tenant.scope.role not in answer.text
    assert (await (await world.person("coordinator")).http.get("/v1/users")).status_code == 200


@pytest.mark.parametrize("path", ["/v1/ai/triage", "/v1/cases/0195b2b0-0000-7000-8000-000000000000/images"])
async def test_many_members_are_refused_before_they_are_parsed(world: World, path: str) -> None:
    person = await world.person("referrer")
    answer = await person.http.post(
        path, content=b"[" + b"[]," * 2_000_000 + b"[]]", headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 413
    assert answer.json()["type"].endswith(":too-large")
