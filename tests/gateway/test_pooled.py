"""Five tenants behind PgBouncer in transaction mode with one server connection, which so serves all of them in turn."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import cycle, islice

import pytest
from sqlalchemy import text

from clinic.ai.models import AiPipeline, AiResult
from core.database import Database, TenantScope
from gateway.assembly import background_worker
from tests.clinic.journey import CONSENT, NEW_CASE, act, ok, photograph
from tests.fixtures.pgbouncer import pooled
from tests.fixtures.postgres import PostgresServer
from tests.fixtures.world import Person, World, open_world, settings_for

SLUGS = ("canary1", "canary2", "canary3", "canary4", "canary5")


@dataclass(frozen=True)
class Canary:
    """What only one tenant has, and somebody who may see it."""

    scope: TenantScope
    person: Person
    case_id: str
    secret: str
    image_id: str
    picture: str

    async def look(self) -> None:
        """Read the case, the list of cases, and the photograph as a stream."""
        http = self.person.http
        assert ok(await http.get(f"/v1/cases/{self.case_id}"))["complaint"] == self.secret
        assert [each["id"] for each in ok(await http.get("/v1/cases"))["items"]] == [self.case_id]
        path = f"/v1/cases/{self.case_id}/images/{self.image_id}/content"
        digest = hashlib.sha256()
        async with http.stream("GET", path, params={"variant": "original"}) as answer:
            assert answer.status_code == 200
            async for chunk in answer.aiter_bytes(1024):
                digest.update(chunk)
                await asyncio.sleep(0)
        assert digest.hexdigest() == self.picture


@pytest.fixture(scope="module")
async def behind_pgbouncer(
    postgres: PostgresServer, ai_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    logins = await postgres.create_database("pooled")
    directory = tmp_path_factory.mktemp("pooled")
    async with pooled(logins.gateway_url, directory) as url:
        settings = settings_for(
            logins.admin_url, url, directory / "blobs", ai_url=ai_url, database_pooler="transaction"
        )
        async with open_world(settings, *SLUGS) as world:
            yield world


@pytest.fixture(scope="module")
async def canaries(behind_pgbouncer: World) -> list[Canary]:
    world, found = behind_pgbouncer, []
    for number, slug in enumerate(SLUGS):
        person = await world.person("referrer", tenant=slug)
        secret = f"complaint of {slug}"
        case = ok(await person.http.post("/v1/cases", json=NEW_CASE | {"complaint": secret}), 201)
        picture = photograph(shade=40 * number)
        image = ok(await person.http.post(f"/v1/cases/{case['id']}/images", json=picture), 201)
        found.append(
            Canary(world.tenant(slug).scope, person, case["id"], secret, image["id"], image["sha256"])
        )
    return found


async def test_every_request_sees_its_own_tenant(canaries: list[Canary]) -> None:
    await asyncio.gather(*(canary.look() for canary in islice(cycle(canaries), 60)))


async def test_cancelled_failed_and_nested_transactions_leave_nothing_to_the_next(
    behind_pgbouncer: World, canaries: list[Canary]
) -> None:
    database = behind_pgbouncer.parts[Database]

    async def seen(scope: TenantScope, ending: str) -> None:
        async with database.tenant(scope) as session:
            async with session.begin_nested():
                whose = (await session.execute(text("SELECT current_user, complaint FROM cases"))).all()
            assert [each.current_user for each in whose] == [scope.role]
            if ending == "failed":
                await session.execute(text("SELECT 1/0"))
            elif ending == "slow":
                await session.execute(text("SELECT pg_sleep(9)"))
            elif ending == "rolled back":
                await session.rollback()
                assert await session.scalar(text("SELECT current_user")) == scope.role

    async def one(number: int) -> None:
        canary = canaries[number % len(canaries)]
        ending = ("committed", "failed", "slow", "rolled back")[number // len(canaries) % 4]
        task = asyncio.create_task(seen(canary.scope, ending))
        if ending == "slow":
            await asyncio.sleep(0.02 * (number % 7))
            task.cancel()
        outcome = (await asyncio.gather(task, return_exceptions=True))[0]
        expected = {"failed": "division by zero", "slow": ""}.get(ending)
        if expected is None:
            assert outcome is None
        else:
            assert outcome is not None
            assert expected in str(outcome)

    for start in range(0, 80, 20):
        await asyncio.gather(*(one(number) for number in range(start, start + 20)))
    await asyncio.gather(*(canary.look() for canary in canaries))


async def test_background_work_is_done_in_its_own_tenant(
    behind_pgbouncer: World, canaries: list[Canary]
) -> None:
    """Each submitted case is asked about by the worker, while requests go on; each answer lands in its own schema."""
    world = behind_pgbouncer
    for canary in canaries:
        case = ok(await canary.person.http.get(f"/v1/cases/{canary.case_id}"))
        ok(await act(canary.person, case, "submit", CONSENT))
    worker = background_worker(world.parts)
    done = False

    async def requests() -> None:
        while not done:
            await asyncio.gather(*(canary.look() for canary in canaries))

    async def asked() -> bool:
        async with world.parts[Database].control() as session:
            due = text(
                "SELECT count(*) FROM control.doorbells WHERE kind = 'ai-pipeline' AND due_at <= now()"
            )
            return not await session.scalar(due)

    load = asyncio.create_task(requests())
    async with asyncio.timeout(30):
        # Reading rings bells of its own all the time, so the worker is never idle meanwhile.
        while not await asked():
            await worker.run_one()
    done = True
    await load
    for canary in canaries:
        async with world.parts[Database].tenant(canary.scope) as session:
            pipelines = (await session.scalars(AiPipeline.__table__.select())).all()
            results = await session.execute(AiResult.__table__.select())
            assert len(pipelines) == 1
            assert {str(each.case_id) for each in results} == {canary.case_id}
