"""Where images and reports are kept: a container per tenant, behind one small port.

`BlobStore` is the port; `core.local_blobs` keeps blobs in a directory (one machine), `core.azure_blobs` in a storage
account; each cell has one. Rooms work with a `TenantBlobs`, which cannot name another tenant's container.
"""

import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from core.cells import HOME, find
from core.database import TenantScope
from core.problems import Conflict, Forbidden, NotFound, Problem, Unavailable

LINK_S = 60  # the longest life of a link, since it outlives the right that it was given for
LINK_PATH = "/files/{token}"  # where the gateway serves the links of a store that cannot do so itself

# Azure's rule for containers, within the 61 characters that leave room for what Azure appends.
_CONTAINER = re.compile(r"(?=.{3,61}\Z)[a-z][a-z0-9]*(-[a-z0-9]+)*")
# Each segment begins with a letter or digit and does not end with a dot: no "..", no hidden files.
_SEGMENT = r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9_-])?"
_NAME = re.compile(rf"(?=.{{1,200}}\Z){_SEGMENT}(/{_SEGMENT})*")


class BlobNotFound(NotFound):
    slug, title = "blob-not-found", "No such file"


class BlobExists(Conflict):
    """Another writer was first, or the name was used before."""

    slug, title = "blob-exists", "The file exists already"


class BlobStoreUnavailable(Unavailable):
    slug, title = "blob-store-unavailable", "File storage is temporarily unavailable"


class LinkRefused(Forbidden):
    slug, title = "link-refused", "The link does not hold"


class LinksUnsupported(Problem):
    """The store was opened with rights that cannot be passed on."""

    status, slug, title = 501, "links-unsupported", "File storage makes no links"


@dataclass(frozen=True)
class BlobInfo:
    """A stored blob. `size` is in bytes; `etag` is a quoted entity tag (RFC 9110, 8.8.3)."""

    name: str
    size: int
    etag: str
    content_type: str
    last_modified: datetime


@dataclass(frozen=True)
class BlobReader:
    """An opened blob: what it is, and the wanted part of it.

    `length` is how many bytes `chunks` gives in all; each chunk is at most 1 MiB and is read when asked for.
    `chunks` is read once; who stops early closes it with `aclose`.
    """

    info: BlobInfo
    length: int
    chunks: AsyncGenerator[bytes, None]

    async def read(self) -> bytes:
        """All of the wanted part, in memory."""
        return b"".join([chunk async for chunk in self.chunks])

    async def aclose(self) -> None:
        """Give back the file or connection."""
        await self.chunks.aclose()


class BlobStore(Protocol):
    """Containers of blobs. Every method raises `BlobStoreUnavailable` when the store is away, and
    `ValueError` for a name that could be misread as a path."""

    async def create_container(self, name: str) -> None:
        """Make a container; it may exist already."""

    async def delete_container(self, name: str) -> None:
        """Delete a container and all it holds; it may be gone already."""

    async def put(
        self,
        container: str,
        name: str,
        data: bytes | AsyncIterator[bytes],
        *,
        content_type: str,
        overwrite: bool = False,
    ) -> BlobInfo:
        """Store a blob: all of it or nothing becomes visible.

        Raises `BlobExists` when there is one (of several writers at once exactly one succeeds), with `overwrite`
        only if another writer replaced it meanwhile; `BlobNotFound` without the container; whatever `data` raises.
        """

    async def open(
        self, container: str, name: str, *, offset: int = 0, length: int | None = None
    ) -> BlobReader:
        """Read `length` bytes (all, if None) from `offset`; past the end there is nothing. Raises `BlobNotFound`."""

    async def delete(self, container: str, name: str) -> None:
        """Delete a blob; it may be gone already."""

    async def link(self, container: str, name: str, *, disposition: str, seconds: int = LINK_S) -> str:
        """An address where whoever holds it reads this blob, and nothing else, for `seconds` (1 to `LINK_S`).

        It is a path on the tenant's own host where the gateway has to serve it (see `follow`), else a URL. What
        is read there is of the blob's content type, has `disposition` as its Content-Disposition, and is not
        cached. Whether there is such a blob turns out there. Raises `LinksUnsupported`.
        """

    async def follow(self, container: str, token: str) -> tuple[str, str]:
        """Name and disposition of the blob that a link to `LINK_PATH` was made for. Raises `LinkRefused`."""

    def list(self, container: str, prefix: str = "") -> AsyncIterator[BlobInfo]:
        """The blobs whose names begin with `prefix`, by name. Raises `BlobNotFound` without the container."""

    async def ping(self) -> None:
        """Return if the store answers."""

    async def close(self) -> None:
        """Let go of connections."""


