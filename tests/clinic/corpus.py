"""Hostile and odd files that somebody may send as a photograph, each with the answer it deserves.

Every one is made here, from a small picture whose corners differ, so that a turned or cut copy shows. Where a file
carries metadata, `SECRET` stands in it.
"""

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageCms, PngImagePlugin

SECRET = b"47.3769 north"
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
LAB = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()


@dataclass(frozen=True)
class Refused:
    slug: str
    make: Callable[[], bytes]
    declared: str = "image/jpeg"


@dataclass(frozen=True)
class Accepted:
    """`orientation` (EXIF, 1 to 8) is how every viewer turns it."""

    make: Callable[[], bytes]
    declared: str = "image/jpeg"
    orientation: int = 1


def picture(mode: str = "RGB", size: tuple[int, int] = (97, 61)) -> Image.Image:
    red = Image.linear_gradient("L").resize(size)
    green = Image.radial_gradient("L").resize(size)
    return Image.merge("RGB", (red, green, red.transpose(Image.Transpose.ROTATE_90).resize(size))).convert(
        mode
    )


def encoded(kind: str, image: Image.Image | None = None, **options: Any) -> bytes:
    out = io.BytesIO()
    (image or picture()).save(out, kind, **options)
    return out.getvalue()


JPEG, PNG, PROGRESSIVE = encoded("JPEG"), encoded("PNG"), encoded("JPEG", progressive=True)
SCAN = JPEG.index(b"\xff\xda")
FRAME = JPEG.index(b"\xff\xc0")


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def jpeg_with(*segments: bytes, base: bytes = JPEG) -> bytes:
    """The JPEG with these bytes right behind its start."""
    return base[:2] + b"".join(segments) + base[2:]


def chunk(name: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png_with(*chunks: bytes, base: bytes = PNG) -> bytes:
    """The PNG with these bytes right behind its header."""
    return base[:33] + b"".join(chunks) + base[33:]


def bare_png(
    width: int, height: int, *chunks: bytes, bits: int = 8, colour: int = 0, interlaced: int = 0
) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced)
    return PNG[:8] + chunk(b"IHDR", header) + b"".join(chunks) + chunk(b"IEND")


def idat(rows: bytes, behind: bytes = b"") -> bytes:
    return chunk(b"IDAT", zlib.compress(rows, 9) + behind)


def interlaced(cut: int = 0) -> bytes:
    """Adam7 by hand, because Pillow interlaces none; the last `cut` bytes of the picture are missing."""
    width, height = 37, 29
    passes = (
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    )
    rows = b"".join(
        b"\x00" + b"".join(bytes((6 * x, 8 * y, 99)) for x in range(left, width, across))
        for left, top, across, down in passes
        for y in range(top, height, down)
    )
    return bare_png(width, height, idat(rows[: len(rows) - cut]), colour=2, interlaced=1)


def tiff(
    *entries: tuple[int, int, int, int], order: str = "<", first: int = 8, count: int | None = None
) -> bytes:
    """An EXIF block of (tag, type, count, value) entries, the directory at `first` claiming `count` of them."""
    directory = struct.pack(order + "H", len(entries) if count is None else count)
    for tag, kind, number, value in entries:
        # A SHORT stands at the start of the four bytes, whatever the order.
        packed = struct.pack(order + "HH", value, 0) if kind == 3 else struct.pack(order + "I", value)
        directory += struct.pack(order + "HHI", tag, kind, number) + packed
    magic = b"II*\x00" if order == "<" else b"MM\x00*"
    return magic + struct.pack(order + "I", first) + directory + struct.pack(order + "I", first) + SECRET


def exif(block: bytes) -> bytes:
    return segment(0xE1, b"Exif\x00\x00" + block)


def camera(orientation: int = 6) -> bytes:
    """What a phone writes: orientation, time, place, a maker's note, and a small copy of the picture."""
    block = Image.Exif()
    block[0x0112], block[0x010F], block[0x9286] = orientation, SECRET.decode(), SECRET.decode()
    block.get_ifd(0x8769).update({0x9003: "2025:07:09 08:30:15", 0x927C: SECRET * 40})
    block.get_ifd(0x8825).update(
        {1: "N", 2: (47.0, 22.0, 36.8), 3: "E", 4: (8.0, 32.0, 30.1), 29: SECRET.decode()}
    )
    return block.tobytes()


