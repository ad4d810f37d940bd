"""What of a photograph's EXIF is of use: how to turn it upright, and when it was taken."""

import struct
from datetime import datetime

_ORIENTATION, _EXIF_POINTER, _DATE_TIME_ORIGINAL = 0x0112, 0x8769, 0x9003
_SHORT, _LONG, _ASCII = 3, 4, 2


def read_exif(tiff: bytes) -> tuple[int, datetime | None]:
    """Orientation (1 to 8) and capture time of an EXIF block (CIPA DC-008), which starts as a TIFF file.

    EXIF is written badly by many devices and decides nothing about the picture being whole, so what cannot
    be read counts as absent: upright, and of unknown time.
    """
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(tiff[:4])
    if order is None:
        return 1, None
    try:
        first = _directory(tiff, order, struct.unpack_from(order + "I", tiff, 4)[0])
        orientation = first.get((_ORIENTATION, _SHORT), b"\x00\x00\x00\x00")
        pointer = first.get((_EXIF_POINTER, _LONG))
        (turned,) = struct.unpack(order + "H", orientation[:2])
        taken = _capture_time(tiff, order, struct.unpack(order + "I", pointer)[0]) if pointer else None
    except struct.error:
        return 1, None
    return (turned if 1 <= turned <= 8 else 1), taken


def _directory(tiff: bytes, order: str, offset: int) -> dict[tuple[int, int], bytes]:
    """The entries of one image file directory: (tag, type) → the four bytes of value or offset."""
    (promised,) = struct.unpack_from(order + "H", tiff, offset)
    count = min(promised, (len(tiff) - offset - 2) // 12)  # what is there counts, as it does for browsers
    entries: dict[tuple[int, int], bytes] = {}
    for number in range(count):
        tag, kind, _, value = struct.unpack_from(order + "HHI4s", tiff, offset + 2 + 12 * number)
        entries.setdefault((tag, kind), value)
    return entries


def _capture_time(tiff: bytes, order: str, offset: int) -> datetime | None:
    try:
        value = _directory(tiff, order, offset)[_DATE_TIME_ORIGINAL, _ASCII]
        (place,) = struct.unpack(order + "I", value)
        return datetime.strptime(tiff[place : place + 19].decode("ascii"), "%Y:%m:%d %H:%M:%S")  # noqa: DTZ007 – EXIF has no zone
    except (KeyError, ValueError, struct.error):
        return None


def minimal_exif(orientation: int) -> bytes:
    """An EXIF block that holds nothing but the orientation."""
    return struct.pack("<4sIHHHIHHI", b"II*\x00", 8, 1, _ORIENTATION, _SHORT, 1, orientation, 0, 0)
