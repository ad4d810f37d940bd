"""The platform's API: for whoever holds a platform token, on the platform's own host, in the token's name."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute

import tenants.platform.routes
from core.settings import Settings
from gateway.app import create_app
from gateway.assembly import assemble
from tenants.platform.errors import BadToken, TokenNameTaken, TokenNotFound
from tenants.platform.service import create_token, list_tokens, revoke_token
from tests.clinic.journey import ok
from tests.fixtures.dns import name_server
from tests.fixtures.postgres import PostgresServer
from tests.fixtures.world import World, open_world, settings_for

PLATFORM = "localhost"


@pytest.fixture(scope="module")
async def dns() -> AsyncIterator[tuple[dict[str, str], str]]:
    texts: dict[str, str] = {}
    with name_server(texts) as address:
        yield texts, address


@pytest.fixture(scope="module")
async def operated(
    postgres: PostgresServer, dns: tuple[dict[str, str], str], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    logins = await postgres.create_database("operated")
    settings = settings_for(
        logins.admin_url,
        logins.gateway_url,
        tmp_path_factory.mktemp("blobs"),
        dns_resolvers=dns[1],
        platform_api=True,
    )
    async with open_world(settings, "acme", "globex") as opened:
        yield opened


async def client(world: World, name: str, scope: str = "write", host: str = PLATFORM) -> httpx.AsyncClient:
    async with world.admin.control() as session:
        token = await create_token(session, name, scope)
    return await world.http(host, Authorization=f"Bearer {token}")


async def test_a_tenants_life_over_http(operated: World, dns: tuple[dict[str, str], str]) -> None:
    http = await client(operated, "life")
    acme = "/platform/v1/tenants/acme"
    first = ok(await http.get("/platform/v1/tenants", params={"limit": 1}))
    rest = ok(await http.get("/platform/v1/tenants", params={"cursor": first["next_cursor"]}))
    assert [each["slug"] for each in first["items"] + rest["items"]] == ["globex", "acme"]
    assert ok(await http.get("/platform/v1/tenants", params={"state": "closed"}))["items"] == []

    before = ok(await http.get(acme))
    changed = ok(await http.patch(acme, json={"name": "Acme Health", "ai_model": "2.4.1"}))
    assert changed == before | {"name": "Acme Health", "ai_model": "2.4.1"}
    assert ok(await http.patch(acme, json={"ai_model": None}))["ai_model"] is None
    assert ok(await http.post(f"{acme}/suspend", json={"reason": "unpaid"}))["state"] == "suspended"
    assert ok(await http.post(f"{acme}/resume"))["state"] == "active"
    closing = ok(await http.post(f"{acme}/close", json={"reason": "left", "grace_days": 7}))
    assert (closing["state"], closing["state_reason"]) == ("closing", "left")
    assert closing["purge_after"]
    ok(await http.post(f"{acme}/resume"), 409)
    assert ok(await http.post(f"{acme}/reopen"))["purge_after"] is None

    quotas = {each["metric"]: each for each in ok(await http.put(f"{acme}/quotas/seats", json={"limit": 7}))}
    assert (quotas["seats"]["limit"], quotas["seats"]["source"]) == (7, "override")
    assert ok(await http.get(f"{acme}/quotas")) == list(quotas.values())
    ok(await http.put(f"{acme}/quotas/patience", json={"limit": 7}), 422)

    claimed = ok(await http.post(f"{acme}/domains", json={"domain": "derma.acme.example"}))
    ok(await http.post(f"{acme}/domains/derma.acme.example/verify"), 409)
    dns[0][claimed["record"]] = claimed["challenge"]
    assert ok(await http.post(f"{acme}/domains/derma.acme.example/verify"))["kind"] == "custom"
    assert len(ok(await http.get(f"{acme}/domains"))) == 2
    assert (await http.delete(f"{acme}/domains/derma.acme.example")).status_code == 204

    assert ok(await http.post(f"{acme}/rename", json={"slug": "acme-health"}))["slug"] == "acme-health"
    ok(await http.get(acme), 404)
    ok(await http.post("/platform/v1/tenants/acme-health/rename", json={"slug": "globex"}), 409)
    async with operated.admin.connection() as connection:
        actors = await connection.fetch(
            "SELECT action FROM control.audit_events WHERE actor = 'token:life' ORDER BY id"
        )
    acts = [row["action"] for row in actors]
    assert acts == [
        "tenant.updated", "tenant.updated", "tenant.suspended", "tenant.active", "tenant.closing", "tenant.active",
        "quota.set", "domain.claimed", "domain.verified", "domain.removed", "tenant.renamed",
    ]  # fmt: skip


ROUTES = [
    (method, route.path)
    for route in tenants.platform.routes.router.routes
    if isinstance(route, APIRoute)
    for method in route.methods or ()
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_who_may_not_does_nothing(operated: World, method: str, path: str) -> None:
    path = path.format(tenant="globex", domain="x.example", metric="seats")

    async def status(http: httpx.AsyncClient, body: Any = None) -> int:
        return (await http.request(method, path, json=body)).status_code

    assert await status(await operated.http(PLATFORM)) == 401
    assert await status(await operated.http(PLATFORM, Authorization="Bearer ddp_guess")) == 401
    person = await operated.person("tenant_admin", tenant="globex")
    assert await status(await operated.http(PLATFORM, Authorization=f"Bearer {person.token}")) == 401
    assert await status(person.http) == 404, "a tenant's host knows nothing of the platform"
    name = f"{method}-{path.strip('/').replace('/', '-').replace('.', '-')}".lower()
    writer = await client(operated, name)
    elsewhere = await operated.http("globex.localhost", Authorization=writer.headers["Authorization"])
    assert await status(elsewhere) == 401, "a platform token is nothing at a tenant's"
    if method != "GET":
        reader = await client(operated, f"r-{name}", "read")
        assert await status(reader) == 403


async def test_tokens_are_told_once_and_revoked_at_once(operated: World) -> None:
    http = await client(operated, "leaver", "read")
    ok(await http.get("/platform/v1/tenants"))
    token = http.headers["Authorization"].removeprefix("Bearer ")
    async with operated.admin.control() as session:
        (row,) = [each for each in await list_tokens(session) if each.name == "leaver"]
        assert row.last_used_at is not None
        assert token not in str(vars(row))
        await revoke_token(session, "leaver")
    assert (await http.get("/platform/v1/tenants")).status_code == 401
    async with operated.admin.control() as session:
        for error, attempt in (
            (TokenNameTaken, create_token(session, "leaver", "read")),
            (BadToken, create_token(session, "No Name", "read")),
            (BadToken, create_token(session, "all", "everything")),
            (TokenNotFound, revoke_token(session, "nobody")),
        ):
            with pytest.raises(error):
                await attempt


async def test_a_process_that_is_not_told_to_has_no_such_api(operated: World) -> None:
    http = await client(operated, "elsewhere")
    without = Settings(**operated.settings.model_dump() | {"platform_api": False})
    app = create_app(assemble(without))
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app=app, client=("127.0.0.1", 40000))
        headers = {"Authorization": http.headers["Authorization"]}
        async with httpx.AsyncClient(
            transport=transport, base_url="http://localhost", headers=headers
        ) as other:
            assert (await other.get("/platform/v1/tenants")).status_code == 404
