"""Photographs over HTTP: stored once, without metadata, streamed back to those who may see them."""

import asyncio
import base64
import hashlib
import io
from typing import Any
from uuid import UUID

import httpx
import pytest
from PIL import Image as Picture
from sqlalchemy import func, select, text, update

from clinic.images.models import Image
from core.ai_contract import MAX_IMAGES
from core.blobs import BlobNotFound, BlobStores
from tenants.audit.models import AuditEvent
from tests.clinic.journey import CONSENT, NEW_CASE, Clinic, act, ok, photograph
from tests.fixtures.world import Person, World


@pytest.fixture(scope="module")
async def clinic(world: World) -> Clinic:
    return await Clinic.open(world)


async def empty_draft(clinic: Clinic) -> dict[str, Any]:
    case: dict[str, Any] = ok(await clinic.referrer.http.post("/v1/cases", json=NEW_CASE), 201)
    return case


async def upload(who: Person, case: dict[str, Any], body: Any) -> httpx.Response:
    return await who.http.post(f"/v1/cases/{case['id']}/images", json=body)


def sideways(note: str) -> dict[str, Any]:
    """A JPEG of 300 × 200 pixels whose EXIF turns it by a quarter, and names a place."""
    exif = Picture.Exif()
    exif[0x0112] = 6
    exif[0x010E] = note
    exif.get_ifd(0x8825)[2] = (52.0, 31.0, 12.0)
    file = io.BytesIO()
    Picture.linear_gradient("L").resize((300, 200)).convert("RGB").save(file, "JPEG", exif=exif)
    data = base64.b64encode(file.getvalue()).decode()
    return {"data": data, "media_type": "image/jpeg", "view": "dermoscopy", "body_site": "left forearm"}


async def blob_names(world: World, prefix: str) -> list[str]:
    store = world.parts[BlobStores].at()
    container = world.tenant().scope.container
    return [blob.name.rsplit("/", 1)[1] async for blob in store.list(container, prefix)]


async def test_a_photograph_is_stored_upright_and_without_metadata(clinic: Clinic, world: World) -> None:
    case = await empty_draft(clinic)
    sent = sideways("taken at home")
    answer = await upload(clinic.referrer, case, sent)
    image = ok(answer, 201)
    path = f"/v1/cases/{case['id']}/images/{image['id']}"
    assert answer.headers["Location"] == path
    assert (image["width"], image["height"], image["view"]) == (200, 300, "dermoscopy")
    assert image["upload_sha256"] == hashlib.sha256(base64.b64decode(sent["data"])).hexdigest()
    assert "low_resolution" in image["hints"]
    assert ok(await clinic.referrer.http.get(path)) == image

    original = await clinic.referrer.http.get(f"{path}/content?variant=original")
    assert hashlib.sha256(original.content).hexdigest() == image["sha256"]
    assert len(original.content) == image["size"]
    assert b"taken at home" not in original.content
    assert dict(Picture.open(io.BytesIO(original.content)).getexif()) == {0x0112: 6}
    for variant in ("display", "thumbnail"):
        copy = await clinic.referrer.http.get(f"{path}/content?variant={variant}")
        assert copy.headers["Content-Type"] == "image/jpeg"
        width, height = Picture.open(io.BytesIO(copy.content)).size
        assert width < height


async def test_a_photograph_that_needs_no_copy_is_displayed_itself(clinic: Clinic, world: World) -> None:
    case = await empty_draft(clinic)
    image = ok(await upload(clinic.referrer, case, photograph()), 201)
    prefix = f"cases/{case['id']}/{image['id']}/"
    assert await blob_names(world, prefix) == ["original", "thumbnail"]
    path = f"/v1/cases/{case['id']}/images/{image['id']}"
    shown = [
        await clinic.referrer.http.get(f"{path}/content?variant={name}") for name in ("display", "original")
    ]
    assert shown[0].content == shown[1].content
    assert shown[0].headers["ETag"] != shown[1].headers["ETag"]
    assert (await clinic.referrer.http.delete(path)).status_code == 204
    assert await blob_names(world, prefix) == []


