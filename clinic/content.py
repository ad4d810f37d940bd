"""Stored files over HTTP: streamed, with conditional and partial reading (RFC 9110, 13 and 14), or by a signed link."""

import re
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from core.access import Tenant
from core.blobs import (
    LINK_PATH,
    BlobNotFound,
    BlobReader,
    BlobStores,
    BlobStoreUnavailable,
    LinkRefused,
    TenantBlobs,
)
from core.parts import part
from core.problems import Problem, responses
from tenants.directory.cache import TenantRecord

router = APIRouter(tags=["files"])

_TAG = re.compile(r'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')
_RANGE = re.compile(r"bytes=(?:(\d{1,18})-(\d{1,18})?|-(\d{1,18}))", re.IGNORECASE)


class RangeNotSatisfiable(Problem):
    status, slug, title = 416, "range-not-satisfiable", "The file has no such bytes"


def streamed(*media_types: str) -> dict[int | str, dict[str, Any]]:
    """OpenAPI `responses` of a route that streams files of these types."""
    content: dict[str, Any] = {media_type: {} for media_type in media_types}
    return {
        200: {"content": content, "description": "The whole file."},
        206: {"content": content, "description": "The range that `Range` asked for."},
        304: {"description": "What `If-None-Match` names is still right."},
    }


LINKED: dict[int | str, dict[str, Any]] = {
    307: {"description": "Where the tenant prefers signed links: `Location` reads the file for a minute."}
}


class _BlobResponse(StreamingResponse):
    """Closes its file or connection also when the client goes away in the middle."""

    def __init__(self, reader: BlobReader, status: int, headers: dict[str, str]) -> None:
        super().__init__(reader.chunks, status, headers, media_type=reader.info.content_type)
        self._reader = reader

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._reader.aclose()


async def send_blob(
    request: Request, blobs: TenantBlobs, name: str, *, etag: str, filename: str, inline: bool
) -> Response:
    """Answer `request` with a blob in the way that its tenant prefers: streamed, or 307 to a link that reads it.

    `etag` is the quoted entity tag; `filename` is of our own making. Caches must be private and ask each time, so
    that a right that was taken away is gone; a link outlives it by its `LINK_S`. Raises what `_stream` raises, and
    `LinksUnsupported`.
    """
    disposition = f'{"inline" if inline else "attachment"}; filename="{filename}"'
    tenant: TenantRecord = request.scope["state"]["tenant"]
    if tenant.image_links == "signed":
        location = await blobs.link(name, disposition=disposition)
        return Response(status_code=307, headers={"Location": location})
    headers = {"ETag": etag, "Cache-Control": "private, no-cache", "Content-Disposition": disposition}
    return await _stream(request, blobs, name, headers)


@router.get(
    LINK_PATH,
    summary="Read a file by a signed link",
    operation_id="files_read",
    response_class=Response,
    responses=streamed("image/jpeg", "image/png", "application/pdf")
    | responses(LinkRefused, BlobNotFound, RangeNotSatisfiable, BlobStoreUnavailable),
)
async def read(
    token: str, request: Request, tenant: Tenant, stores: Annotated[BlobStores, part(BlobStores)]
) -> Response:
    """Public: whoever holds the link reads its one file until it expires, with `ETag` and `Range`. Only where files
    are kept in a directory; a storage account serves its own links."""
    blobs = stores.of(tenant)
    name, disposition = await blobs.follow(token)
    probe = await blobs.open(name, length=0)
    await probe.aclose()
    headers = {"ETag": probe.info.etag, "Cache-Control": "no-store", "Content-Disposition": disposition}
    return await _stream(request, blobs, name, headers)


async def _stream(request: Request, blobs: TenantBlobs, name: str, headers: dict[str, str]) -> Response:
    """A blob under `headers`, of which `ETag` decides: 304 where `If-None-Match` names it, 206 for one range of
    bytes (several are answered with the whole, as RFC 9110, 14.2 allows). Raises `RangeNotSatisfiable` and
    `BlobNotFound`."""
    etag = headers["ETag"]
    headers = headers | {"Accept-Ranges": "bytes"}
    seen = request.headers.get("If-None-Match")
    if seen is not None and (seen.strip() == "*" or etag in _TAG.findall(seen)):
        return Response(status_code=304, headers={name: headers[name] for name in ("ETag", "Cache-Control")})
    wanted = _RANGE.fullmatch(request.headers.get("Range", "").strip())
    if wanted is None or request.headers.get("If-Range", etag).strip() != etag:
        reader = await blobs.open(name)
        return _BlobResponse(reader, 200, headers | {"Content-Length": str(reader.length)})
    probe = await blobs.open(name, length=0)
    await probe.aclose()
    size = probe.info.size
    first, last = _resolve(wanted, size)
    reader = await blobs.open(name, offset=first, length=last - first + 1)
    headers |= {"Content-Range": f"bytes {first}-{last}/{size}", "Content-Length": str(reader.length)}
    return _BlobResponse(reader, 206, headers)


def _resolve(wanted: re.Match[str], size: int) -> tuple[int, int]:
    """First and last byte of a range of a file of `size` bytes."""
    first, last, suffix = wanted.groups()
    if suffix is not None:
        start, end = max(0, size - int(suffix)), size - 1
    else:
        start, end = int(first), min(int(last) if last is not None else size - 1, size - 1)
    if start > end:
        raise RangeNotSatisfiable(f"The file has {size} bytes.", headers={"Content-Range": f"bytes */{size}"})
    return start, end
