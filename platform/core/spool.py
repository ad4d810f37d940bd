"""Uploads on their way, in encrypted files, so that memory stays bounded however long and however many they are.

What was uploaded may show a face and say where it was taken, so it never lies readable on a disk: each file has a
key of its own, held in memory alone. What a crash leaves behind nobody can read, and the next start removes it.
"""

import asyncio
import fcntl
import hashlib
import os
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from io import BytesIO, FileIO
from pathlib import Path
from typing import BinaryIO

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from core.problems import Unavailable

_PREFIX = "dermadetect-upload-"
_CHUNK = 1024 * 1024  # bytes that a trip to a thread is made for
_PIECE = 128 * 1024  # bytes encrypted or decrypted in one go; they stay in a processor's second cache
_BLOCK = 16  # bytes: AES's
_OBJECT = 64  # bytes that a few bytes take besides


class SpoolFull(Unavailable):
    """Too much is on its way at once, or the disk is full."""

    slug, title = "uploads-full", "Too many uploads are on their way"


@dataclass(frozen=True, repr=False)
class SealedFile:
    """Where an upload lies and the key that opens it; small and picklable, for a worker of `core.jail`."""

    path: Path
    key: bytes

    def cipher(self, block: int = 0) -> Cipher[CTR]:
        """AES-256 in counter mode (NIST SP 800-38A, 6.5) from this block on. The counter begins at zero, since the
        key is used for this file alone."""
        return Cipher(AES(self.key), CTR(block.to_bytes(_BLOCK, "big")))

    def read(self, start: int = 0, stop: int | None = None) -> bytes:
        """What was uploaded, from byte `start` up to byte `stop` (to the end, if None)."""
        size = self.path.stat().st_size
        return self.join([range(start, size if stop is None else min(stop, size))])

    def join(self, parts: Sequence[range | bytes]) -> bytes:
        """These bytes of what was uploaded, and what stands between them."""
        size = sum(map(len, parts))
        joined = BytesIO()  # gives its bytes away without copying them
        joined.seek(size + _BLOCK - 2)  # the cipher asks for more room than it uses
        joined.write(b"\x00")
        with self.path.open("rb", buffering=0) as file, joined.getbuffer() as room:
            at = 0
            for part in parts:
                if isinstance(part, bytes):
                    room[at : at + len(part)] = part
                elif part:
                    self._decrypt(file, part, room[at:])
                at += len(part)
        joined.truncate(size)
        return joined.getvalue()

    def _decrypt(self, file: FileIO, part: range, room: memoryview) -> None:
        block, inside = divmod(part.start, _BLOCK)
        decryptor = self.cipher(block).decryptor()
        decryptor.update(bytes(inside))
        file.seek(part.start)
        sealed = memoryview(bytearray(min(_PIECE, len(part))))
        for at in range(0, len(part), _PIECE):
            piece = sealed[: len(part) - at]
            if file.readinto(piece) != len(piece):
                raise OSError("an upload's file is shorter than it was")
            decryptor.update_into(piece, room[at:])


class SpooledFile:
    """An upload in the spool: written to its end, then read, also by others who are given `sealed`."""

    def __init__(self, spool: "Spool", file: BinaryIO, sealed: SealedFile) -> None:
        self.sealed = sealed
        self.size = 0
        """Bytes written so far."""
        self._spool = spool
        self._file = file
        self._encryptor = sealed.cipher().encryptor()
        self._hash = hashlib.sha256()
        self._sealed = memoryview(bytearray(_PIECE + _BLOCK - 1))
        self._pending: list[bytes] = []
        self._pending_size = 0

    @property
    def sha256(self) -> str:
        """Of what was uploaded, in lower-case hexadecimal; right once it is finished."""
        return self._hash.hexdigest()

    async def write(self, data: bytes) -> None:
        """Add to the end. Raises `SpoolFull`."""
        self._spool.take(len(data))
        self.size += len(data)
        self._pending.append(data)
        self._pending_size += len(data) + _OBJECT
        if self._pending_size >= _CHUNK:
            await self._flush()

    async def finish(self) -> None:
        """Have all of it readable. Raises `SpoolFull`."""
        await self._flush()

    async def read(self, parts: Sequence[range | bytes]) -> bytes:
        """These bytes of the finished file, and what stands between them, joined."""
        return await asyncio.to_thread(self.sealed.join, parts)

    async def chunks(self, parts: Iterable[range | bytes]) -> AsyncIterator[bytes]:
        """The same in pieces of at most 1 MiB."""
        chunks = self._parts(parts)
        while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
            yield chunk

    def _parts(self, parts: Iterable[range | bytes]) -> Iterator[bytes]:
        for part in parts:
            if isinstance(part, bytes):
                yield part
            else:
                for at in range(part.start, part.stop, _CHUNK):
                    yield self.sealed.read(at, min(at + _CHUNK, part.stop))

    async def _flush(self) -> None:
        pending, self._pending, self._pending_size = self._pending, [], 0
        try:
            await asyncio.to_thread(self._append, pending)
        except OSError as error:
            raise SpoolFull("Uploads cannot be taken at the moment; try again.", 10) from error

    def _append(self, pending: list[bytes]) -> None:
        for data in pending:
            self._hash.update(data)
            view = memoryview(data)
            for at in range(0, len(data), _PIECE):
                length = self._encryptor.update_into(view[at : at + _PIECE], self._sealed)
                self._file.write(self._sealed[:length])
        self._file.flush()


class Spool:
    """The files of one process, in `directory` (the system's for temporary files, if None), together at most
    `max_bytes` long."""

    def __init__(self, directory: Path | None, max_bytes: int) -> None:
        self._directory = directory or Path(tempfile.gettempdir())
        self._free = max_bytes

    def clear(self) -> None:
        """Remove what processes that died have left."""
        for path in self._directory.glob(f"{_PREFIX}*"):
            with suppress(OSError), path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while the one who writes it lives
                path.unlink()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[SpooledFile]:
        """A new file, gone at the end whatever happens. Raises `SpoolFull`."""
        try:
            number, name = tempfile.mkstemp(prefix=_PREFIX, dir=self._directory)
        except OSError as error:
            raise SpoolFull("Uploads cannot be taken at the moment; try again.", 10) from error
        # Buffered, because closing a buffered file waits for a write that a cancelled task left in its thread.
        file = os.fdopen(number, "wb")
        fcntl.flock(file, fcntl.LOCK_SH)
        spooled = SpooledFile(self, file, SealedFile(Path(name), os.urandom(32)))
        try:
            yield spooled
        finally:
            self._free += spooled.size
            _discard(file, Path(name))

    def take(self, size: int) -> None:
        """Reserve so many bytes, until the file they are for is closed. Raises `SpoolFull`."""
        if size > self._free:
            raise SpoolFull("Too much is being uploaded at the moment; try again.", 2)
        self._free -= size


def _discard(file: BinaryIO, path: Path) -> None:
    with suppress(OSError):  # a full disk has been reported already
        file.close()
    path.unlink(missing_ok=True)
