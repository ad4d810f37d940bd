"""A photograph as it arrives: base64 in JSON, as the body itself, or as a part of a form.

FastAPI would parse the JSON on the event loop, and would take a form of any length; here nothing is held that the
limit does not allow, and what is long is worked on in a thread.
"""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, cast

from fastapi import Request, UploadFile
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from clinic.images.errors import ImageTooLarge, ImageTypeUnsupported
from clinic.images.schemas import ImageFields, ImageUpload, View
from clinic.images.service import SentImage, decode_base64

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
    request: Request, *, view: View | None, body_site: str | None, max_bytes: int
) -> SentImage:
    """The photograph in the request's body; `view` and `body_site` are those of the query, for a body that has no
    room for them.

    Raises `ImageTooLarge` as soon as more has arrived than allowed, `ImageTypeUnsupported`, `ImageNotBase64`,
    `RequestValidationError`, and `HTTPException` (400) for a form that cannot be read or a client that went away.
    """
    declared = request.headers.get("Content-Type", "")
    media_type = declared.partition(";")[0].strip().lower()
    try:
        if media_type == "application/json":
            return await asyncio.to_thread(_from_json, await request.body(), max_bytes)
        if media_type == "multipart/form-data":
            return await _from_form(request, max_bytes)
        if media_type.startswith("image/"):
            if view is None:
                raise _missing("query", "view")
            chunks = [chunk async for chunk in _at_most(request, max_bytes, max_bytes)]
            return SentImage(b"".join(chunks), declared, view, body_site)
    except ClientDisconnect as error:
        raise HTTPException(400, "The body ended early.") from error
    raise ImageTypeUnsupported(
        "Send the photograph as image/jpeg or image/png, in multipart/form-data, or as base64 in application/json."
    )


async def _at_most(request: Request, limit: int, max_bytes: int) -> AsyncGenerator[bytes, None]:
    """The body in pieces, as long as there are no more than `limit` bytes."""
    too_large = ImageTooLarge(f"At most {max_bytes:,} bytes are accepted.")
    announced = request.headers.get("Content-Length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise too_large
    taken = 0
    async for chunk in request.stream():
        taken += len(chunk)
        if taken > limit:
            raise too_large
        yield chunk


def _from_json(body: bytes, max_bytes: int) -> SentImage:
    try:
        upload = ImageUpload.model_validate_json(body)
    except ValidationError as error:
        raise _refusal(error, "body") from error
    return SentImage(decode_base64(upload.data, max_bytes), upload.media_type, upload.view, upload.body_site)


async def _from_form(request: Request, max_bytes: int) -> SentImage:
    stream = _at_most(request, max_bytes + _FORM_OVERHEAD, max_bytes)
    parser = MultiPartParser(request.headers, stream, max_files=1, max_fields=8, max_part_size=_FORM_OVERHEAD)
    # Bounded as it is, it stays in memory: what still says where it was taken must not be written to a disk.
    parser.spool_max_size = max_bytes + _FORM_OVERHEAD
    try:
        fields = dict((await parser.parse()).multi_items())
        file = fields.pop("file", None)
        if file is None or isinstance(file, str):
            raise _missing("body", "file")
        # A part's own type stays undeclared where the client did not say: then the content alone decides.
        upload = cast(UploadFile, file)
        data = await upload.read(max_bytes + 1)
        if len(data) > max_bytes:
            raise ImageTooLarge(f"At most {max_bytes:,} bytes are accepted.")
        try:
            sent = ImageFields.model_validate(fields)
        except ValidationError as error:
            raise _refusal(error, "body") from error
        return SentImage(data, upload.content_type or None, sent.view, sent.body_site)
    except MultiPartException as error:
        raise HTTPException(400, error.message) from error
    finally:
        # A form that breaks off within its file does not name it, so that closing the form would leave it open.
        for opened in parser._files_to_close_on_error:
            opened.close()


def _refusal(error: ValidationError, where: str) -> RequestValidationError:
    """As FastAPI tells it, without what was sent: it may be megabytes."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    return RequestValidationError([each | {"loc": (where, *each["loc"])} for each in found])


def _missing(*location: str) -> RequestValidationError:
    return RequestValidationError([{"type": "missing", "loc": location, "msg": "Field required"}])
