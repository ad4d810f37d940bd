"""The structure of JPEG and PNG files, read and rewritten without touching a pixel.

A photograph carries where and when it was taken, by which device, and often a second, smaller copy of itself.
Re-encoding would lose all that, but the image's quality with it; so the file is walked segment by segment
(JPEG: ITU-T T.81, annex B) or chunk by chunk (PNG: W3C PNG, third edition, section 5) and only what is
needed to show it is kept, byte for byte. The colour profile stays, and of EXIF the orientation alone. What is
kept is told by where it stands in the file, so that a long file is neither copied nor moved between processes.
"""

import re
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from clinic.images.errors import ImageDamaged, ImageTypeUnsupported
from clinic.images.exif import minimal_exif, read_exif

Kind = Literal["jpeg", "png"]

Piece = range | bytes
"""A part of a rewritten file: these bytes of the one it was made from, or a few bytes of our own."""

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_HEADER_END = 33  # signature and IHDR, which comes first
_PNG_KEPT = {
    b"PLTE",
    b"IDAT",
    b"IEND",
    b"tRNS",
    b"gAMA",
    b"cHRM",
    b"sRGB",
    b"iCCP",
    b"sBIT",
    b"bKGD",
    b"pHYs",
}

_SOI, _EOI, _SOS, _COM = 0xD8, 0xD9, 0xDA, 0xFE
_APP0, _APP1, _APP2, _APP14, _APP15 = 0xE0, 0xE1, 0xE2, 0xEE, 0xEF
_FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # SOFn: C0–CF but DHT, JPG and DAC; F7 is JPEG-LS
# What browsers show: baseline, extended and progressive, in Huffman's code.
_SHOWN_FRAMES = {0xC0, 0xC1, 0xC2}
# Grey, or chrominance of as many samples as luminance, or half as many across, down or both ways.
_PLAIN_SAMPLING = {b"\x11", *(bytes((luminance, 0x11, 0x11)) for luminance in (0x11, 0x21, 0x12, 0x22))}
_TABLES = {0xC4, 0xCC, 0xDB, 0xDC, 0xDD}  # DHT, DAC, DQT, DNL, DRI
_MOST_PIECES = 1_000  # honest files have a dozen; what others are told of must stay short
# Walking a file takes time for each of its parts, and decoding for each scan, so that a small file could take hours.
_MOST_PARTS = 20_000  # segments or chunks: 20 MB in chunks of 1 KB, smaller than any encoder's
_MOST_SCANS = 32  # progressive encoders write about ten

_MARKER = re.compile(rb"\xff+[^\xff]")  # any number of fill bytes may stand before it

# PNG, section 8.1: left, top, step across, step down of each of the seven interlaced passes
_ADAM7 = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)


@dataclass(frozen=True)
class Structure:
    """What a file says of itself before a pixel is decoded; sizes in pixels as stored, `bits` per channel."""

    width: int
    height: int
    bits: int
    printing_colours: bool
    """Four components: CMYK or YCCK."""
    animated: bool
    orientation: int
    """EXIF orientation, 1 (upright) to 8."""
    captured_at: datetime | None
    """The camera's clock, whose time zone nobody knows."""
    pieces: tuple[Piece, ...]
    """The file without metadata; decodes to the same pixels."""
    plain: bool
    """A JPEG in the colours and sampling that every reader of JPEG has."""


def strip_metadata(data: bytes, kind: Kind) -> bytes:
    """The same picture without metadata: pixels bit-exact, ICC profile kept, of EXIF only the orientation.

    Raises `ImageDamaged`. Whatever follows the end of the (first) picture is dropped: the further pictures
    of a multi-picture file (CIPA DC-007) as much as an appended archive.
    """
    return join(data, read_structure(data, kind).pieces)


def join(data: bytes, pieces: Iterable[Piece]) -> bytes:
    """The file that the pieces of `data` make."""
    view = memoryview(data)
    return b"".join(piece if isinstance(piece, bytes) else view[piece.start : piece.stop] for piece in pieces)


