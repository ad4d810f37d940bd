"""Browser apps on other origins: those of a tenant's registered apps, and no others."""

import pytest

from auth.oauth.service import register_client
from gateway.cors import origins_of
from tests.fixtures.world import World

ORIGIN = "https://spa.example"
ALLOW = "Access-Control-Allow-Origin"


@pytest.fixture(scope="module")
async def slug(world: World) -> str:
    await world.create_tenant("spa")
    async with world.database.tenant(world.tenant("spa").scope) as session:
        await register_client(session, "spa", "Single page", [f"{ORIGIN}/callback", "com.example.app:/cb"])
    return "spa"


def preflight(origin: str, method: str = "POST") -> dict[str, str]:
    return {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "authorization,content-type",
    }


@pytest.mark.parametrize(
    "path", ["/v1/cases", "/v1/no/such/route", "/auth/token", "/auth/revoke", "/.well-known/jwks.json"]
)
async def test_a_preflight_is_answered_before_anybody_signs_in(world: World, slug: str, path: str) -> None:
    http = await world.http(f"{slug}.localhost")
    answer = await http.options(path, headers=preflight(ORIGIN))
    assert answer.status_code == 204
    assert answer.headers[ALLOW] == ORIGIN
    assert "PATCH" in answer.headers["Access-Control-Allow-Methods"]
    assert "Authorization" in answer.headers["Access-Control-Allow-Headers"]
    assert "Access-Control-Allow-Credentials" not in answer.headers
    assert "Origin" in answer.headers["Vary"]


async def test_answers_and_refusals_alike_may_be_read_by_the_app(world: World, slug: str) -> None:
    person = await world.person("coordinator", tenant=slug)
    anybody = await world.http(f"{slug}.localhost")
    answers = [
        await person.http.get("/v1/me", headers={"Origin": ORIGIN}),
        await person.http.get("/v1/audit/events", headers={"Origin": ORIGIN}),
        await anybody.get("/v1/me", headers={"Origin": ORIGIN}),
        await anybody.get("/v1/nothing", headers={"Origin": ORIGIN, "Authorization": "Bearer x"}),
        await anybody.post("/auth/token", headers={"Origin": ORIGIN}),
    ]
    assert [answer.status_code for answer in answers][:1] == [200]
    for answer in answers:
        assert answer.headers[ALLOW] == ORIGIN
        assert "RateLimit" in answer.headers["Access-Control-Expose-Headers"]
        assert "Access-Control-Allow-Credentials" not in answer.headers


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "https://spa.example.evil.example",
        "http://spa.example",
        "https://spa.example:8443",
        "https://SPA.example/",
        "null",
        "*",
        "",
        "com.example.app://",
        "https://app.example, https://spa.example",
        "\xff",
    ],
)
async def test_other_origins_get_no_permission(world: World, slug: str, origin: str) -> None:
    http = await world.http(f"{slug}.localhost")
    for method, path in (("OPTIONS", "/v1/me"), ("GET", "/v1/me"), ("GET", "/.well-known/jwks.json")):
        headers = {name.encode(): value.encode("latin-1") for name, value in preflight(origin).items()}
        answer = await http.request(method, path, headers=headers)
        assert ALLOW not in answer.headers
        assert answer.status_code == {"OPTIONS": 401}.get(method, 401 if path == "/v1/me" else 200)
        assert "Origin" in answer.headers["Vary"]


async def test_an_origin_of_one_tenant_is_nothing_at_another(world: World, slug: str) -> None:
    for host in ("globex.localhost", "localhost"):
        answer = await (await world.http(host)).options("/v1/me", headers=preflight(ORIGIN))
        assert ALLOW not in answer.headers


async def test_pages_that_people_are_sent_to_are_not_for_other_origins(world: World, slug: str) -> None:
    http = await world.http(f"{slug}.localhost")
    for path in ("/auth/authorize", "/auth/saml/acs", "/auth/introspect", "/openapi.json"):
        answer = await http.get(path, headers={"Origin": ORIGIN})
        assert ALLOW not in answer.headers


def test_only_web_addresses_have_an_origin() -> None:
    uris = [
        "https://a.example:444/cb?x=1",
        "http://127.0.0.1:5173/cb",
        "com.example:/cb",
        "https://a.example:444/d",
    ]
    assert origins_of(uris) == {"https://a.example:444", "http://127.0.0.1:5173"}
