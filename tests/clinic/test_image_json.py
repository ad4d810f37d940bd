"""The photograph in a JSON body, taken out as it arrives: as a parser and strict base64 would have it."""

import base64
import json
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from fastapi.exceptions import RequestValidationError
from hypothesis import example, given, settings
from hypothesis import strategies as st

from clinic.images.base64_decoder import Base64Decoder
from clinic.images.errors import ImageNotBase64
from clinic.images.json_body import PhotographInJson
from core.problems import TooLarge

STRICT_BASE64 = re.compile("(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
Outcome = tuple[Any, bytes | None]
"""What stands beside the photograph (None: no JSON), and the photograph (None: not base64)."""


def taken_out(body: bytes, cuts: Sequence[int]) -> Outcome:
    scanner, photograph, start = PhotographInJson(), b"", 0
    for end in [*sorted(cuts), len(body)]:
        photograph += scanner.feed(body[start:end])
        start = max(start, end)
    try:
        beside = json.loads(scanner.kept)
    except ValueError:
        return None, None
    try:
        scanner.decoder.finish()
    except ImageNotBase64:
        return beside, None
    return beside, photograph


def parsed(body: bytes) -> Outcome:
    try:
        beside = json.loads(body)
    except ValueError:
        return None, None
    if not isinstance(beside, dict) or not isinstance(beside.get("data"), str):
        return beside, b""
    text = beside["data"]
    beside["data"] = "x" if text else ""
    # The library's own strictness differs between versions of Python: it may let excess padding pass.
    return beside, base64.b64decode(text) if STRICT_BASE64.fullmatch(text) else None


@st.composite
def strings(draw: st.DrawFn, text: str) -> str:
    """A spelling of `text` as a JSON string."""
    escape: Callable[[str], str] = lambda c: f"\\u{ord(c):04x}"  # noqa: E731
    spelt = []
    for character in text:
        odd = draw(st.integers(0, 15)) == 0 and ord(character) < 0x10000
        if odd and character == "/":
            spelt.append("\\/")
        else:
            spelt.append(escape(character) if odd else json.dumps(character)[1:-1])
    return '"' + "".join(spelt) + '"'


SPACE = st.sampled_from(["", "", " ", "\n\t", " \r\n "])
NAMES = st.sampled_from(["view", "body_site", "Data", "data ", 'da"ta', "x\\", "été", ""])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9) | st.just("data"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.just("data"), inner, max_size=3),
    max_leaves=6,
)
BASE64 = st.binary(max_size=300).map(lambda data: base64.b64encode(data).decode())
NEARLY = st.text("AZaz09+/=-_\n ", max_size=12) | BASE64.map(lambda text: text[:-1]) | st.text(max_size=5)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    members = [(name, json.dumps(draw(VALUES))) for name in draw(st.lists(NAMES, max_size=4))]
    photograph = draw(strings(draw(BASE64 | NEARLY)) | VALUES.map(json.dumps))
    members.insert(draw(st.integers(0, len(members))), ("data", photograph))
    spaced = [
        draw(SPACE) + draw(strings(name)) + draw(SPACE) + ":" + draw(SPACE) + value + draw(SPACE)
        for name, value in members
    ]
    return (draw(SPACE) + "{" + ",".join(spaced) + "}" + draw(SPACE)).encode()


CUTS = st.lists(st.integers(0, 900), max_size=12)


@settings(max_examples=600)
@given(bodies(), CUTS)
@example(b'{"data":"AAAA"}', range(15))
@example(b'{"data":"\\u0041AAA"}', range(30))
@example(b'{"\\u0064ata" : "AA\\/A","view":"}"}', range(40))
@example(b'{"data":"0000="}', [])
@example(b'{"data":"0000===="}', [])
@example(b'{"data":"0000===="}', range(30))
@example(b'{"data":"00==0000"}', [])
@example(b'{"data":"0000=000"}', [])
def test_it_is_what_a_parser_would_find(body: bytes, cuts: Sequence[int]) -> None:
    assert taken_out(body, cuts) == parsed(body)


@settings(max_examples=600)
@given(bodies(), CUTS, st.integers(0, 900), st.binary(max_size=3), st.integers(0, 9))
def test_what_no_parser_would_take_is_not_taken(
    body: bytes, cuts: Sequence[int], at: int, put: bytes, removed: int
) -> None:
    broken = body[:at] + put + body[at + removed :]
    try:
        outcome = taken_out(broken, cuts)
    except RequestValidationError:
        return  # the breaking made a second `data`
    expected = parsed(broken)
    # What a parser cannot read of the photograph's own text is as bad as what is not base64.
    assert outcome == expected or (outcome[1] is None and expected == (None, None))


def test_a_photograph_is_given_once() -> None:
    for second in (b'"data":"AAAA"', b'"d\\u0061ta": 5'):
        with pytest.raises(RequestValidationError):
            PhotographInJson().feed(b'{"data":"AAAA",' + second + b"}")


@pytest.mark.parametrize("start", [b"[", b'{"a', b'{"data":[', b'{"data":"AAAA"', b"", b'{"data"'])
def test_what_stands_beside_is_short(start: bytes) -> None:
    scanner = PhotographInJson()
    scanner.feed(start)
    for piece in (b" ", b"\\a", b"[", b'"'):
        with pytest.raises(TooLarge):
            scanner.feed(piece * 20_000)


@pytest.mark.parametrize(
    "piece", [b"A" * 262_144, b"\\u0041" * 43_690, b"\\/\\" * 87_381, b"\\" * 262_143], ids=len
)
def test_long_texts_take_little_time(piece: bytes) -> None:
    scanner = PhotographInJson()
    started = time.perf_counter()
    scanner.feed(b'{"data":"')
    for _ in range(80):
        scanner.feed(piece)
    assert time.perf_counter() - started < 4
    assert len(scanner.kept) < 20


@given(BASE64 | NEARLY, CUTS)
@example("AA==AAAA", [4])
@example("AA==AA==", [4])
@example("-_-_", [])  # the URL-safe alphabet
@example("QR==", [])  # unused bits that are not zero
@example("0000====", [])
def test_base64_in_pieces_is_as_strict_as_in_one(text: str, cuts: Sequence[int]) -> None:
    decoder, decoded, start, encoded = Base64Decoder(), b"", 0, text.encode()
    for end in [*sorted(cuts), len(encoded)]:
        decoded += decoder.feed(encoded[start:end])
        start = max(start, end)
    if STRICT_BASE64.fullmatch(text):
        decoder.finish()
        assert decoded == base64.b64decode(text)
    else:
        with pytest.raises(ImageNotBase64):
            decoder.finish()