class TenantBlobs:
    """A store bound to one tenant's container."""

    def __init__(self, store: BlobStore, container: str) -> None:
        self._store = store
        self._container = check_container(container)

    async def put(
        self, name: str, data: bytes | AsyncIterator[bytes], *, content_type: str, overwrite: bool = False
    ) -> BlobInfo:
        """See `BlobStore.put`."""
        return await self._store.put(
            self._container, name, data, content_type=content_type, overwrite=overwrite
        )

    async def open(self, name: str, *, offset: int = 0, length: int | None = None) -> BlobReader:
        """See `BlobStore.open`."""
        return await self._store.open(self._container, name, offset=offset, length=length)

    async def delete(self, name: str) -> None:
        """See `BlobStore.delete`."""
        await self._store.delete(self._container, name)

    async def link(self, name: str, *, disposition: str, seconds: int = LINK_S) -> str:
        """See `BlobStore.link`."""
        return await self._store.link(self._container, name, disposition=disposition, seconds=seconds)

    async def follow(self, token: str) -> tuple[str, str]:
        """See `BlobStore.follow`."""
        return await self._store.follow(self._container, token)

    def list(self, prefix: str = "") -> AsyncIterator[BlobInfo]:
        """See `BlobStore.list`."""
        return self._store.list(self._container, prefix)


class BlobStores:
    """The store of each cell."""

    def __init__(self, stores: Mapping[str, BlobStore]) -> None:
        self._stores = stores

    @property
    def cells(self) -> list[str]:
        """The names of all cells."""
        return list(self._stores)

    def at(self, cell: str = HOME) -> BlobStore:
        """The store of one cell. Raises `CellUnknown`."""
        return find(self._stores, cell)

    def of(self, tenant: TenantScope) -> TenantBlobs:
        """A tenant's blobs, in the cell where it lives. Raises `CellUnknown`."""
        return TenantBlobs(self.at(tenant.cell), tenant.container)

    async def close(self) -> None:
        """Close all stores."""
        async with AsyncExitStack() as stack:  # one that fails must not keep the others open
            for store in self._stores.values():
                stack.push_async_callback(store.close)


def check_container(name: str) -> str:
    """`name`, if it can name a container; else `ValueError`."""
    if not _CONTAINER.fullmatch(name):
        raise ValueError(f"not a container name: {name!r}")
    return name


def check_name(name: str) -> str:
    """`name`, if it can name a blob: `/`-separated segments of letters, digits, `.`, `_` and `-`, 200 characters
    at most; else `ValueError`."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"not a blob name: {name!r}")
    return name


def check_range(offset: int, length: int | None) -> None:
    """`ValueError` for a range that begins or ends before the blob does."""
    if offset < 0 or (length is not None and length < 0):
        raise ValueError(f"not a range: {offset}, {length}")


def check_life(seconds: int) -> None:
    """`ValueError` for a link that would be dead at once, or live too long."""
    if not 1 <= seconds <= LINK_S:
        raise ValueError(f"not the life of a link: {seconds} s")


def open_blob_store(
    directory: Path | None = None,
    azure_connection_string: str | None = None,
    azure_account_url: str | None = None,
    *,
    azure_api_version: str | None = None,
) -> BlobStore:
    """The store that the settings name; exactly one of the first three must be given (else `ValueError`)."""
    chosen = [where for where in (directory, azure_connection_string, azure_account_url) if where]
    if len(chosen) != 1:
        raise ValueError(
            "Set exactly one of DERMADETECT_BLOB_DIRECTORY, DERMADETECT_AZURE_CONNECTION_STRING and "
            "DERMADETECT_AZURE_ACCOUNT_URL."
        )
    if directory:
        from core.local_blobs import LocalBlobStore

        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return LocalBlobStore(directory)
    from core.azure_blobs import AzureBlobStore  # a slow import that a local store should not cost

    return AzureBlobStore(azure_connection_string, azure_account_url, api_version=azure_api_version)