async def test_the_same_photograph_is_the_same_image(clinic: Clinic, world: World) -> None:
    case = await empty_draft(clinic)
    first = ok(await upload(clinic.referrer, case, sideways("a")), 201)
    again = await upload(clinic.referrer, case, sideways("a"))
    assert ok(again, 200) == first
    # Other metadata, same picture: what is stored is the same.
    assert ok(await upload(clinic.referrer, case, sideways("another note")), 200)["id"] == first["id"]
    assert len(await blob_names(world, f"cases/{case['id']}/")) == 3
    # In another case it is another image.
    assert (
        ok(await upload(clinic.referrer, await empty_draft(clinic), sideways("a")), 201)["id"] != first["id"]
    )


async def test_simultaneous_uploads_of_one_photograph_store_it_once(clinic: Clinic, world: World) -> None:
    case = await empty_draft(clinic)
    hold = text("SELECT id FROM cases WHERE id = :id FOR UPDATE")
    async with world.database.tenant(world.tenant().scope) as session:
        await session.execute(hold, {"id": UUID(case["id"])})
        uploads = [asyncio.create_task(upload(clinic.referrer, case, photograph())) for _ in range(6)]
        await asyncio.sleep(0.5)  # until all of them wait for the case
    answers = await asyncio.gather(*uploads)
    assert sorted(answer.status_code for answer in answers) == [200] * 5 + [201]
    assert len({answer.json()["id"] for answer in answers}) == 1


async def test_a_retry_finishes_what_a_crash_interrupted(clinic: Clinic, world: World) -> None:
    case = await empty_draft(clinic)
    image = ok(await upload(clinic.referrer, case, photograph()), 201)
    store = world.parts[BlobStores].at()
    scope = world.tenant().scope
    prefix = f"cases/{case['id']}/{image['id']}"
    # As if the process had died after the first blob.
    await store.delete(scope.container, f"{prefix}/thumbnail")
    async with world.database.tenant(scope) as session:
        await session.execute(update(Image).where(Image.id == UUID(image["id"])).values(status="reserved"))
    path = f"/v1/cases/{case['id']}/images/{image['id']}"
    assert (await clinic.referrer.http.get(path)).status_code == 404
    assert ok(await clinic.referrer.http.get(f"/v1/cases/{case['id']}/images"))["items"] == []

    assert ok(await upload(clinic.referrer, case, photograph()), 201)["id"] == image["id"]
    assert await blob_names(world, prefix) == ["original", "thumbnail"]
    assert (await clinic.referrer.http.get(f"{path}/content")).status_code == 200


async def test_the_reservation_rings_the_sweeper(clinic: Clinic, world: World) -> None:
    count = text(
        "SELECT count(*) FROM control.doorbells WHERE kind = 'sweep-images' AND tenant_key = :key "
        "AND due_at BETWEEN now() + interval '14 minutes' AND now() + interval '16 minutes'"
    )
    key = {"key": world.tenant().scope.key}
    case = await empty_draft(clinic)
    async with world.database.control() as session:
        before = await session.scalar(count, key)
    ok(await upload(clinic.referrer, case, photograph()), 201)
    async with world.database.control() as session:
        assert await session.scalar(count, key) == before + 1


async def test_only_the_owner_adds_photographs_and_only_while_the_case_takes_them(
    clinic: Clinic, world: World
) -> None:
    case = await empty_draft(clinic)
    stranger = await world.person("referrer")
    assert (await upload(stranger, case, photograph())).status_code == 404
    assert (await upload(clinic.coordinator, case, photograph())).status_code == 403  # lacks the scope
    both = await world.person("referrer", "coordinator")
    refused = await upload(both, case, photograph())
    assert (refused.status_code, refused.json()["type"][-13:]) == (403, "not-your-part")
    elsewhere = await world.person("referrer", tenant="globex")
    assert (await upload(elsewhere, case, photograph())).status_code == 404

    image = ok(await upload(clinic.referrer, case, photograph()), 201)
    ok(await act(clinic.referrer, case, "submit", CONSENT))
    late = await upload(clinic.referrer, case, photograph(10))
    assert (late.status_code, late.json()["case_status"]) == (409, "submitted")
    path = f"/v1/cases/{case['id']}/images/{image['id']}"
    assert (await clinic.referrer.http.delete(path)).status_code == 409
    for who, status in ((stranger, 404), (elsewhere, 404), (clinic.coordinator, 200)):
        assert (await who.http.get(f"{path}/content")).status_code == status
        assert (await who.http.get(path)).status_code == status


