"""An upload is proven to be a photograph, or refused by name."""

import io
import random
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from clinic.images import errors
from clinic.images.inspection import InspectedImage, inspect_image
from clinic.images.metadata import join
from core.jail import Jail
from core.problems import Problem

PHOTOGRAPH = (Path(__file__).parents[2] / "reference" / "photographs" / "lesion.jpg").read_bytes()
LIMITS: dict[str, Any] = {"max_bytes": 5_000_000, "max_pixels": 50_000_000}


def inspect(data: bytes, declared_type: str | None = None) -> InspectedImage:
    return inspect_image(data, declared_type=declared_type, **LIMITS)


def pixel(image: Image.Image, x: int, y: int) -> tuple[int, ...]:
    found = image.getpixel((x, y))
    assert isinstance(found, tuple)
    return found


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def opened(data: bytes | None) -> Image.Image:
    assert data is not None
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


GRAIN = Image.frombytes("RGB", (600, 600), random.Random(1).randbytes(3 * 600 * 600))
SMALL = Image.linear_gradient("L").resize((64, 48)).convert("RGB")
JPEG, PNG = encoded(SMALL, "JPEG"), encoded(SMALL, "PNG")


async def test_a_phone_photograph_inside_the_jail() -> None:
    jail = Jail(workers=1)
    try:
        image = await jail.run(30, inspect_image, PHOTOGRAPH, declared_type="image/jpeg", **LIMITS)
        with pytest.raises(errors.ImageDamaged, match="Upload"):
            await jail.run(30, inspect_image, PHOTOGRAPH[:90_000], declared_type=None, **LIMITS)
    finally:
        jail.close()
    assert (image.media_type, image.width, image.height, image.orientation) == ("image/jpeg", 1600, 1200, 6)
    assert image.captured_at == datetime.fromisoformat("2026-03-14T09:26:53")
    original = join(PHOTOGRAPH, image.original)
    assert (image.sha256, image.size) == (sha256(original).hexdigest(), len(original))
    assert opened(original).tobytes() == opened(PHOTOGRAPH).tobytes()
    assert opened(PHOTOGRAPH).getexif().get_ifd(0x8825), "the sample carries a position to be removed"
    for copy, size in ((image.display, (1200, 1600)), (image.thumbnail, (192, 256))):
        shown = opened(copy)
        assert (shown.format, shown.size, dict(shown.getexif())) == ("JPEG", size, {})
        assert shown.info["icc_profile"] == opened(PHOTOGRAPH).info["icc_profile"]
    upright = ImageOps.exif_transpose(opened(PHOTOGRAPH)).resize((12, 16))
    seen = opened(image.display).resize((12, 16))
    assert max(abs(a - b) for a, b in zip(upright.tobytes(), seen.tobytes(), strict=True)) < 6
    assert image.hints == ()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_copies_are_upright_as_every_viewer_turns_them(orientation: int) -> None:
    corners = Image.new("RGB", (90, 60), "white")
    corners.paste("red", (0, 0, 30, 20))
    corners.paste("blue", (60, 40, 90, 60))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(corners, "PNG", exif=exif.tobytes())
    expected = ImageOps.exif_transpose(opened(data))
    display = opened(inspect(data).display)
    assert display.size == expected.size
    for place in ((5, 5), (5, -5), (-5, 5), (-5, -5)):
        x, y = (at % side for at, side in zip(place, expected.size, strict=True))
        assert max(abs(a - b) for a, b in zip(pixel(display, x, y), pixel(expected, x, y), strict=True)) < 12


def test_large_photographs_are_reduced_for_display_and_small_ones_are_not_enlarged() -> None:
    assert opened(inspect(encoded(SMALL.resize((4100, 1025)), "JPEG")).display).size == (2048, 512)
    small = inspect(PNG)
    assert opened(small.display).size == opened(small.thumbnail).size == (64, 48)
    assert opened(inspect(encoded(SMALL.resize((3000, 1)), "PNG")).thumbnail).size == (256, 1)


@pytest.mark.parametrize(
    ("size", "shown"),
    [((4032, 3024), (2016, 1512)), ((3838, 2), (2048, 1)), ((3840, 1), (2048, 1)), ((2049, 8), (2048, 8))],
)
def test_a_large_jpeg_is_displayed_as_its_decoder_halves_it(
    size: tuple[int, int], shown: tuple[int, int]
) -> None:
    copies = inspect(encoded(SMALL.resize(size), "JPEG"))
    assert (copies.width, copies.height) == size
    assert opened(copies.display).size == shown
    assert max(opened(copies.thumbnail).size) == 256


def jpeg(mode: str = "RGB", **options: Any) -> bytes:
    return encoded(SMALL.convert(mode), "JPEG", **options)


