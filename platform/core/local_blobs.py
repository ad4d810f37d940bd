"""Blobs in a directory: the embedded default, for one machine."""

import asyncio
import base64
import json
import os
import shutil
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, ParamSpec, TypeVar
from uuid import uuid4

from core.blobs import (
    LINK_PATH,
    LINK_S,
    BlobExists,
    BlobInfo,
    BlobNotFound,
    BlobReader,
    BlobStoreUnavailable,
    LinkRefused,
    check_container,
    check_life,
    check_name,
    check_range,
)
from core.crypto import CannotOpen, new_key, seal, unseal

P = ParamSpec("P")
T = TypeVar("T")

_CHUNK = 256 * 1024  # bytes read at a time
_HEADER = 512  # bytes: longer than a file's first line
_ABANDONED_S = 24 * 3600  # an unfinished upload of this age is not running any more


class LocalBlobStore:
    """Blobs as files: `ROOT/CONTAINER/NAME`, with `~` for `/` in the name.

    A file is one line of JSON (content type and entity tag) and then the content, so that both appear at once.
    It is written under a name that no blob can have, synced, and linked into place; a crash leaves at most such
    an unfinished file, which `list` passes over and, when it is a day old, removes.

    A link is sealed with a key that lies in the root for all processes that share it, and bound to the container.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    async def create_container(self, name: str) -> None:
        path = self._directory(name)
        await self._io(lambda: path.mkdir(mode=0o700, exist_ok=True))

    async def delete_container(self, name: str) -> None:
        await self._io(_remove_tree, self._directory(name))

    async def put(
        self,
        container: str,
        name: str,
        data: bytes | AsyncIterator[bytes],
        *,
        content_type: str,
        overwrite: bool = False,
    ) -> BlobInfo:
        path = self._path(container, name)
        unfinished = path.with_name(f".{uuid4().hex}")
        etag = f'"{uuid4().hex}"'
        header = json.dumps({"content_type": content_type, "etag": etag}).encode() + b"\n"
        if isinstance(data, bytes):
            return await self._io(_store, unfinished, path, header, data, name, overwrite)
        file = await self._io(_begin, unfinished, header)
        try:
            async for piece in data:
                await self._io(file.write, piece)
            return await self._io(_publish, file, unfinished, path, name, overwrite)
        finally:
            _discard(file, unfinished)

    async def open(
        self, container: str, name: str, *, offset: int = 0, length: int | None = None
    ) -> BlobReader:
        check_range(offset, length)
        info, file = await self._io(_describe, self._path(container, name), name, True)
        assert file is not None
        rest = max(info.size - offset, 0)
        wanted = rest if length is None else min(length, rest)
        chunks = self._chunks(file, offset, wanted)
        await anext(chunks)
        return BlobReader(info, wanted, chunks)

    async def delete(self, container: str, name: str) -> None:
        path = self._path(container, name)
        await self._io(lambda: path.unlink(missing_ok=True))

    async def link(self, container: str, name: str, *, disposition: str, seconds: int = LINK_S) -> str:
        check_life(seconds)
        grant = json.dumps([check_name(name), disposition, time.time() + seconds]).encode()
        sealed = seal(await self._io(_link_key, self._root), grant, check_container(container))
        return LINK_PATH.format(token=base64.urlsafe_b64encode(sealed).decode())

    async def follow(self, container: str, token: str) -> tuple[str, str]:
        key = await self._io(_link_key, self._root)
        try:
            sealed = base64.b64decode(token, altchars=b"-_", validate=True)
            name, disposition, expires = json.loads(unseal(key, sealed, check_container(container)))
        except (CannotOpen, ValueError) as error:
            raise LinkRefused(
                "The link was changed, or made for another address. Ask for a new one."
            ) from error
        if time.time() >= expires:
            raise LinkRefused("The link has expired. Ask for a new one.")
        return name, disposition

    async def list(self, container: str, prefix: str = "") -> AsyncIterator[BlobInfo]:
        directory = self._directory(container)
        for name in await self._io(_names, directory, prefix):
            try:
                info, _ = await self._io(_describe, self._path(container, name), name)
            except BlobNotFound:  # deleted since
                continue
            yield info

    async def ping(self) -> None:
        await self._io(self._try_writing)

    async def close(self) -> None:
        pass

    def _directory(self, container: str) -> Path:
        return self._root / check_container(container)

    def _path(self, container: str, name: str) -> Path:
        return self._directory(container) / check_name(name).replace("/", "~")

    def _try_writing(self) -> None:
        probe = self._root / f".{uuid4().hex}"
        probe.touch(exist_ok=False)
        probe.unlink()

    async def _io(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a file operation in a thread, and say what went wrong in the port's words."""
        try:
            return await asyncio.to_thread(function, *args, **kwargs)
        except FileExistsError as error:
            raise BlobExists("This file was stored before.") from error
        except OSError as error:
            if isinstance(error, FileNotFoundError) and self._root.is_dir():
                raise BlobNotFound("There is no such file.") from error
            raise BlobStoreUnavailable("The file store does not answer.") from error

    async def _chunks(self, file: BinaryIO, offset: int, wanted: int) -> AsyncGenerator[bytes, None]:
        try:
            yield b""  # consumed by `open`: only a generator that has begun closes its file when it is closed
            await self._io(file.seek, offset, os.SEEK_CUR)
            while wanted and (chunk := await self._io(file.read, min(_CHUNK, wanted))):
                wanted -= len(chunk)
                yield chunk
        finally:
            file.close()