def read_structure(data: bytes, kind: Kind) -> Structure:
    """Walk `data` once, in time proportional to its length. Raises `ImageDamaged`."""
    try:
        return _read_jpeg(data) if kind == "jpeg" else _read_png(data)
    except (struct.error, IndexError) as error:
        raise ImageDamaged("The file ends before its picture does. Upload the whole file again.") from error


def _read_jpeg(data: bytes) -> Structure:
    # Here, since it needs NumPy, and the gateway's own process does not.
    from clinic.images.entropy_coded import end_of_scan

    if data[:2] != b"\xff\xd8":
        raise ImageDamaged("The file does not start as a JPEG does. Upload the original file.")
    jfif, exif, frame = b"", b"", b""
    kept: list[Piece] = []
    position, scans, rgb = 2, 0, False
    for _ in range(_MOST_PARTS):
        start = position
        if data[position] != 0xFF:
            raise ImageDamaged("The JPEG has bytes between its segments. Upload the original file.")
        found = _MARKER.match(data, position)
        if not found:
            raise struct.error("fill bytes without a marker")
        position = found.end() - 1
        marker = data[position]
        if marker == _EOI:
            break
        (length,) = struct.unpack_from(">H", data, position + 1)
        body = data[position + 3 : position + 1 + length]
        if length < 2 or len(body) != length - 2:
            raise struct.error("segment longer than the file")
        position += 1 + length
        segment = range(position - length - 2, position)  # with one 0xFF before its marker
        if marker == _SOS:
            end = end_of_scan(data, position)
            if not frame or end is None:
                raise struct.error("scan without a frame or an end")
            _keep(kept, range(start, end))
            position, scans = end, scans + 1
            if scans > _MOST_SCANS:
                raise ImageDamaged("The JPEG has too many scans. Save it anew as a plain JPEG.")
        elif marker in _FRAMES:
            if marker not in _SHOWN_FRAMES:
                raise ImageTypeUnsupported(
                    "The JPEG is compressed in a way that browsers do not show. Save it anew as a plain JPEG."
                )
            if frame:
                raise ImageDamaged("The JPEG describes more than one frame. Save it anew as a plain JPEG.")
            frame = body
            _keep(kept, segment)
        elif marker in _TABLES or (marker == _APP2 and body.startswith(b"ICC_PROFILE\x00")):
            _keep(kept, segment)
        elif marker == _APP14 and body.startswith(b"Adobe") and len(body) >= 12:
            _keep(kept, b"\xff\xee\x00\x0e" + body[:12])  # tells RGB from YCbCr
            rgb = rgb or not body[11]
        elif marker == _APP0 and body.startswith(b"JFIF\x00") and len(body) >= 14:
            jfif = jfif or b"\xff\xe0\x00\x10" + body[:12] + b"\x00\x00"  # without its thumbnail
        elif marker == _APP1 and body.startswith(b"Exif\x00"):
            exif = exif or body[6:]
        elif not (_APP0 <= marker <= _APP15 or marker == _COM):
            raise ImageDamaged(
                f"The JPEG has an unknown segment (FF{marker:02X}). Save it anew as a plain JPEG."
            )
    else:
        raise ImageDamaged("The JPEG has too many segments. Save it anew as a plain JPEG.")
    if not scans:
        raise ImageDamaged("The JPEG holds no picture. Upload the original file.")
    bits, height, width, components = struct.unpack_from(">BHHB", frame)
    orientation, captured_at = read_exif(exif)
    if orientation != 1:
        payload = b"Exif\x00\x00" + minimal_exif(orientation)
        jfif += b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload
    pieces = (b"\xff\xd8" + jfif, *kept, b"\xff\xd9")
    plain = frame[7::3] in _PLAIN_SAMPLING and not rgb and frame[6::3] != b"RGB"
    return Structure(width, height, bits, components == 4, False, orientation, captured_at, pieces, plain)


def _keep(kept: list[Piece], piece: Piece) -> None:
    """Add a piece; one that goes on where the last ended makes it longer."""
    last = kept[-1] if kept else b""
    if isinstance(piece, range) and isinstance(last, range) and last.stop == piece.start:
        kept[-1] = range(last.start, piece.stop)
    elif len(kept) == _MOST_PIECES:
        raise ImageDamaged("The file has too much between the parts of its picture. Save it anew.")
    else:
        kept.append(piece)