async def test_a_case_that_needs_information_takes_photographs(clinic: Clinic, world: World) -> None:
    case = await empty_draft(clinic)
    async with world.database.tenant(world.tenant().scope) as session:
        await session.execute(
            text("UPDATE cases SET status = 'needs_info' WHERE id = :id"), {"id": UUID(case["id"])}
        )
    image = ok(await upload(clinic.referrer, case, photograph()), 201)
    path = f"/v1/cases/{case['id']}/images/{image['id']}"
    assert (await clinic.referrer.http.delete(path)).status_code == 409


@pytest.mark.parametrize(
    ("change", "status", "slug"),
    [
        ({"data": "not base64!"}, 422, "image-not-base64"),
        ({"data": "R0lGODlh\nR0lG"}, 422, "image-not-base64"),
        ({"data": "_-__"}, 422, "image-not-base64"),
        ({"data": "AAA"}, 422, "image-not-base64"),
        ({"data": base64.b64encode(b"GIF89a" + bytes(50)).decode()}, 415, "image-type-unsupported"),
        ({"media_type": "image/png"}, 415, "image-type-mismatch"),
        ({"media_type": "image/gif"}, 422, "invalid"),
        ({"view": "selfie"}, 422, "invalid"),
        ({"data": ""}, 422, "invalid"),
        ({"surprise": 1}, 422, "invalid"),
    ],
)
async def test_what_is_no_photograph_is_refused(
    clinic: Clinic, world: World, change: dict[str, Any], status: int, slug: str
) -> None:
    case = await empty_draft(clinic)
    refused = await upload(clinic.referrer, case, photograph() | change)
    assert (refused.status_code, refused.json()["type"].rsplit(":", 1)[1]) == (status, slug)
    assert await blob_names(world, f"cases/{case['id']}/") == []


async def test_a_case_has_as_many_photographs_as_the_ai_takes(clinic: Clinic) -> None:
    case = await empty_draft(clinic)
    for shade in range(MAX_IMAGES):
        ok(await upload(clinic.referrer, case, photograph(20 * shade)), 201)
    refused = await upload(clinic.referrer, case, photograph(250))
    assert (refused.status_code, refused.json()["type"][-15:]) == (409, "too-many-images")
    ok(await upload(clinic.referrer, case, photograph(0)), 200)

    page = await clinic.referrer.http.get(f"/v1/cases/{case['id']}/images?limit=5")
    seen = [image["id"] for image in ok(page)["items"]]
    while 'rel="next"' in page.headers.get("Link", ""):
        page = await clinic.referrer.http.get(page.headers["Link"].split(">")[0].lstrip("<"))
        seen += [image["id"] for image in ok(page)["items"]]
    assert len(seen) == MAX_IMAGES
    assert seen == sorted(seen, reverse=True)


@pytest.fixture(scope="module")
async def shown(clinic: Clinic) -> tuple[str, bytes, str]:
    """Where a photograph's original is, its bytes, and its ETag."""
    case = await empty_draft(clinic)
    image = ok(await upload(clinic.referrer, case, photograph()), 201)
    path = f"/v1/cases/{case['id']}/images/{image['id']}/content?variant=original"
    whole = await clinic.referrer.http.get(path)
    return path, whole.content, whole.headers["ETag"]


async def test_content_comes_with_headers_that_keep_it_private(clinic: Clinic, shown: Any) -> None:
    path, whole, etag = shown
    answer = await clinic.referrer.http.get(path)
    assert answer.headers["Cache-Control"].startswith("private")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Disposition"].startswith("inline; filename=")
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert int(answer.headers["Content-Length"]) == len(whole)
    assert etag.startswith('"')