def _store(unfinished: Path, path: Path, header: bytes, data: bytes, name: str, overwrite: bool) -> BlobInfo:
    """All steps in one: each by itself would be a trip to a thread, which costs as much as a small blob."""
    file = _begin(unfinished, header)
    try:
        file.write(data)
        return _publish(file, unfinished, path, name, overwrite)
    finally:
        _discard(file, unfinished)


def _discard(file: BinaryIO, unfinished: Path) -> None:
    with suppress(OSError):  # a full or vanished disk has been reported already
        file.close()
    with suppress(OSError):
        unfinished.unlink(missing_ok=True)


def _begin(unfinished: Path, header: bytes) -> BinaryIO:
    # Buffered, because closing a buffered file waits for a write that a cancelled task left in its thread.
    file = unfinished.open("xb")
    file.write(header)
    return file


def _publish(file: BinaryIO, unfinished: Path, path: Path, name: str, overwrite: bool) -> BlobInfo:
    file.flush()
    os.fsync(file.fileno())
    if overwrite:
        unfinished.replace(path)
    else:
        path.hardlink_to(unfinished)  # unlike a rename, this fails when the name is taken
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return _describe(path, name)[0]


def _describe(path: Path, name: str, keep_open: bool = False) -> tuple[BlobInfo, BinaryIO | None]:
    """What is stored at `path`, and with `keep_open` the file, at the begin of its content."""
    file = path.open("rb", _CHUNK if keep_open else _HEADER)
    try:
        header = json.loads(file.readline())
        status = os.fstat(file.fileno())
        info = BlobInfo(
            name=name,
            size=status.st_size - file.tell(),
            etag=header["etag"],
            content_type=header["content_type"],
            last_modified=datetime.fromtimestamp(status.st_mtime, UTC),
        )
    except BaseException:
        file.close()
        raise
    if keep_open:
        return info, file
    file.close()
    return info, None


def _link_key(root: Path) -> bytes:
    """The key of the links of this root, made when it is first wanted."""
    path = root / ".link-key"
    if not path.exists():
        unfinished = root / f".{uuid4().hex}"
        unfinished.touch(mode=0o600, exist_ok=False)
        try:
            unfinished.write_bytes(new_key())
            with suppress(FileExistsError):  # another process was faster, and its key is everyone's
                path.hardlink_to(unfinished)
        finally:
            unfinished.unlink()
    return path.read_bytes()


def _names(directory: Path, prefix: str) -> list[str]:
    names = []
    with os.scandir(directory) as entries:
        for entry in entries:
            name = entry.name.replace("~", "/")
            if name.startswith("."):
                _remove_abandoned(Path(entry.path))
            elif name.startswith(prefix):
                names.append(name)
    return sorted(names)


def _remove_abandoned(unfinished: Path) -> None:
    with suppress(FileNotFoundError):  # its writer has just finished
        if time.time() - unfinished.stat().st_mtime > _ABANDONED_S:
            unfinished.unlink()


def _remove_tree(directory: Path) -> None:
    """Delete a container at one stroke: out of sight first, then file by file."""
    doomed = directory.with_name(f".{uuid4().hex}")
    try:
        directory.rename(doomed)
    except FileNotFoundError:
        if directory.parent.is_dir():
            return
        raise
    shutil.rmtree(doomed)