EXIF_UPSIDE_DOWN = Image.Exif()
EXIF_UPSIDE_DOWN[0x0112] = 3
GREY_PROFILE, RGB_PROFILE = (bytes(16) + space + bytes(108) for space in (b"GRAY", b"RGB "))


@pytest.mark.parametrize(
    ("data", "itself"),
    {
        "plain": (JPEG, True),
        "grey": (jpeg("L"), True),
        "progressive": (jpeg(progressive=True), True),
        "4:4:4": (jpeg(subsampling=0), True),
        "with its profile": (jpeg(icc_profile=RGB_PROFILE), True),
        "with another profile": (jpeg(icc_profile=GREY_PROFILE), False),
        "turned": (jpeg(exif=EXIF_UPSIDE_DOWN), False),
        "RGB": (jpeg(keep_rgb=True), False),
        "4:1:1": (JPEG.replace(b"\x03\x01\x22\x00", b"\x03\x01\x41\x00"), False),
        "2,048 wide": (encoded(SMALL.resize((2048, 9)), "JPEG"), True),
        "2,049 wide": (encoded(SMALL.resize((2049, 9)), "JPEG"), False),
        "2 MB": (encoded(GRAIN.resize((900, 900), 0), "JPEG", quality=100, subsampling=0), False),
        "PNG": (PNG, False),
    }.values(),
)
def test_only_what_every_reader_shows_upright_is_displayed_itself(data: bytes, itself: bool) -> None:
    image = inspect(data)
    assert (image.display is None) == itself
    assert (image.display_sha256 == image.sha256) == itself
    if image.display:
        assert image.display_sha256 == sha256(image.display).hexdigest()


def decodes(data: bytes, reduced: int = 1) -> bool:
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.draft(None, (image.width // reduced, image.height // reduced))
            image.load()
            assert image.width == -(-2000 // reduced)
            return True
    except Exception:  # Pillow's decoders raise whatever their parsing stumbles over
        return False


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"subsampling": 0},
        {"progressive": True},
        {"restart_marker_blocks": 3},
        {"progressive": True, "restart_marker_rows": 1},
    ],
)
def test_a_reduced_decoding_finds_the_same_damage(options: dict[str, Any]) -> None:
    whole = encoded(GRAIN.resize((2000, 24)), "JPEG", quality=70, **options)
    cuts = [whole[:at] for at in range(300, len(whole), len(whole) // 60)]
    chance, spoilt = random.Random(2), []
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(150, len(data) - 2)] = chance.randrange(256)
        spoilt.append(bytes(data))
    verdicts = [decodes(data) for data in cuts + spoilt]
    assert not any(verdicts[: len(cuts)])
    assert {*verdicts[len(cuts) :]} == {True, False}
    for reduced in (2, 4, 8):
        assert [decodes(data, reduced) for data in cuts + spoilt] == verdicts


def test_transparency_is_shown_on_white() -> None:
    clear = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
    assert opened(inspect(encoded(clear, "PNG")).display).getpixel((10, 10)) == (255, 255, 255)


def test_nothing_but_grain_is_a_photograph_too() -> None:
    assert opened(inspect(encoded(GRAIN, "PNG")).display).size == (600, 600)


@st.composite
def mutations(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(data) - 1))
        match draw(st.sampled_from(["set", "cut", "insert", "repeat"])):
            case "set":
                data[at] = draw(st.integers(0, 255))
            case "cut":
                del data[at : at + draw(st.integers(1, 40))]
            case "insert":
                data[at:at] = draw(st.binary(min_size=1, max_size=12))
            case "repeat":
                data[at:at] = data[at : at + draw(st.integers(1, 60))]
        if not data:
            break
    return bytes(data)


EXIF = Image.Exif()
EXIF[0x0112] = 5
SEEDS = [
    encoded(SMALL, "JPEG", exif=EXIF.tobytes(), quality=30),
    encoded(SMALL, "JPEG", progressive=True, restart_marker_blocks=2, quality=30),
    encoded(SMALL, "PNG", exif=EXIF.tobytes()),
    encoded(SMALL.convert("P"), "PNG", transparency=1),
]


@settings(max_examples=300, deadline=2000, derandomize=True)
@given(mutations())
def test_mutations_are_accepted_whole_or_refused_by_name(data: bytes) -> None:
    try:
        image = inspect_image(data, declared_type=None, max_bytes=2_000_000, max_pixels=1_000_000)
    except Problem:
        return
    assert inspect(join(data, image.original)).sha256 == image.sha256, (
        "what is stored would be accepted again, unchanged"
    )


@settings(max_examples=200, deadline=2000, derandomize=True)
@given(
    st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", *(seed[:40] for seed in SEEDS)]),
    st.binary(max_size=200),
)
def test_noise_is_refused_by_name(start: bytes, noise: bytes) -> None:
    with pytest.raises(Problem):
        inspect(start + noise)
