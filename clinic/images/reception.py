"""A photograph as it arrives: base64 in JSON, as the body itself, or as a part of a form.

FastAPI would hold all of a JSON body, and write a form's file to a disk as it came; here every photograph goes into
the spool piece by piece, and no more of it than the limit allows.
"""

from collections.abc import AsyncGenerator
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.datastructures import Headers, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from clinic.images.errors import ImageTooLarge, ImageTypeUnsupported
from clinic.images.json_body import PhotographInJson
from clinic.images.schemas import ImageFields, ImageUpload, View
from clinic.images.service import SentImage
from core.spool import SpooledFile

# What a form may have beside the file: boundaries, part headers and two short fields.
_FORM_OVERHEAD = 65_536

_PICTURE = {"type": "string", "format": "binary"}
REQUEST_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {"schema": ImageUpload.model_json_schema()},
        "image/jpeg": {"schema": _PICTURE},
        "image/png": {"schema": _PICTURE},
        "multipart/form-data": {
            "schema": ImageFields.model_json_schema()
            | {
                "description": "The file is declared by its part's `Content-Type`.",
                "properties": {"file": _PICTURE} | ImageFields.model_json_schema()["properties"],
                "required": ["file", "view"],
            },
            "encoding": {"file": {"contentType": "image/jpeg, image/png"}},
        },
    },
}
"""OpenAPI's request body of a route that calls `receive_image`."""


async def receive_image(
    request: Request, file: SpooledFile, *, view: View | None, body_site: str | None, max_bytes: int
) -> SentImage:
    """Write the photograph in the request's body to `file` and finish it; returns what was said of it. `view` and
    `body_site` are those of the query, for a body that has no room for them.

    Raises `ImageTooLarge` as soon as more has arrived than allowed, `ImageTypeUnsupported`, `ImageNotBase64`,
    `TooLarge`, `SpoolFull`, `RequestValidationError`, and `HTTPException` (400) for a form that cannot be read or
    a client that went away.
    """
    declared = request.headers.get("Content-Type", "")
    media_type = declared.partition(";")[0].strip().lower()
    try:
        if media_type == "application/json":
            sent = await _from_json(request, file, max_bytes)
        elif media_type == "multipart/form-data":
            sent = await _from_form(request, file, max_bytes)
        elif media_type.startswith("image/"):
            if view is None:
                raise _missing("query", "view")
            async for chunk in _at_most(request, max_bytes, max_bytes):
                await file.write(chunk)
            sent = SentImage(declared, view, body_site)
        else:
            raise ImageTypeUnsupported(
                "Send the photograph as image/jpeg or image/png, in multipart/form-data, or as base64 in "
                "application/json."
            )
    except ClientDisconnect as error:
        raise HTTPException(400, "The body ended early.") from error
    await file.finish()
    return sent


async def _write(file: SpooledFile, data: bytes, max_bytes: int) -> None:
    if file.size + len(data) > max_bytes:
        raise _too_large(max_bytes)
    await file.write(data)


async def _at_most(request: Request, limit: int, max_bytes: int) -> AsyncGenerator[bytes, None]:
    """The body in pieces, as long as there are no more than `limit` bytes."""
    announced = request.headers.get("Content-Length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise _too_large(max_bytes)
    taken = 0
    async for chunk in request.stream():
        taken += len(chunk)
        if taken > limit:
            raise _too_large(max_bytes)
        yield chunk


async def _from_json(request: Request, file: SpooledFile, max_bytes: int) -> SentImage:
    body = PhotographInJson()
    async for chunk in request.stream():
        await _write(file, body.feed(chunk), max_bytes)
    try:
        upload = ImageUpload.model_validate_json(body.kept)
    except ValidationError as error:
        raise _refusal(error, "body") from error
    body.decoder.finish()
    return SentImage(upload.media_type, upload.view, upload.body_site)


class _SpooledPart(UploadFile):
    """A form's file that goes straight into the spool."""

    def __init__(self, part: UploadFile, file: SpooledFile, max_bytes: int) -> None:
        super().__init__(part.file, filename=part.filename, headers=part.headers)
        self._spooled = file
        self._max_bytes = max_bytes

    async def write(self, data: bytes) -> None:
        await _write(self._spooled, data, self._max_bytes)


class _FormParser(MultiPartParser):
    """Takes a form with one file; Starlette's own would write it to a disk as it came."""

    def __init__(
        self, headers: Headers, stream: AsyncGenerator[bytes, None], file: SpooledFile, max_bytes: int
    ) -> None:
        super().__init__(headers, stream, max_files=1, max_fields=8, max_part_size=_FORM_OVERHEAD)
        self._spooled = file
        self._max_bytes = max_bytes

    def on_headers_finished(self) -> None:
        super().on_headers_finished()
        if (part := self._current_part.file) is not None:
            self._current_part.file = _SpooledPart(part, self._spooled, self._max_bytes)


async def _from_form(request: Request, file: SpooledFile, max_bytes: int) -> SentImage:
    stream = _at_most(request, max_bytes + _FORM_OVERHEAD, max_bytes)
    parser = _FormParser(request.headers, stream, file, max_bytes)
    try:
        fields = dict((await parser.parse()).multi_items())
    except MultiPartException as error:
        raise HTTPException(400, error.message) from error
    finally:
        # A form that breaks off within its file does not name it, so that closing the form would leave it open.
        for opened in parser._files_to_close_on_error:
            opened.close()
    part = fields.pop("file", None)
    if not isinstance(part, UploadFile):
        raise _missing("body", "file")
    try:
        sent = ImageFields.model_validate(fields)
    except ValidationError as error:
        raise _refusal(error, "body") from error
    # A part's own type stays undeclared where the client did not say: then the content alone decides.
    return SentImage(part.content_type or None, sent.view, sent.body_site)


def _refusal(error: ValidationError, where: str) -> RequestValidationError:
    """As FastAPI tells it, without what was sent: it may be megabytes."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    return RequestValidationError([each | {"loc": (where, *each["loc"])} for each in found])


def _missing(*location: str) -> RequestValidationError:
    return RequestValidationError([{"type": "missing", "loc": location, "msg": "Field required"}])


def _too_large(max_bytes: int) -> ImageTooLarge:
    return ImageTooLarge(f"At most {max_bytes:,} bytes are accepted. Export it smaller.")
