"""The baselines of the upload benchmark: FastAPI that stores a photograph in a file, unsynced, with nothing around
it. Where it is asked to, it also has Pillow decode the photograph and make a thumbnail of it, in a thread."""

import base64
import io
from pathlib import Path
from typing import Any
from uuid import uuid4

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from PIL import Image
from pydantic import BaseModel


class Upload(BaseModel):
    data: str
    media_type: str
    view: str


def create_app(directory: Path) -> FastAPI:
    """An application with `POST /base64` and `POST /raw`, both with `?thumbnail=true`."""
    app = FastAPI()

    @app.post("/base64", status_code=201)
    async def from_base64(upload: Upload, thumbnail: bool = False) -> Any:
        return await run_in_threadpool(_store, directory, base64.b64decode(upload.data), thumbnail)

    @app.post("/raw", status_code=201)
    async def from_body(request: Request, thumbnail: bool = False) -> Any:
        return await run_in_threadpool(_store, directory, await request.body(), thumbnail)

    return app


def _store(directory: Path, data: bytes, thumbnail: bool) -> dict[str, Any]:
    path = directory / uuid4().hex
    path.write_bytes(data)
    if thumbnail:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            image.thumbnail((256, 256))
            image.save(path.with_suffix(".thumbnail"), "JPEG")
    return {"id": path.name, "size": len(data)}
