"""Stored files over HTTP: conditional and partial reading (RFC 9110, 13 and 14), streamed."""

import re

from fastapi import Request, Response
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from core.blobs import BlobReader, TenantBlobs
from core.problems import Problem

_TAG = re.compile(r'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')
_RANGE = re.compile(r"bytes=(?:(\d{1,18})-(\d{1,18})?|-(\d{1,18}))", re.IGNORECASE)


class RangeNotSatisfiable(Problem):
    status, slug, title = 416, "range-not-satisfiable", "The file has no such bytes"


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
    """Answer `request` with a blob whose quoted entity tag is `etag`; `filename` is of our own making.

    304 where `If-None-Match` names the tag, 206 for one range of bytes (several are answered with the whole, as
    RFC 9110, 14.2 allows). Caches must be private and ask each time, so that a right that was taken away is
    gone. Raises `RangeNotSatisfiable` and `core.blobs.BlobNotFound`.
    """
    headers = {
        "ETag": etag,
        "Cache-Control": "private, no-cache",
        "Accept-Ranges": "bytes",
        "Content-Disposition": f'{"inline" if inline else "attachment"}; filename="{filename}"',
    }
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