def _read_png(data: bytes) -> Structure:
    if not data.startswith(PNG_SIGNATURE):
        raise ImageDamaged("The file does not start as a PNG does. Upload the original file.")
    header, exif, seen = b"", b"", set[bytes]()
    kept: list[Piece] = []
    position = len(PNG_SIGNATURE)
    for _ in range(_MOST_PARTS):
        (length,) = struct.unpack_from(">I", data, position)
        name = data[position + 4 : position + 8]
        body = data[position + 8 : position + 8 + length]
        (checksum,) = struct.unpack_from(">I", data, position + 8 + length)
        if zlib.crc32(body, zlib.crc32(name)) != checksum:
            raise ImageDamaged("A checksum inside the PNG is wrong. Upload the original file again.")
        if (name == b"IHDR") != (not header) or (name == b"IHDR" and length != 13):
            raise ImageDamaged(
                "The PNG's header is missing, repeated or malformed. Upload the original file."
            )
        if name == b"IHDR":
            header = body
        elif name == b"eXIf":
            exif = exif or body
        elif name not in _PNG_KEPT and not name[0] & 0x20:  # a capital: no reader may skip it
            raise ImageDamaged("The PNG has an unknown critical chunk. Save it anew as a plain PNG.")
        elif name in seen and name in _PNG_KEPT - {b"IDAT"}:
            raise ImageDamaged("The PNG repeats what it may say only once. Save it anew as a plain PNG.")
        seen.add(name)
        if name in _PNG_KEPT:
            _keep(kept, range(position, position + 12 + length))
        position += 12 + length
        if name == b"IEND":
            break
    else:
        raise ImageDamaged("The PNG has too many chunks. Save it anew as a plain PNG.")
    if b"IDAT" not in seen:
        raise ImageDamaged("The PNG holds no picture. Upload the original file.")
    width, height, bits = struct.unpack_from(">IIB", header)
    orientation, captured_at = read_exif(exif)
    turned = [_png_chunk(b"eXIf", minimal_exif(orientation))] if orientation != 1 else []
    pieces = (range(_PNG_HEADER_END), *turned, *kept)
    animated = b"acTL" in seen
    return Structure(width, height, bits, False, animated, orientation, captured_at, pieces, plain=False)


def require_all_rows(png: bytes) -> None:
    """Raise `ImageDamaged` if a PNG does not inflate to as many bytes as its header promises.

    Decoders take a well-formed but short stream for an image whose last rows are black, and pass over what stands
    behind the last row, where anything can hide. `png` is a stripped file whose size has been accepted, since this
    inflates it (1 MB at a time).
    """
    width, height, bits, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", png, 16)
    depth = bits * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(colour, 0)
    missing = 0
    for left, top, across, down in _ADAM7 if interlaced else ((0, 0, 1, 1),):
        columns, rows = len(range(left, width, across)), len(range(top, height, down))
        missing += rows * (1 + (columns * depth + 7) // 8) if columns else 0
    inflate, position = zlib.decompressobj(), len(PNG_SIGNATURE)
    try:
        while position < len(png):
            length, name = struct.unpack_from(">I4s", png, position)
            pending = png[position + 8 : position + 8 + length] if name == b"IDAT" else b""
            while pending and missing >= 0:
                missing -= len(inflate.decompress(pending, 1 << 20))
                pending = inflate.unconsumed_tail
            position += 12 + length
        missing -= len(inflate.flush()) if missing > 0 else 0
    except zlib.error as error:
        raise ImageDamaged("The PNG's compressed data are broken. Upload the original file again.") from error
    if missing < 0 or inflate.unused_data:
        raise ImageDamaged("The PNG goes on behind its last row. Save it anew as a plain PNG.")
    if missing > 0:
        raise ImageDamaged("The PNG ends before its last row. Upload the whole file again.")


def _png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(name)))
