"""Every file of the corpus through the whole gateway: refused by name and without a trace, or stored clean."""

import hashlib
import io
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from PIL import Image as Picture
from PIL import ImageOps
from sqlalchemy import func, select

from clinic.images.models import Image
from core.blobs import BlobStores
from tests.clinic.corpus import JPEG, SAMPLES, SECRET, Accepted, Refused
from tests.clinic.journey import NEW_CASE, Clinic, ok
from tests.fixtures.world import World

REFUSED = {name: sample for name, sample in SAMPLES.items() if isinstance(sample, Refused)}
ACCEPTED = {name: sample for name, sample in SAMPLES.items() if isinstance(sample, Accepted)}
QUICK_S = 10.0  # of what would take minutes or hours, on a busy machine
# What Pillow tells of a file beyond its pixels, as far as it is needed to show them.
SHOWN = {"jfif", "jfif_version", "jfif_unit", "jfif_density", "dpi", "progressive", "progression", "adobe"}
SHOWN |= {"adobe_transform", "icc_profile", "transparency", "interlace", "exif"}


@pytest.fixture(scope="module")
async def clinic(world: World) -> Clinic:
    return await Clinic.open(world)


@pytest.fixture
async def path(clinic: Clinic) -> str:
    case = ok(await clinic.referrer.http.post("/v1/cases", json=NEW_CASE), 201)
    return f"/v1/cases/{case['id']}/images"


def opened(data: bytes) -> Picture.Image:
    with warnings.catch_warnings(action="ignore"):  # of broken EXIF and profiles
        image = Picture.open(io.BytesIO(data))
        image.load()
        return image


async def traces(world: World, case_id: str) -> tuple[int, list[str]]:
    """The rows and blobs of a case's photographs."""
    scope, store = world.tenant().scope, world.parts[BlobStores].at()
    async with world.database.tenant(scope) as session:
        rows = await session.scalar(select(func.count()).where(Image.case_id == UUID(case_id)))
    return rows or 0, [blob.name async for blob in store.list(scope.container, f"cases/{case_id}/")]


@pytest.mark.parametrize("sample", REFUSED.values(), ids=REFUSED)
async def test_refused_by_name_and_without_a_trace(
    clinic: Clinic, path: str, sample: Refused, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    data, headers = sample.make(), {"Content-Type": sample.declared}
    started = time.perf_counter()
    answer = await clinic.referrer.http.post(f"{path}?view=close_up", content=data, headers=headers)
    took = time.perf_counter() - started
    problem = answer.json()
    assert problem["type"].rsplit(":", 1)[1] == sample.slug, problem
    assert answer.status_code == problem["status"] < 500
    assert any(
        word in problem["detail"] for word in ("Upload", "Export", "Save", "Send", "Choose", "Correct")
    )
    assert took < QUICK_S
    assert await traces(clinic.world, path.split("/")[3]) == (0, [])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("sample", ACCEPTED.values(), ids=ACCEPTED)
async def test_stored_clean_whole_and_shown_upright(clinic: Clinic, path: str, sample: Accepted) -> None:
    data, headers = sample.make(), {"Content-Type": sample.declared}
    started = time.perf_counter()
    answer = await clinic.referrer.http.post(f"{path}?view=close_up", content=data, headers=headers)
    took = time.perf_counter() - started
    image = ok(answer, 201)
    assert took < QUICK_S
    variants: dict[str, Any] = {}
    for variant in ("original", "display", "thumbnail"):
        file = await clinic.referrer.http.get(f"{path}/{image['id']}/content?variant={variant}")
        assert file.status_code == 200
        assert SECRET not in file.content
        variants[variant] = file.content

    before, after = opened(data), opened(variants["original"])
    assert hashlib.sha256(variants["original"]).hexdigest() == image["sha256"]
    assert (after.mode, after.size, after.tobytes()) == (before.mode, before.size, before.tobytes())
    assert after.info.get("icc_profile") == before.info.get("icc_profile")
    assert after.info.get("transparency") == before.info.get("transparency")
    assert set(after.info) <= SHOWN
    assert dict(after.getexif()) == ({0x0112: sample.orientation} if sample.orientation != 1 else {})
    assert variants["original"].endswith((b"\xff\xd9", b"IEND\xaeB`\x82"))

    upright = on_white(before, sample.orientation)
    assert (image["width"], image["height"]) == upright.size
    for variant, longest in (("display", 2048), ("thumbnail", 256)):
        shown = opened(variants[variant])
        assert (shown.format, shown.mode in ("L", "RGB")) == ("JPEG", True)
        assert max(shown.size) == min(longest, max(upright.size))
        assert not shown.getexif()
        assert difference(upright, shown) < 8


@pytest.mark.parametrize(
    "filename", ["皮膚 – Fleck.jpg", "../../etc/passwd", 'a";\r\nX-Evil: 1', "x" * 1_000]
)
async def test_a_file_may_be_called_anything(clinic: Clinic, path: str, filename: str) -> None:
    form = await clinic.referrer.http.post(
        path, data={"view": "close_up"}, files={"file": (filename, JPEG, "image/jpeg")}
    )
    image = ok(form, 201)
    content = await clinic.referrer.http.get(f"{path}/{image['id']}/content?variant=original")
    assert content.content == JPEG
    assert content.headers["Content-Disposition"] == f'inline; filename="{image["id"]}-original.jpg"'


def on_white(picture: Picture.Image, orientation: int) -> Picture.Image:
    """As a viewer shows it: turned, and on a white page."""
    layer = picture.convert("RGBA")
    page = Picture.new("RGBA", layer.size, "white")
    page.alpha_composite(layer)
    flat = page.convert("RGB")
    flat.getexif()[0x0112] = orientation
    return ImageOps.exif_transpose(flat)


def difference(one: Picture.Image, another: Picture.Image) -> int:
    """The largest of any channel, 0 to 255, between small copies."""
    size = min(12, *one.size), min(12, *one.size)
    small = (each.convert("RGB").resize(size, Picture.Resampling.BOX).tobytes() for each in (one, another))
    return max(abs(a - b) for a, b in zip(*small, strict=True))
