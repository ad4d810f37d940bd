"""What the sweeper makes of every state a crash can leave between a row and its blobs."""

import hashlib
import os
import time
from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from sqlalchemy import delete, func, select, text

from clinic.cases.models import Case
from clinic.images.models import Image
from clinic.images.sweeper import CASES_A_PAGE, settle_reservations, sweep_images
from clinic.reports.models import Report
from core.blobs import BlobStores
from core.database import TenantScope
from core.ids import new_id
from tenants.audit.models import AuditEvent
from tests.clinic.journey import NEW_CASE, Clinic, ok
from tests.fixtures.world import World

CONTENT = {"original": b"original", "display": b"display", "thumbnail": b"thumbnail"}


class Ward:
    """A tenant of this test's own, with one case, and photographs in any state."""

    def __init__(self, world: World, scope: TenantScope, case_id: UUID, by: UUID) -> None:
        self.world, self.scope, self.case_id, self.by = world, scope, case_id, by
        self.stores: BlobStores = world.parts[BlobStores]
        self.blobs = self.stores.of(scope)

    async def image(
        self, *variants: str, status: str = "reserved", minutes: int = 16, **changed: bytes
    ) -> Image:
        """A row that was last touched so many minutes ago, and these of its blobs; `changed` have other content."""
        image = Image(
            id=new_id(),
            case_id=self.case_id,
            status=status,
            uploaded_by=self.by,
            media_type="image/jpeg",
            width=1,
            height=1,
            size=8,
            stored_size=0,
            sha256=hashlib.sha256(CONTENT["original"]).hexdigest(),
            upload_sha256="",
            display_sha256=hashlib.sha256(CONTENT["display"]).hexdigest(),
            view="overview",
            hints=[],
        )
        if status == "stored":
            image.sha256 = str(image.id)  # one of a kind in its case
        async with self.world.database.tenant(self.scope) as session:
            session.add(image)
        await self.age("images", image.id, minutes)
        for variant in variants:
            await self.blobs.put(
                image.blob(variant), changed.get(variant, CONTENT[variant]), content_type="image/jpeg"
            )
        return image

    async def age(self, table: str, row_id: UUID, minutes: int) -> None:
        async with self.world.database.tenant(self.scope) as session:
            await session.execute(
                text(f"UPDATE {table} SET updated_at = now() - make_interval(mins => :m) WHERE id = :id"),
                {"m": minutes, "id": row_id},
            )

    async def status(self, image: Image) -> str | None:
        async with self.world.database.tenant(self.scope) as session:
            status: str | None = await session.scalar(select(Image.status).where(Image.id == image.id))
            return status

    async def names(self, prefix: str = "cases/") -> list[str]:
        return [blob.name.removeprefix(prefix) async for blob in self.blobs.list(prefix)]

    async def orphan(self, name: str, *, minutes: int) -> None:
        await self.blobs.put(name, b"x", content_type="image/jpeg")
        directory = self.world.settings.blob_directory
        assert directory
        written = time.time() - 60 * minutes
        os.utime(directory / self.scope.container / name.replace("/", "~"), (written, written))

    async def audited(self, action: str, *subjects: UUID) -> int:
        query = select(func.count()).where(AuditEvent.action == action, AuditEvent.subject.in_(subjects))
        async with self.world.database.tenant(self.scope) as session:
            return await session.scalar(query) or 0


@pytest.fixture(scope="module")
async def sweepable(world: World) -> Clinic:
    await world.create_tenant("sweep")
    return await Clinic.open(world, "sweep")


@pytest.fixture
async def ward(sweepable: Clinic) -> AsyncIterator[Ward]:
    world, scope = sweepable.world, sweepable.world.tenant("sweep").scope
    case = ok(await sweepable.referrer.http.post("/v1/cases", json=NEW_CASE), 201)
    ward = Ward(world, scope, UUID(case["id"]), sweepable.referrer.user_id)
    yield ward
    async with world.database.tenant(scope) as session:
        for table in (Image, Report, Case):
            await session.execute(delete(table))
    for name in await ward.names(""):
        await ward.blobs.delete(name)


async def test_a_reservation_with_all_its_blobs_is_finished(ward: Ward) -> None:
    image = await ward.image(*CONTENT)
    assert await settle_reservations(ward.world.database, ward.stores, ward.scope) == {"finished": 1}
    assert await ward.status(image) == "stored"
    assert await ward.audited("image.finished", image.id) == 1
    assert await settle_reservations(ward.world.database, ward.stores, ward.scope) == {}


@pytest.mark.parametrize(
    ("variants", "changed"),
    [
        ((), {}),
        (("original", "display"), {}),
        (("display", "thumbnail"), {}),
        (tuple(CONTENT), {"original": b"0riginal"}),
        (tuple(CONTENT), {"display": b"half a display"}),
    ],
)
async def test_a_reservation_that_lacks_something_is_removed(
    ward: Ward, variants: tuple[str, ...], changed: dict[str, bytes]
) -> None:
    image = await ward.image(*variants, **changed)  # type: ignore[arg-type]
    assert await sweep_images(ward.world.database, ward.stores, ward.scope) == {"removed": 1}
    assert await ward.status(image) is None
    assert await ward.names() == []


