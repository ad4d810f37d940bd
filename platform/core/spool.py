"""Uploads on their way, in encrypted files, so that memory stays bounded however long and however many they are.

What was uploaded may show a face and say where it was taken, so it never lies readable on a disk: each file has a
key of its own, held in memory alone. What a crash leaves behind nobody can read, and the next start removes it.
"""

import asyncio
import fcntl
import hashlib
import os
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from core.problems import Unavailable

_PREFIX = "dermadetect-upload-"
_CHUNK = 1024 * 1024  # bytes encrypted and written, or read, at a time: each time is a trip to a thread
_BLOCK = 16  # bytes: AES's


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
        block, inside = divmod(start, _BLOCK)
        with self.path.open("rb", buffering=0) as file:
            file.seek(start - inside)
            sealed = file.read(-1 if stop is None else stop - start + inside)
        return self.cipher(block).decryptor().update(sealed)[inside:]


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
        self._pending = bytearray()

    @property
    def sha256(self) -> str:
        """Of what was uploaded, in lower-case hexadecimal; right once it is finished."""
        return self._hash.hexdigest()

    async def write(self, data: bytes) -> None:
        """Add to the end. Raises `SpoolFull`."""
        self._spool.take(len(data))
        self.size += len(data)
        self._pending += data
        if len(self._pending) >= _CHUNK:
            await self._flush()

    async def finish(self) -> None:
        """Have all of it readable. Raises `SpoolFull`."""
        await self._flush()

    async def read(self, parts: Iterable[range | bytes]) -> bytes:
        """These bytes of the finished file, and what stands between them, joined."""
        return await asyncio.to_thread(lambda: b"".join(self._parts(parts)))

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
        pending, self._pending = self._pending, bytearray()
        try:
            await asyncio.to_thread(self._append, pending)
        except OSError as error:
            raise SpoolFull("Uploads cannot be taken at the moment; try again.", 10) from error

    def _append(self, data: bytearray) -> None:
        self._hash.update(data)
        self._file.write(self._encryptor.update(data))
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