@pytest.mark.parametrize(
    ("wanted", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("bytes=100-", 100, None),
        ("bytes=-7", -7, None),
        ("bytes=5-99999999", 5, None),
        ("bytes=-99999999", 0, None),
        ("Bytes=0-1", 0, 2),
    ],
)
async def test_a_range_is_answered_with_these_bytes(
    clinic: Clinic, shown: Any, wanted: str, start: int, stop: int | None
) -> None:
    path, whole, etag = shown
    answer = await clinic.referrer.http.get(path, headers={"Range": wanted, "If-Range": etag})
    assert answer.status_code == 206
    assert answer.content == whole[start:stop]
    first = start % len(whole)
    last = first + len(answer.content) - 1
    assert answer.headers["Content-Range"] == f"bytes {first}-{last}/{len(whole)}"
    assert int(answer.headers["Content-Length"]) == len(answer.content)


@pytest.mark.parametrize("wanted", ["bytes=99999999-", "bytes=-0", "bytes=9-2"])
async def test_a_range_outside_is_416(clinic: Clinic, shown: Any, wanted: str) -> None:
    path, whole, _ = shown
    answer = await clinic.referrer.http.get(path, headers={"Range": wanted})
    assert answer.status_code == 416
    assert answer.headers["Content-Range"] == f"bytes */{len(whole)}"


@pytest.mark.parametrize(
    "headers",
    [
        {"Range": "bytes=0-1,5-6"},
        {"Range": "lines=0-1"},
        {"Range": "bytes=a-b"},
        {"Range": "bytes=0-1", "If-Range": '"another"'},
        {"Range": "bytes=0-1", "If-Range": "Wed, 21 Oct 2026 07:28:00 GMT"},
    ],
)
async def test_a_range_that_does_not_count_gives_the_whole(
    clinic: Clinic, shown: Any, headers: dict[str, str]
) -> None:
    path, whole, _ = shown
    answer = await clinic.referrer.http.get(path, headers=headers)
    assert (answer.status_code, answer.content) == (200, whole)


async def test_what_the_client_has_is_not_sent_again(clinic: Clinic, shown: Any, world: World) -> None:
    path, _, etag = shown
    for seen in (etag, f"W/{etag}", f'"x", {etag}', "*"):
        answer = await clinic.referrer.http.get(path, headers={"If-None-Match": seen})
        assert (answer.status_code, answer.content, answer.headers["ETag"]) == (304, b"", etag)
    assert (await clinic.referrer.http.get(path, headers={"If-None-Match": '"x"'})).status_code == 200
    # A right that was taken away does not end in 304.
    stranger = await world.person("referrer")
    assert (await stranger.http.get(path, headers={"If-None-Match": etag})).status_code == 404


async def test_looking_at_a_photograph_is_audited(clinic: Clinic, shown: Any, world: World) -> None:
    path, _, _ = shown
    image_id = UUID(path.split("/")[5])
    viewed = select(func.count()).where(
        AuditEvent.action == "image.view",
        AuditEvent.subject == image_id,
        AuditEvent.actor == clinic.coordinator.user_id,
    )
    ok_answer = await clinic.coordinator.http.get(path)
    assert ok_answer.status_code == 200
    async with world.database.tenant(world.tenant().scope) as session:
        assert await session.scalar(viewed) == 1


async def test_a_draft_gives_its_photograph_up(clinic: Clinic, world: World) -> None:
    case = await empty_draft(clinic)
    image = ok(await upload(clinic.referrer, case, photograph()), 201)
    path = f"/v1/cases/{case['id']}/images/{image['id']}"
    stranger = await world.person("referrer")
    assert (await stranger.http.delete(path)).status_code == 404
    assert (await clinic.referrer.http.delete(path)).status_code == 204
    assert (await clinic.referrer.http.get(path)).status_code == 404
    assert (await clinic.referrer.http.delete(path)).status_code == 404
    assert await blob_names(world, f"cases/{case['id']}/") == []
    again = ok(await upload(clinic.referrer, case, photograph()), 201)
    assert again["id"] != image["id"]


async def test_a_photograph_whose_file_is_gone_is_404(clinic: Clinic, world: World) -> None:
    case = await empty_draft(clinic)
    image = ok(await upload(clinic.referrer, case, photograph()), 201)
    store = world.parts[BlobStores].at()
    await store.delete(world.tenant().scope.container, f"cases/{case['id']}/{image['id']}/original")
    answer = await clinic.referrer.http.get(f"/v1/cases/{case['id']}/images/{image['id']}/content")
    assert answer.json()["type"].endswith(BlobNotFound.slug)
