"""The storage quota: never exceeded, whoever uploads at once, and given back when a photograph goes."""

import asyncio
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import func, select

from clinic.images.models import Image
from clinic.images.sweeper import settle_reservations
from clinic.reports.models import Report
from core.blobs import BlobStore, BlobStores
from tenants.directory.cache import Directory
from tenants.plans import storage
from tenants.plans.service import set_quota
from tests.clinic.journey import ANSWER, NEW_CASE, Clinic, act, ok, photograph
from tests.fixtures.world import World

SLUG = "attic"


@pytest.fixture(scope="module")
async def clinic(world: World) -> Clinic:
    await world.create_tenant(SLUG)
    return await Clinic.open(world, SLUG)


async def limit_to(world: World, limit: int | None) -> None:
    async with world.admin.control() as session:
        await set_quota(session, SLUG, "storage_bytes", limit)
    await world.parts[Directory].refresh()


async def used(clinic: Clinic) -> int:
    """As the tenant's administrator sees it."""
    quotas = ok(await clinic.admin.http.get("/v1/usage"))["quotas"]
    return next(int(quota["used"]) for quota in quotas if quota["metric"] == "storage_bytes")


async def in_rows(clinic: Clinic) -> int:
    async with clinic.world.database.tenant(clinic.world.tenant(SLUG).scope) as session:
        images = await session.scalar(select(func.coalesce(func.sum(Image.stored_size), 0)))
        reports = await session.scalar(select(func.coalesce(func.sum(Report.size), 0)))
    return int(images or 0) + int(reports or 0)


async def in_store(clinic: Clinic) -> int:
    store: BlobStore = clinic.world.parts[BlobStores].at()
    container, total = clinic.world.tenant(SLUG).scope.container, 0
    async for blob in store.list(container, "cases/"):
        total += len(await (await store.open(container, blob.name)).read())
    return total


async def draft(clinic: Clinic) -> str:
    return str(ok(await clinic.referrer.http.post("/v1/cases", json=NEW_CASE), 201)["id"])


async def upload(clinic: Clinic, case_id: str, shade: int = 120) -> Any:
    return await clinic.referrer.http.post(f"/v1/cases/{case_id}/images", json=photograph(shade))


async def test_parallel_uploads_never_exceed_the_quota(clinic: Clinic, world: World) -> None:
    before = await used(clinic)
    ok(await upload(clinic, await draft(clinic)), 201)
    one = await used(clinic) - before
    assert one > 0
    # The same picture in another case takes the same room: there is some for exactly seven of fifteen, which the jail
    # takes at once (a sixteenth beside other work it might ask to come again).
    cases = [await draft(clinic) for _ in range(15)]
    await limit_to(world, before + 8 * one + one // 2)
    answers = await asyncio.gather(*(upload(clinic, case_id) for case_id in cases))
    assert sorted(answer.status_code for answer in answers) == [201] * 7 + [429] * 8
    refused = next(answer.json() for answer in answers if answer.status_code == 429)
    assert refused["type"].endswith(":quota-exceeded")
    assert (refused["metric"], refused["limit"]) == ("storage_bytes", before + 8 * one + one // 2)
    assert await used(clinic) == before + 8 * one == await in_rows(clinic) == await in_store(clinic)
    # What is there already is there, and takes nothing.
    kept = next(case for case, answer in zip(cases, answers, strict=True) if answer.status_code == 201)
    ok(await upload(clinic, kept), 200)
    await limit_to(world, None)
    ok(await upload(clinic, cases[0], 10), 201)


async def test_a_deleted_photograph_gives_its_bytes_back(clinic: Clinic, world: World) -> None:
    before = await used(clinic)
    case_id = await draft(clinic)
    image = ok(await upload(clinic, case_id), 201)
    full = await used(clinic)
    await limit_to(world, full)
    assert (await upload(clinic, case_id, 10)).status_code == 429
    path = f"/v1/cases/{case_id}/images/{image['id']}"
    removals = await asyncio.gather(*(clinic.referrer.http.delete(path) for _ in range(5)))
    assert sorted(answer.status_code for answer in removals) == [204] + [404] * 4
    assert await used(clinic) == before
    ok(await upload(clinic, case_id), 201)
    assert await used(clinic) == full
    await limit_to(world, None)


async def test_a_swept_reservation_gives_its_bytes_back(clinic: Clinic, world: World) -> None:
    scope = world.tenant(SLUG).scope
    store: BlobStore = world.parts[BlobStores].at()
    before = await used(clinic)
    case_id = await draft(clinic)
    image = ok(await upload(clinic, case_id), 201)
    # As if the process had died before its first blob, sixteen minutes ago.
    for variant in ("original", "display", "thumbnail"):
        await store.delete(scope.container, f"cases/{case_id}/{image['id']}/{variant}")
    async with world.database.tenant(scope) as session:
        row = await session.get_one(Image, UUID(image["id"]))
        row.status, row.updated_at = "reserved", func.now() - func.make_interval(0, 0, 0, 0, 0, 16)
    assert await used(clinic) > before
    assert await settle_reservations(world.database, world.parts[BlobStores], scope) == {"removed": 1}
    assert await used(clinic) == before


async def test_a_retry_counts_a_reservation_once_and_is_not_refused(clinic: Clinic, world: World) -> None:
    case_id = await draft(clinic)
    image = ok(await upload(clinic, case_id), 201)
    full = await used(clinic)
    async with world.database.tenant(world.tenant(SLUG).scope) as session:
        (await session.get_one(Image, UUID(image["id"]))).status = "reserved"
    await limit_to(world, 0)
    ok(await upload(clinic, case_id), 201)
    assert await used(clinic) == full
    await limit_to(world, None)


async def test_a_report_counts_and_is_issued_from_a_full_store(clinic: Clinic, world: World) -> None:
    case = await clinic.queued()
    physician, _ = await clinic.physician()
    claimed = await physician.http.post(
        f"/v1/cases/{case['id']}/claim", headers={"If-Match": f'"{case["version"]}"'}
    )
    case = ok(await act(physician, ok(claimed), "start"))
    ok(await act(physician, case, "answer", ANSWER))
    before = await used(clinic)
    await limit_to(world, 0)
    ok(await clinic.referrer.http.post(f"/v1/cases/{case['id']}/reports", json={}), 201)
    assert await used(clinic) > before
    assert await used(clinic) == await in_rows(clinic) == await in_store(clinic)
    await limit_to(world, None)


async def test_tenants_are_counted_apart(clinic: Clinic, world: World) -> None:
    async with world.database.tenant(world.tenant("globex").scope) as session:
        before = await storage.used(session)
    ok(await upload(clinic, await draft(clinic)), 201)
    async with world.database.tenant(world.tenant("globex").scope) as session:
        assert await storage.used(session) == before
