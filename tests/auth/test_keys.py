"""A tenant's keys rotated under people who are signed in, and replaced at once when one has leaked."""

import asyncio
import json
from base64 import urlsafe_b64decode
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import update

from auth.keys.errors import BadRotation, KeyInUse, KeyNotFound, RotationUnderWay
from auth.keys.models import TenantKey
from auth.keys.rotation import find_key, list_keys, retire
from auth.keys.service import KeyRing
from core.ids import new_id
from gateway.app import create_app
from gateway.assembly import assemble
from gateway.keys import rotate_key
from tenants.directory.cache import Directory
from tenants.directory.models import Tenant
from tenants.directory.service import find_tenant, next_epoch
from tests.fixtures.world import Person, World

NOW, LATER = timedelta(0), timedelta(hours=1)


@pytest.fixture
async def slug(world: World) -> str:
    """A tenant of the test's own."""
    name = f"keys-{new_id().hex[-10:]}"
    await world.create_tenant(name)
    return name


async def rotate(
    world: World,
    slug: str,
    purpose: str = "token",
    use_after: timedelta = NOW,
    retire_after: timedelta = LATER,
    *,
    revoke_now: bool = False,
) -> UUID:
    made = await rotate_key(
        world.settings,
        world.admin,
        slug,
        purpose,
        use_after=use_after,
        retire_after=retire_after,
        revoke_now=revoke_now,
    )
    await world.parts[Directory].refresh()
    return made.id


async def states(world: World, slug: str, purpose: str = "token") -> dict[UUID, str]:
    async with world.admin.control() as session:
        tenant = await find_tenant(session, slug)
        return {key.id: state for key, state in await list_keys(session, tenant) if key.purpose == purpose}


async def let_pass(world: World, slug: str, time: timedelta) -> None:
    """Everything decided about the tenant's keys lies so much longer back."""
    async with world.admin.control() as session:
        tenant = await find_tenant(session, slug)
        await session.execute(
            update(TenantKey)
            .where(TenantKey.tenant_id == tenant.id)
            .values(active_from=TenantKey.active_from - time, retires_at=TenantKey.retires_at - time)
        )
        tenant.epoch = await next_epoch(session)
    await world.parts[Directory].refresh()


async def published(world: World, slug: str) -> set[str]:
    answer = await (await world.http(f"{slug}.localhost")).get("/.well-known/jwks.json")
    assert answer.headers["Cache-Control"] == "public, max-age=300"
    return {key["kid"] for key in answer.json()["keys"]}


def kid_of(person: Person) -> UUID:
    header = person.token.split(".")[0]
    return UUID(json.loads(urlsafe_b64decode(header + "=" * (-len(header) % 4)))["kid"])


async def status(person: Person) -> int:
    return (await person.http.get("/v1/me")).status_code


async def eventually(holds: Callable[[], Awaitable[bool]], *, within_s: float = 30) -> None:
    async with asyncio.timeout(within_s):
        while not await holds():
            await asyncio.sleep(0.05)


async def test_nobody_notices_a_rotation(world: World, slug: str) -> None:
    before = await world.person("coordinator", tenant=slug)
    old = kid_of(before)
    new = await rotate(world, slug, use_after=timedelta(minutes=10))
    # Published before it signs: who keeps the key set for five minutes has it by then.
    assert await states(world, slug) == {old: "active", new: "next"}
    assert await published(world, slug) == {str(old), str(new)}
    during = await world.person("coordinator", tenant=slug)
    assert kid_of(during) == old

    await let_pass(world, slug, timedelta(minutes=10))
    assert await states(world, slug) == {old: "retiring", new: "active"}
    assert await published(world, slug) == {str(old), str(new)}
    after = await world.person("coordinator", tenant=slug)
    assert kid_of(after) == new
    assert [await status(person) for person in (before, during, after)] == [200, 200, 200]

    await let_pass(world, slug, LATER)
    assert await states(world, slug) == {old: "retired", new: "active"}
    assert await published(world, slug) == {str(new)}
    assert [await status(person) for person in (before, during, after)] == [401, 401, 200]


async def test_time_alone_brings_the_turn_and_the_end(world: World, slug: str) -> None:
    """Nothing is written when a key's turn comes: no worker need run, and no process need hear of it."""
    world_settings = world.settings.model_copy(update={"access_token_s": 1})
    before = await world.person("coordinator", tenant=slug)
    made = await rotate_key(
        world_settings,
        world.admin,
        slug,
        "token",
        use_after=timedelta(seconds=1),
        retire_after=timedelta(seconds=1),
        revoke_now=False,
    )
    await world.parts[Directory].refresh()
    assert await status(before) == 200  # and is remembered now
    scope = world.tenant(slug).scope

    async def signs() -> bool:
        return (await world.parts[KeyRing].token_key(scope)).kid == str(made.id)

    async def refused() -> bool:
        return await status(before) == 401

    await eventually(signs)
    await eventually(refused)
    assert await published(world, slug) == {str(made.id)}


@pytest.fixture
async def other_process(world: World) -> AsyncIterator[Callable[[Person, str], Awaitable[int]]]:
    """What a gateway of its own, with caches of its own, answers somebody."""
    app = create_app(assemble(world.settings))
    async with app.router.lifespan_context(app):
        import httpx

        async def asked(person: Person, slug: str) -> int:
            transport = httpx.ASGITransport(app=app, client=("127.0.0.1", 40001))
            async with httpx.AsyncClient(
                transport=transport,
                base_url=f"http://{slug}.localhost",
                headers={"Authorization": f"Bearer {person.token}"},
            ) as http:
                return (await http.get("/v1/me")).status_code

        yield asked