def with_exif_thumbnail() -> bytes:
    small = jpeg_with(segment(0xFE, SECRET), base=encoded("JPEG", picture(size=(16, 10))))
    block = b"II*\x00" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 26)
    block += struct.pack("<HHHIIHHIII", 2, 0x0201, 4, 1, 56, 0x0202, 4, 1, len(small), 0) + small
    return jpeg_with(exif(block))


def icc(profile: bytes, *, chunks: tuple[int, ...] = (1,), of: int = 1) -> bytes:
    """The APP2 segments of a profile cut in `of` pieces, of which only `chunks` (from 1) are there."""
    size = -(-len(profile) // of)
    return b"".join(
        segment(0xE2, b"ICC_PROFILE\x00" + bytes((n, of)) + profile[(n - 1) * size : n * size])
        for n in chunks
    )


def archive() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("payload.txt", SECRET)
    return out.getvalue()


def multi_picture() -> bytes:
    turned = picture().transpose(Image.Transpose.ROTATE_180)
    return encoded("MPO", save_all=True, append_images=[turned], comment=SECRET)


def texts(*bodies: bytes) -> bytes:
    """A compressed text of each kind that PNG has, inflating to `bodies`."""
    info = PngImagePlugin.PngInfo()
    for body in bodies:
        info.add_text("Comment", body.decode(), zip=True)
        info.add_itxt("XML:com.adobe.xmp", body.decode(), zip=True)
    info.add_text("Location", SECRET.decode())
    info.add(b"tIME", b"\x07\xe9\x07\x09\x08\x1e\x0f")
    info.add(b"prVt", SECRET)
    return encoded("PNG", pnginfo=info)


def two_restart_intervals() -> bytes:
    return encoded("JPEG", restart_marker_blocks=1)


def scans(more: int) -> bytes:
    """A progressive JPEG that refines its last coefficients `more` times over."""
    last = PROGRESSIVE.rindex(b"\xff\xda")
    return PROGRESSIVE[:-2] + PROGRESSIVE[last:-2] * more + PROGRESSIVE[-2:]


XMP = (
    b"http://ns.adobe.com/xap/1.0/\x00<x:xmpmeta><exif:GPSLatitude>"
    + SECRET
    + b"</exif:GPSLatitude></x:xmpmeta>"
)
IPTC = (
    b"Photoshop 3.0\x008BIM\x04\x04\x00\x00\x00\x00\x00\x12\x1c\x02\x5a\x00" + bytes((len(SECRET),)) + SECRET
)
SCRIPT = b"*/=1;alert('" + SECRET + b"')/*<script>alert(1)</script>"
MOVIE = b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00mp42isom" + SECRET
DICOM = bytes(128) + b"DICM\x02\x00\x00\x00UL\x04\x00" + SECRET
PDF = b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF"

SAMPLES: dict[str, Refused | Accepted] = {
    # Nothing, or hardly anything
    "nothing": Refused("image-empty", lambda: b""),
    "one byte": Refused("image-type-unsupported", lambda: b"\xff"),
    "only a JPEG's magic": Refused("image-damaged", lambda: b"\xff\xd8\xff"),
    "only a PNG's magic": Refused("image-damaged", lambda: PNG[:8], "image/png"),
    "a JPEG without a picture": Refused("image-damaged", lambda: b"\xff\xd8\xff\xd9"),
    "a PNG without a picture": Refused("image-damaged", lambda: PNG[:33] + PNG[-12:], "image/png"),
    "garbage": Refused("image-type-unsupported", lambda: bytes(range(256)) * 9),
    # Cut
    "a JPEG cut in its first segment": Refused("image-damaged", lambda: JPEG[:10]),
    "a JPEG cut in its frame": Refused("image-damaged", lambda: JPEG[: FRAME + 6]),
    "a JPEG cut before its scan": Refused("image-damaged", lambda: JPEG[:SCAN]),
    "a JPEG cut in its scan's header": Refused("image-damaged", lambda: JPEG[: SCAN + 5]),
    "a JPEG cut in its scan": Refused("image-damaged", lambda: JPEG[: SCAN + 200]),
    "a JPEG without its end": Refused("image-damaged", lambda: JPEG[:-2]),
    "a JPEG without its last byte": Refused("image-damaged", lambda: JPEG[:-1]),
    "a progressive JPEG cut between scans": Refused(
        "image-damaged", lambda: PROGRESSIVE[: PROGRESSIVE.rindex(b"\xff\xda")]
    ),
    "a PNG cut in its magic": Refused("image-type-unsupported", lambda: PNG[:5], "image/png"),
    "a PNG cut in its header": Refused("image-damaged", lambda: PNG[:20], "image/png"),
    "a PNG cut in its picture": Refused("image-damaged", lambda: PNG[: len(PNG) // 2], "image/png"),
    "a PNG without its end": Refused("image-damaged", lambda: PNG[:-12], "image/png"),
    "a PNG without its last byte": Refused("image-damaged", lambda: PNG[:-1], "image/png"),
    # Other types, and other names
    "a JPEG called PNG": Refused("image-type-mismatch", lambda: JPEG, "image/png"),
    "a PNG called JPEG": Refused("image-type-mismatch", lambda: PNG),
    "a GIF called JPEG": Refused("image-type-unsupported", lambda: encoded("GIF")),
    "a WebP": Refused("image-type-unsupported", lambda: encoded("WEBP"), "image/webp"),
    "an AVIF called JPEG": Refused("image-type-unsupported", lambda: b"\x00\x00\x00\x20ftypavif" + bytes(99)),
    "an iPhone's HEIC": Refused("image-type-unsupported", lambda: b"\x00\x00\x00\x24ftypheic" + bytes(99)),
    "a TIFF": Refused("image-type-unsupported", lambda: encoded("TIFF")),
    "a BMP called PNG": Refused("image-type-unsupported", lambda: encoded("BMP"), "image/png"),
    "a JPEG 2000": Refused("image-type-unsupported", lambda: encoded("JPEG2000")),
    "an SVG": Refused(
        "image-type-unsupported", lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/png"
    ),
    "a DICOM object": Refused("image-type-unsupported", lambda: DICOM),
    "a DICOM object that begins as a JPEG": Refused("image-damaged", lambda: b"\xff\xd8\xff\xe0" + DICOM[4:]),
    "a PDF": Refused("image-type-unsupported", lambda: PDF),
    "a page": Refused("image-type-unsupported", lambda: b"<!doctype html>" + SCRIPT + JPEG),
    "an archive first": Refused("image-type-unsupported", lambda: archive() + JPEG),
    "a blank before the picture": Refused("image-type-unsupported", lambda: b"\n" + JPEG),
    # Too much
    "too many bytes": Refused("image-too-large", lambda: JPEG + bytes(20_000_000)),
    "100 megapixels in 12 KB": Refused(
        "image-dimensions", lambda: bare_png(10_000, 10_000, idat(bytes(12_510_000)), bits=1), "image/png"
    ),
    "a PNG of the largest size there is": Refused(
        "image-dimensions", lambda: bare_png(2**31 - 1, 2**31 - 1, idat(b"\x00")), "image/png"
    ),
    "a JPEG of 65,535 × 65,535": Refused(
        "image-dimensions", lambda: JPEG[: FRAME + 5] + b"\xff\xff\xff\xff" + JPEG[FRAME + 9 :]
    ),
    "a JPEG without height": Refused(
        "image-dimensions", lambda: JPEG[: FRAME + 5] + b"\x00\x00" + JPEG[FRAME + 7 :]
    ),
    "a PNG without width": Refused("image-dimensions", lambda: bare_png(0, 10, idat(bytes(10))), "image/png"),
    "a PNG that inflates to 30 MB": Refused(
        "image-damaged", lambda: bare_png(9, 9, idat(bytes(30_000_000))), "image/png"
    ),
    "a profile that inflates to 30 MB": Refused(
        "image-damaged",
        lambda: png_with(chunk(b"iCCP", b"x\x00\x00" + zlib.compress(bytes(30_000_000)))),
        "image/png",
    ),
    "a thousand profiles": Refused(
        "image-damaged",
        lambda: png_with(chunk(b"iCCP", b"x\x00\x00" + zlib.compress(bytes(900_000))) * 1_000),
        "image/png",
    ),
    "two hundred thousand comments": Refused(
        "image-damaged", lambda: jpeg_with(segment(0xFE, b"") * 200_000)
    ),
    "a hundred thousand empty pieces of picture": Refused(
        "image-damaged", lambda: png_with(chunk(b"IDAT") * 100_000), "image/png"
    ),
    "a hundred thousand scans": Refused("image-damaged", lambda: scans(100_000)),
    # Not as the format allows
    "a second start": Refused("image-damaged", lambda: b"\xff\xd8" + JPEG),
    "two frames": Refused("image-damaged", lambda: JPEG[:SCAN] + JPEG[FRAME : FRAME + 19] + JPEG[SCAN:]),
    "a scan before the frame": Refused("image-damaged", lambda: JPEG[:2] + JPEG[SCAN:]),
    "a segment of no length": Refused("image-damaged", lambda: jpeg_with(b"\xff\xe1\x00\x00")),
    "bytes between segments": Refused("image-damaged", lambda: JPEG[:20] + b"junk" + JPEG[20:]),
    "an unknown segment": Refused("image-damaged", lambda: jpeg_with(segment(0x02, SECRET))),
    "a JPEG without tables": Refused("image-damaged", lambda: JPEG[:20] + JPEG[FRAME:]),
    "a broken checksum": Refused("image-damaged", lambda: PNG[:29] + bytes(4) + PNG[33:], "image/png"),
    "no header": Refused("image-damaged", lambda: PNG[:8] + PNG[33:], "image/png"),
    "two headers": Refused("image-damaged", lambda: png_with(PNG[8:33]), "image/png"),
    "an unknown critical chunk": Refused("image-damaged", lambda: png_with(chunk(b"EVIL")), "image/png"),
    "too few rows": Refused("image-damaged", lambda: bare_png(64, 64, idat(bytes(65 * 10))), "image/png"),
    "too few interlaced rows": Refused("image-damaged", lambda: interlaced(cut=1), "image/png"),
    "a picture that is no deflate": Refused(
        "image-damaged", lambda: bare_png(64, 64, chunk(b"IDAT", b"zzzz")), "image/png"
    ),
    "rows behind the last": Refused("image-damaged", lambda: bare_png(9, 9, idat(bytes(100))), "image/png"),
    "an archive behind the last row": Refused(
        "image-damaged", lambda: bare_png(9, 9, idat(bytes(90), archive())), "image/png"
    ),
    "a piece of another picture behind the last row": Refused(
        "image-damaged", lambda: bare_png(9, 9, idat(bytes(90)), idat(SECRET)), "image/png"
    ),
    "a palette picture without a palette": Refused(
        "image-damaged", lambda: bare_png(9, 9, idat(bytes(90)), colour=3), "image/png"
    ),
    "a colour type there is not": Refused(
        "image-damaged", lambda: bare_png(9, 9, idat(bytes(90)), colour=5), "image/png"
    ),
    # What browsers show wrongly or not at all
    "an animation": Refused(
        "image-animated",
        lambda: encoded("PNG", save_all=True, append_images=[picture().rotate(180)]),
        "image/png",
    ),
    "printing colours": Refused("image-colour-unsupported", lambda: encoded("JPEG", picture("CMYK"))),
    "printing colours, transformed": Refused(
        "image-colour-unsupported",
        lambda: encoded("JPEG", picture("CMYK")).replace(
            b"Adobe\x00d\x00\x00\x00\x00\x00", b"Adobe\x00d\x00\x00\x00\x00\x02"
        ),
    ),
    "12 bits": Refused(
        "image-colour-unsupported", lambda: JPEG.replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc1\x00\x11\x0c")
    ),
    "16 bits": Refused("image-colour-unsupported", lambda: encoded("PNG", picture("I;16")), "image/png"),
    "16 bits in three channels": Refused(
        "image-colour-unsupported",
        lambda: bare_png(8, 8, idat(bytes(49 * 8)), bits=16, colour=2),
        "image/png",
    ),
    "arithmetic coding": Refused(
        "image-type-unsupported", lambda: JPEG.replace(b"\xff\xc0\x00\x11", b"\xff\xc9\x00\x11")
    ),
    "a lossless JPEG": Refused(
        "image-type-unsupported", lambda: JPEG.replace(b"\xff\xc0\x00\x11", b"\xff\xc3\x00\x11")
    ),
    "a hierarchical JPEG": Refused(
        "image-type-unsupported", lambda: JPEG.replace(b"\xff\xc0\x00\x11", b"\xff\xc5\x00\x11")
    ),
    "JPEG-LS": Refused(
        "image-type-unsupported", lambda: JPEG.replace(b"\xff\xc0\x00\x11", b"\xff\xf7\x00\x11")
    ),
    # Every kind of picture that browsers show
    "a plain JPEG": Accepted(lambda: JPEG),
    "a plain PNG": Accepted(lambda: PNG, "image/png"),
    "a JPEG by its unregistered name": Accepted(lambda: JPEG, "IMAGE/JPG; charset=binary"),
    "a progressive JPEG": Accepted(lambda: PROGRESSIVE),
    "a grey JPEG": Accepted(lambda: encoded("JPEG", picture("L"))),
    "a JPEG in RGB": Accepted(lambda: encoded("JPEG", keep_rgb=True)),
    "restart markers": Accepted(two_restart_intervals),
    "restart markers out of order": Accepted(
        lambda: two_restart_intervals().replace(b"\xff\xd1", b"\xff\xd2")
    ),
    "one pixel": Accepted(lambda: encoded("JPEG", picture(size=(1, 1)))),
    "one row of pixels": Accepted(lambda: encoded("PNG", picture(size=(9_000, 1))), "image/png"),
    "one column of pixels": Accepted(lambda: encoded("JPEG", picture(size=(1, 9_000)))),
    "one bit": Accepted(lambda: encoded("PNG", picture("1")), "image/png"),
    "grey": Accepted(lambda: encoded("PNG", picture("L")), "image/png"),
    "grey with alpha": Accepted(lambda: encoded("PNG", picture("LA")), "image/png"),
    "colours with alpha": Accepted(lambda: encoded("PNG", picture("RGBA")), "image/png"),
    "all transparent": Accepted(lambda: encoded("PNG", Image.new("RGBA", (20, 20))), "image/png"),
    "a transparent colour": Accepted(lambda: encoded("PNG", transparency=(0, 0, 0)), "image/png"),
    "a palette": Accepted(lambda: encoded("PNG", picture("P")), "image/png"),
    "a palette with transparency": Accepted(
        lambda: encoded("PNG", picture("P"), transparency=bytes(range(0, 256, 2))), "image/png"
    ),
    "interlaced": Accepted(interlaced, "image/png"),
    "25 megapixels in 3 KB": Accepted(
        lambda: bare_png(5_000, 5_000, idat(bytes(626 * 5_000)), bits=1), "image/png"
    ),
    # Metadata
    "a phone's EXIF": Accepted(
        lambda: encoded("JPEG", exif=camera(), icc_profile=SRGB, comment=SECRET), orientation=6
    ),
    "a phone's EXIF in a PNG": Accepted(lambda: encoded("PNG", exif=camera(8)), "image/png", orientation=8),
    "a picture within EXIF": Accepted(with_exif_thumbnail, orientation=6),
    "a place in XMP": Accepted(lambda: jpeg_with(segment(0xE1, XMP))),
    "a place in IPTC": Accepted(lambda: jpeg_with(segment(0xED, IPTC))),
    "text of every kind": Accepted(lambda: texts(SECRET), "image/png"),
    "texts that inflate to 1 MB": Accepted(lambda: texts(SECRET + b" " * 1_000_000), "image/png"),
    "a script in a comment": Accepted(lambda: jpeg_with(segment(0xFE, SCRIPT))),
    "segments of every application": Accepted(
        lambda: jpeg_with(*(segment(0xE0 + n, b"what is this? " + SECRET) for n in range(16)))
    ),
    "EXIF that leads back to itself": Accepted(
        lambda: jpeg_with(exif(tiff((0x0112, 3, 1, 6), (0x8769, 4, 1, 8)))), orientation=6
    ),
    "EXIF in the other byte order": Accepted(
        lambda: jpeg_with(exif(tiff((0x0112, 3, 1, 3), order=">"))), orientation=3
    ),
    "EXIF that points outside": Accepted(lambda: jpeg_with(exif(tiff((0x0112, 3, 1, 6), first=0xFFFF_FFF0)))),
    "EXIF that promises 65,535 entries": Accepted(
        lambda: jpeg_with(exif(tiff((0x0112, 3, 1, 6), count=0xFFFF))), orientation=6
    ),
    "EXIF whose time is elsewhere": Accepted(
        lambda: jpeg_with(exif(tiff((0x8769, 4, 1, 26), (0x9003, 2, 0xFFFF_FFFF, 0xFFFF_FFFF))))
    ),
    "an orientation of 0": Accepted(lambda: jpeg_with(exif(tiff((0x0112, 3, 1, 0))))),
    "an orientation of 9": Accepted(lambda: jpeg_with(exif(tiff((0x0112, 3, 1, 9))))),
    "two orientations": Accepted(
        lambda: jpeg_with(exif(tiff((0x0112, 3, 1, 8))), exif(tiff((0x0112, 3, 1, 3)))), orientation=8
    ),
    # Colour profiles
    "a large profile in three pieces": Accepted(
        lambda: jpeg_with(icc(SRGB + bytes(150_000), chunks=(1, 2, 3), of=3))
    ),
    "a profile without its second piece": Accepted(lambda: jpeg_with(icc(SRGB, chunks=(1, 3), of=3))),
    "a profile of no pieces": Accepted(
        lambda: jpeg_with(icc(SRGB, of=1).replace(b"\x01\x01", b"\x00\x00", 1))
    ),
    "a profile of another colour space": Accepted(lambda: jpeg_with(icc(LAB))),
    "a profile that is none": Accepted(lambda: jpeg_with(icc(b"no profile " * 20))),
    "a grey PNG with a colour profile": Accepted(
        lambda: encoded("PNG", picture("L"), icc_profile=SRGB), "image/png"
    ),
    "a PNG's profile that is no deflate": Accepted(
        lambda: png_with(chunk(b"iCCP", b"x\x00\x00zzzz")), "image/png"
    ),
    # More than one picture, and what hides behind it
    "a multi-picture JPEG": Accepted(multi_picture),
    "a motion photo": Accepted(lambda: jpeg_with(segment(0xE1, XMP)) + MOVIE),
    "an archive behind a JPEG": Accepted(lambda: JPEG + archive()),
    "an archive behind a PNG": Accepted(lambda: PNG + archive(), "image/png"),
    "a page behind a PNG": Accepted(lambda: PNG + b"<!doctype html>" + SCRIPT, "image/png"),
    "a document behind a JPEG": Accepted(lambda: JPEG + SECRET + PDF),
    "a document in a comment": Accepted(lambda: jpeg_with(segment(0xFE, PDF + SECRET))),
    "trailing megabytes": Accepted(lambda: JPEG + SECRET * 500_000),
    "many fill bytes": Accepted(lambda: jpeg_with(b"\xff" * 50_000)),
    "comments between scans": Accepted(
        lambda: PROGRESSIVE[:-2] + b"\xff\xff" + segment(0xFE, SECRET) + PROGRESSIVE[-2:]
    ),
    "a cut JPEG that was closed": Accepted(lambda: JPEG[: SCAN + 900] + b"\xff\xd9"),
}
