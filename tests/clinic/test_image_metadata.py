"""Metadata goes, the picture stays: bit for bit."""

import io
import struct
from datetime import datetime
from pathlib import Path

import pytest
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

from clinic.images.errors import ImageDamaged
from clinic.images.exif import read_exif
from clinic.images.metadata import Kind, read_structure, strip_metadata

PHOTOGRAPH = Path(__file__).parents[2] / "reference" / "photographs" / "lesion.jpg"
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
SECRET = b"47.3769 north"


def pattern(mode: str = "RGB", size: tuple[int, int] = (97, 61)) -> Image.Image:
    red = Image.linear_gradient("L").resize(size)
    green = Image.radial_gradient("L").resize(size)
    return Image.merge("RGB", (red, green, red.transpose(Image.Transpose.ROTATE_180))).convert(mode)


def camera_exif(orientation: int = 6) -> bytes:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x9286] = orientation, "Maker", SECRET.decode()
    exif.get_ifd(0x8769)[0x9003] = "2025:07:09 08:30:15"
    exif.get_ifd(0x8825).update({1: "N", 2: (47.0, 22.0, 36.8), 3: "E", 4: (8.0, 32.0, 30.1)})
    return exif.tobytes()


def jpeg(image: Image.Image | None = None, **options: object) -> bytes:
    out = io.BytesIO()
    (image or pattern()).save(out, "JPEG", **options)
    return out.getvalue()


def png(image: Image.Image | None = None, **options: object) -> bytes:
    out = io.BytesIO()
    (image or pattern()).save(out, "PNG", **options)
    return out.getvalue()


def text_chunks() -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text("Location", SECRET.decode())
    info.add_text("Compressed", SECRET.decode() * 20, zip=True)
    info.add_itxt("XML:com.adobe.xmp", SECRET.decode())
    info.add(b"tIME", b"\x07\xe9\x07\x09\x08\x1e\x0f")
    info.add(b"prVt", SECRET)
    return info


SAMPLES: dict[str, tuple[Kind, bytes]] = {
    "camera": ("jpeg", jpeg(exif=camera_exif(), icc_profile=SRGB, comment=SECRET)),
    "large profile": ("jpeg", jpeg(exif=camera_exif(), icc_profile=SRGB + bytes(150_000))),
    "progressive": ("jpeg", jpeg(progressive=True, exif=camera_exif(), icc_profile=SRGB, quality=95)),
    "restart markers": (
        "jpeg",
        jpeg(restart_marker_blocks=1, exif=camera_exif(), icc_profile=SRGB, quality=97),
    ),
    "RGB by Adobe's marker": ("jpeg", jpeg(keep_rgb=True, exif=camera_exif(), icc_profile=SRGB)),
    "xmp": ("jpeg", jpeg(exif=camera_exif(), icc_profile=SRGB, xmp=SECRET)),
    "shipped sample": ("jpeg", PHOTOGRAPH.read_bytes()),
    "png": ("png", png(exif=camera_exif(), icc_profile=SRGB, pnginfo=text_chunks())),
    "palette png": ("png", png(pattern("P"), exif=camera_exif(), icc_profile=SRGB, transparency=3)),
}


@pytest.mark.parametrize(("kind", "data"), SAMPLES.values(), ids=SAMPLES)
def test_only_picture_profile_and_orientation_remain(kind: Kind, data: bytes) -> None:
    stripped = strip_metadata(data, kind)

    with Image.open(io.BytesIO(data)) as before, Image.open(io.BytesIO(stripped)) as after:
        assert (after.mode, after.size, after.tobytes()) == (before.mode, before.size, before.tobytes())
        assert after.info["icc_profile"] == before.info["icc_profile"]
        assert after.info.get("transparency") == before.info.get("transparency")
        assert dict(after.getexif()) == {0x0112: 6}
        assert ImageOps.exif_transpose(after).size == (before.height, before.width)
    assert not any(
        word in stripped for word in (SECRET, b"Maker", b"2025:", b"2026:", b"tIME", b"prVt", b"Synthetic")
    )
    assert strip_metadata(stripped, kind) == stripped, "a stripped file is left as it is"


