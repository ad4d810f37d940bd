"""From host to tenant, and the refusals on the way."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.database import Database
from core.problems import Unavailable
from tenants.directory import service as directory
from tenants.directory.cache import Directory
from tenants.routing import parse_host
from tests.fixtures.world import World


@pytest.mark.parametrize(
    ("header", "host"),
    [
        (b"acme.localhost", "acme.localhost"),
        (b"ACME.localhost:8000", "acme.localhost"),
        (b"acme.localhost.", "acme.localhost"),
        (b"acme.localhost.:443", "acme.localhost"),
        (b"xn--hautrzte-4za.example", "xn--hautrzte-4za.example"),
        (b"", None),
        (b"acme.localhost:", None),
        (b"acme.localhost:99999999", None),
        (b"acme.localhost, globex.localhost", None),
        (b"acme.localhost@globex.localhost", None),
        (b"acme.localhost/", None),
        (b" acme.localhost", None),
        (b"acme.localhost\x00", None),
        ("ácme.localhost".encode(), None),
        (b"[::1]:8000", None),
        (b"-acme.localhost", None),
        (b"a" * 300, None),
    ],
)
def test_parse_host(header: bytes, host: str | None) -> None:
    assert parse_host(header) == host


@given(st.binary(max_size=300))
def test_parse_host_gives_a_plain_lower_case_name_or_nothing(header: bytes) -> None:
    host = parse_host(header)
    if host is not None:
        assert host == host.lower()
        assert set(host) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-")
        assert header.lower().startswith(host.encode())


@pytest.mark.parametrize("host", ["nobody.localhost", "acme.localhost.evil.example", "acme", "127.0.0.1"])
async def test_an_unknown_host_is_404(world: World, host: str) -> None:
    answer = await (await world.http(host)).get("/v1/me")
    assert answer.status_code == 404
    assert answer.json()["type"].endswith(":unknown-host")


async def test_two_host_headers_are_refused(world: World) -> None:
    http = await world.http()
    answer = await http.get("/v1/me", headers=[("Host", "acme.localhost"), ("Host", "globex.localhost")])
    assert answer.status_code == 404


async def test_forwarded_host_is_not_believed(world: World) -> None:
    http = await world.http("nobody.localhost")
    forwarded = {"X-Forwarded-Host": "acme.localhost"}
    assert (await http.get("/v1/me", headers=forwarded)).status_code == 404


async def test_the_platform_host_serves_no_tenant(world: World) -> None:
    http = await world.http("localhost")
    assert (await http.get("/.well-known/jwks.json")).status_code == 404
    assert (await http.get("/healthy")).status_code == 200


async def test_a_suspended_tenant_is_403_and_comes_back(world: World) -> None:
    await world.create_tenant("pausing")
    person = await world.person("coordinator", tenant="pausing")
    assert (await person.http.get("/v1/me")).status_code == 200
    async with world.admin.control() as session:
        await directory.suspend(session, "pausing", "unpaid")
    await world.parts[Directory].refresh()
    refused = await person.http.get("/v1/me")
    assert refused.status_code == 403
    assert refused.json()["type"].endswith(":tenant-suspended")
    assert "unpaid" not in refused.text
    async with world.admin.control() as session:
        await directory.resume(session, "pausing")
    await world.parts[Directory].refresh()
    assert (await person.http.get("/v1/me")).status_code == 200


async def test_the_poll_notices_a_change_within_a_second(world: World) -> None:
    await world.create_tenant("polled")
    http = await world.http("polled.localhost")
    async with world.admin.control() as session:
        await directory.suspend(session, "polled", "test")
    deadline = asyncio.get_running_loop().time() + 1.0
    while (await http.get("/.well-known/jwks.json")).status_code != 403:
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.02)


async def test_a_stale_view_refuses_instead_of_guessing(world: World) -> None:
    database = Database("postgresql://nobody:x@127.0.0.1:1/none", pool_size=1)
    stale = Directory(database)
    with pytest.raises(Unavailable):
        await stale.fresh()
    await database.close()
