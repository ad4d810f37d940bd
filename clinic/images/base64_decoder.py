"""Base64 as it arrives."""

import binascii

from clinic.images.errors import ImageNotBase64


class Base64Decoder:
    """Strict base64 (RFC 4648, 4) in pieces of any length."""

    def __init__(self) -> None:
        self._waiting = b""  # of a group of four
        self._ended = False
        self._wrong = False

    def feed(self, text: bytes) -> bytes:
        """What this much more of the text decodes to; what is wrong is told at the end."""
        text = self._waiting + text
        whole = len(text) - len(text) % 4
        self._waiting = text[whole:]
        self._wrong |= self._ended and bool(text)
        if self._wrong or not whole:
            return b""
        padding = text[whole - 4 : whole].count(b"=")
        self._ended = bool(padding)
        try:
            decoded = binascii.a2b_base64(text[:whole], strict_mode=True)
        except binascii.Error:
            decoded = b""
        if len(decoded) != whole // 4 * 3 - padding:  # some Pythons let `0000====` pass as strict
            self.fail()
            return b""
        return decoded

    def fail(self) -> None:
        """Count the text as wrong."""
        self._wrong = True

    def finish(self) -> None:
        """Raise `ImageNotBase64` if any of it was wrong or the last group is not whole."""
        if self._wrong or self._waiting:
            raise ImageNotBase64(
                "`data` must be base64 with the standard alphabet and padding, without line breaks or a `data:` "
                "prefix."
            )