@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_upright_pictures_carry_no_exif_at_all(kind: Kind) -> None:
    data = jpeg(exif=camera_exif(1)) if kind == "jpeg" else png(exif=camera_exif(1))
    stripped = strip_metadata(data, kind)
    assert b"Exif" not in stripped
    assert b"eXIf" not in stripped
    assert read_structure(data, kind).captured_at == datetime.fromisoformat("2025-07-09T08:30:15")


def test_a_thumbnail_inside_the_jfif_header_goes() -> None:
    data = jpeg()
    thumbnail = b"\x02\x01" + bytes.fromhex("c0ffee") * 2
    header = b"JFIF\x00\x01\x02\x00\x00\x01\x00\x01" + thumbnail
    fattened = b"\xff\xd8\xff\xe0" + struct.pack(">H", len(header) + 2) + header + data[20:]
    assert strip_metadata(fattened, "jpeg").find(bytes.fromhex("c0ffee")) == -1
    assert Image.open(io.BytesIO(strip_metadata(fattened, "jpeg"))).tobytes() == pattern_of(data)


def pattern_of(data: bytes) -> bytes:
    with Image.open(io.BytesIO(data)) as image:
        return image.tobytes()


def test_fill_bytes_and_metadata_between_scans() -> None:
    data = jpeg(progressive=True)
    second_scan = data.index(b"\xff\xda", data.index(b"\xff\xda") + 2)
    hidden = b"\xff\xff\xff\xfe" + struct.pack(">H", len(SECRET) + 2) + SECRET + b"\xff\xff"
    stripped = strip_metadata(data[:second_scan] + hidden + data[second_scan:], "jpeg")
    assert SECRET not in stripped
    assert pattern_of(stripped) == pattern_of(data)


def test_further_pictures_and_appended_data_go() -> None:
    first, second = pattern(), pattern().transpose(Image.Transpose.ROTATE_180)
    out = io.BytesIO()
    first.save(out, "MPO", save_all=True, append_images=[second])
    many = out.getvalue()
    with Image.open(io.BytesIO(many)) as image:
        assert image.format == "MPO"
        pixels = image.tobytes()
    stripped = strip_metadata(many + b"PK\x03\x04" + SECRET, "jpeg")
    assert stripped.count(b"\xff\xd8\xff") == 1
    assert SECRET not in stripped
    with Image.open(io.BytesIO(stripped)) as image:
        assert (image.format, image.tobytes()) == ("JPEG", pixels)
    assert SECRET not in strip_metadata(png() + SECRET, "png")


@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_what_does_not_start_as_it_should_is_refused(kind: Kind) -> None:
    with pytest.raises(ImageDamaged):
        strip_metadata((jpeg() if kind == "jpeg" else png())[2:], kind)


def test_what_is_kept_is_told_in_few_pieces() -> None:
    for kind, data in SAMPLES.values():
        pieces = read_structure(data, kind).pieces
        assert len(pieces) < 10
        assert sum(len(piece) for piece in pieces if isinstance(piece, bytes)) < 100
    table, comment = b"\xff\xdd\x00\x04\x00\x00", b"\xff\xfe\x00\x02"
    data = jpeg()
    assert len(read_structure(data[:20] + (table + comment) * 900 + data[20:], "jpeg").pieces) > 900
    with pytest.raises(ImageDamaged, match="too much between"):
        read_structure(data[:20] + (table + comment) * 1_001 + data[20:], "jpeg")


@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_is_read_in_both_byte_orders_and_never_trusted(order: str) -> None:
    magic = b"II*\x00" if order == "<" else b"MM\x00*"
    tiff = magic + struct.pack(order + "IHHHIHHHHII", 8, 2, 0x0112, 3, 1, 8, 0, 0x8769, 4, 1, 38) + bytes(4)
    tiff += struct.pack(order + "HHHII", 1, 0x9003, 2, 20, 56) + bytes(4) + b"2024:02:29 23:59:59\x00"
    assert read_exif(tiff) == (8, datetime.fromisoformat("2024-02-29T23:59:59"))
    assert read_exif(tiff.replace(b"2024:02:29", b"2023:02:29")) == (8, None)
    assert read_exif(tiff.replace(struct.pack(order + "HH", 8, 0), struct.pack(order + "HH", 9, 0)))[0] == 1
    for length in range(len(tiff)):
        read_exif(tiff[:length])
