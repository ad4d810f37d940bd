"""The vectorised search for a scan's end finds what looking at one byte after the other does."""

from hypothesis import example, given
from hypothesis import strategies as st

from clinic.images.entropy_coded import _CHUNK, end_of_scan

_TELLING = st.sampled_from([0x00, 0x01, 0xCF, 0xD0, 0xD7, 0xD8, 0xD9, 0xDA, 0xFE, 0xFF, 0xFF, 0xFF])
_PIECES = st.lists(_TELLING, max_size=12).map(bytes)


def _byte_by_byte(data: bytes, start: int) -> int | None:
    for place in range(start, len(data) - 1):
        following = data[place + 1]
        if data[place] == 0xFF and following not in (0x00, 0xFF, *range(0xD0, 0xD8)):
            return place
    return None


@given(data=st.lists(_TELLING, max_size=60).map(bytes), start=st.integers(0, 70))
@example(data=b"\xff\xd9", start=0)
@example(data=b"\xff\xd9", start=1)
@example(data=b"\xff", start=0)
@example(data=b"", start=0)
def test_the_end_is_found_as_by_looking_at_every_byte(data: bytes, start: int) -> None:
    assert end_of_scan(data, start) == _byte_by_byte(data, start)


@given(before=_PIECES, at_border=_PIECES, start=st.integers(0, 3), moved=st.integers(-14, 2))
@example(before=b"", at_border=b"\xff\xd9", start=0, moved=-1)
@example(before=b"", at_border=b"\xff\xff\xd9", start=0, moved=-1)
@example(before=b"", at_border=b"\xff\x00\xff\xd9", start=1, moved=-2)
def test_a_marker_across_two_chunks_is_found(before: bytes, at_border: bytes, start: int, moved: int) -> None:
    plain = b"\x55" * (_CHUNK + start + moved - len(before))
    data = before + plain + at_border + b"\x55"
    assert end_of_scan(data, start) == _byte_by_byte(data, start)


def test_the_whole_of_a_long_scan_is_looked_at() -> None:
    data = (b"\xff\x00" + b"\x55" * 97 + b"\xff\xd3") * 4_000 + b"\xff\xd9" + b"\xff\xdb" * 3
    assert end_of_scan(data, 0) == _byte_by_byte(data, 0) == 4_000 * 101
    assert end_of_scan(data[: 4_000 * 101 + 1], 0) is None
