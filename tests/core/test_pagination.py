"""Cursors are opaque and tolerate nothing but themselves."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.pagination import BadCursor, decode_cursor, encode_cursor


@given(st.uuids())
def test_a_cursor_names_its_row(row: UUID) -> None:
    assert decode_cursor(encode_cursor(row)) == row


@given(st.text(max_size=64))
def test_anything_else_is_refused(text: str) -> None:
    try:
        row = decode_cursor(text)
    except BadCursor:
        return
    assert encode_cursor(row) == text


@pytest.mark.parametrize("text", ["", "=", "AAAA", "\x00", "é" * 22, "A" * 23, "A" * 21 + "B"])
def test_near_misses_are_refused(text: str) -> None:
    with pytest.raises(BadCursor):
        decode_cursor(text)
