"""A photograph in JSON, taken out of the body as it arrives: a parser would need all of it in memory, twice."""

import json
import re

from fastapi.exceptions import RequestValidationError

from clinic.images.base64_decoder import Base64Decoder
from core.problems import TooLarge

MOST_BESIDE = 16_384  # bytes that the object may have beside its photograph

# One token of JSON (RFC 8259) that is complete whatever follows, but for a number or word, which never matter here.
# A colon counts with the spaces after it, so that what it leads to can be seen.
_TOKEN = re.compile(rb'\s*+("(?:[^"\\]|\\.)*+"|[{}\[\],]|:\s*+(?=\S)|[^"{}\[\],:\s]++)', re.DOTALL)
# The text of a string as far as no escape in it is cut in two.
_TEXT = re.compile(rb'[^"\\]*+(?:\\(?:u.{4}|[^u])[^"\\]*+)*+', re.DOTALL)


class PhotographInJson:
    """Decodes the member `data` of an object that arrives in pieces, and keeps everything else.

    What is kept is the object with an `x` for the photograph: to be parsed, and refused, by those who know what it
    should hold.
    """

    def __init__(self) -> None:
        self.decoder = Base64Decoder()
        self.kept = bytearray()
        self._seen = 0  # bytes of `kept` whose tokens have been counted
        self._depth = 0
        self._name = b""  # the last string between the outermost braces
        self._found = False
        self._inside = False
        self._escape = b""  # the begin of one

    def feed(self, chunk: bytes) -> bytes:
        """What this much more of the body adds to the photograph.

        Raises `TooLarge` and, for a second `data`, `RequestValidationError`.
        """
        photograph = b""
        if not self._inside:
            chunk = self._beside(chunk)
        if self._inside:
            photograph, chunk = self._within(chunk)
            if chunk:
                self._beside(chunk)
        return photograph

    def _beside(self, chunk: bytes) -> bytes:
        """Keep what is not the photograph; returns what comes after the quote that opens it."""
        room = MOST_BESIDE - len(self.kept)
        self.kept += chunk[:room]
        while token := _TOKEN.match(self.kept, self._seen):
            self._seen = token.end()
            if self._leads_to_photograph(token[1]) and self.kept[self._seen] == ord('"'):
                self._inside = True
                rest = bytes(self.kept[self._seen + 1 :]) + chunk[room:]
                self.kept[self._seen + 1 :] = b""
                return rest
        if len(chunk) > room:
            raise TooLarge(f"Beside its photograph the body may have {MOST_BESIDE:,} bytes.")
        return b""

    def _leads_to_photograph(self, token: bytes) -> bool:
        """Count a token; true for the colon after the name `data`."""
        kind = token[:1]
        if kind in b"{[":
            self._depth += 1
        elif kind in b"}]":
            self._depth -= 1
        elif self._depth == 1 and kind == b'"':
            self._name = token
        elif self._depth == 1 and kind == b":" and _spells_data(self._name):
            if self._found:
                raise RequestValidationError(
                    [{"type": "repeated", "loc": ("body", "data"), "msg": "Give this member once"}]
                )
            self._found = True
            return True
        return False

    def _within(self, chunk: bytes) -> tuple[bytes, bytes]:
        """What the photograph's text decodes to, and what comes after the quote that closes it."""
        text = self._escape + chunk
        quote = text.find(b'"')
        end = quote if quote >= 0 else len(text)
        if text.find(b"\\", 0, end) >= 0:
            complete = _TEXT.match(text)
            assert complete  # it matches nothing, too
            end = complete.end()
        if end and self.kept[-1] == ord('"'):
            self.kept += b"x"
        closed = text[end : end + 1] == b'"'
        self._escape = b"" if closed else text[end:]
        if closed:
            self._inside = False
            self.kept += b'"'
        return self._decoded(text[:end]), text[end + 1 :] if closed else b""

    def _decoded(self, text: bytes) -> bytes:
        if b"\\" in text:
            try:
                text = json.loads(f'"{text.decode()}"').encode()
            except ValueError:
                self.decoder.fail()
                return b""
        return self.decoder.feed(text)


def _spells_data(name: bytes) -> bool:
    try:
        return bool(json.loads(name) == "data")
    except ValueError:  # a parser will say so
        return False