async def test_an_upload_under_way_is_left_alone(ward: Ward) -> None:
    image = await ward.image("original", minutes=14)
    assert await sweep_images(ward.world.database, ward.stores, ward.scope) == {}
    assert await ward.status(image) == "reserved"
    assert len(await ward.names()) == 1


async def test_a_report_nobody_finished_is_removed(ward: Ward) -> None:
    report = Report(
        id=new_id(), case_id=ward.case_id, case_version=1, locale="en", created_by=ward.by, verify_hash="h"
    )
    async with ward.world.database.tenant(ward.scope) as session:
        session.add(report)
    await ward.blobs.put(report.blob, b"%PDF", content_type="application/pdf")
    assert await sweep_images(ward.world.database, ward.stores, ward.scope) == {}
    await ward.age("reports", report.id, 16)
    assert await sweep_images(ward.world.database, ward.stores, ward.scope) == {"removed": 1}
    assert await ward.names() == []


async def test_old_blobs_without_a_row_are_removed_and_no_others(ward: Ward) -> None:
    kept = await ward.image(*CONTENT, status="stored")
    report = Report(
        id=new_id(),
        case_id=ward.case_id,
        case_version=1,
        status="stored",
        locale="en",
        created_by=ward.by,
        verify_hash="h",
    )
    async with ward.world.database.tenant(ward.scope) as session:
        session.add(report)
    await ward.orphan(report.blob, minutes=600)
    young = f"cases/{ward.case_id}/{new_id()}/display"
    await ward.orphan(young, minutes=59)
    await ward.orphan(f"cases/{ward.case_id}/{new_id()}/display", minutes=61)  # of a case there is
    await ward.orphan(f"cases/{ward.case_id}-x/{new_id()}/display", minutes=61)  # sorts just before it
    await ward.orphan(f"cases/{UUID(int=0)}/{new_id()}/display", minutes=61)  # before every case
    await ward.orphan(f"cases/{UUID(int=2**128 - 1)}/reports/{new_id()}.pdf", minutes=61)  # behind every case
    await ward.orphan("cases/what-is-this", minutes=61)
    await ward.orphan("exports/not-of-a-case", minutes=61)
    assert await sweep_images(ward.world.database, ward.stores, ward.scope) == {"orphans": 5}
    expected = sorted([*(kept.blob(variant) for variant in CONTENT), report.blob, young])
    assert [f"cases/{name}" for name in await ward.names()] == expected
    assert await ward.names("exports/") == ["not-of-a-case"]


async def test_a_stored_row_without_its_blob_is_reported_and_kept(ward: Ward) -> None:
    whole = await ward.image(*CONTENT, status="stored")
    broken = await ward.image("original", "thumbnail", status="stored")
    assert await sweep_images(ward.world.database, ward.stores, ward.scope) == {"missing": 1}
    assert await ward.status(broken) == "stored"
    async with ward.world.database.tenant(ward.scope) as session:
        event = await session.scalar(select(AuditEvent).where(AuditEvent.subject == broken.id))
        assert event is not None
        assert (event.action, event.actor, event.detail) == (
            "image.blob_missing",
            None,
            {"blob": "display"},
        )
    assert await ward.status(whole) == "stored"


async def test_more_cases_than_fit_a_page(ward: Ward) -> None:
    async with ward.world.database.tenant(ward.scope) as session:
        patient_id = await session.scalar(select(Case.patient_id).where(Case.id == ward.case_id))
        cases = [
            Case(
                id=new_id(),
                reference=f"D-{number}",
                patient_id=patient_id,
                created_by=ward.by,
                region="DE",
                complaint="A mole.",
                symptoms=[],
            )
            for number in range(2 * CASES_A_PAGE)  # with the ward's own: two full pages and one more
        ]
        session.add_all(cases)
    lost = []
    for case in cases[:: CASES_A_PAGE // 3]:
        ward.case_id = case.id
        await ward.image(*CONTENT, status="stored")
        lost.append(await ward.image("display", "thumbnail", status="stored"))
        await ward.orphan(f"cases/{case.id}/{new_id()}/display", minutes=61)
    # The last case of the first page, whose blobs are old, beside something that sorts between it and them.
    ward.case_id = cases[CASES_A_PAGE - 2].id
    last = await ward.image(status="stored")
    for variant in CONTENT:
        await ward.orphan(last.blob(variant), minutes=61)
    await ward.orphan(f"cases/{ward.case_id}-x/{new_id()}/display", minutes=61)
    counts = await sweep_images(ward.world.database, ward.stores, ward.scope)
    assert counts == {"missing": len(lost), "orphans": len(lost) + 1}
    assert await ward.audited("image.blob_missing", *(each.id for each in lost)) == len(lost)
    assert len(await ward.names()) == 5 * len(lost) + 3


async def test_one_tenants_sweep_touches_no_other(ward: Ward, world: World) -> None:
    neighbour = Ward(world, world.tenant("globex").scope, ward.case_id, ward.by)
    name = f"cases/{new_id()}/{new_id()}/display"
    await neighbour.orphan(name, minutes=61)
    assert await sweep_images(world.database, ward.stores, ward.scope) == {}
    assert name.removeprefix("cases/") in await neighbour.names()
    await neighbour.blobs.delete(name)
