"""The bytes of a request's images: decoded or fetched, bounded, and checked against their hash."""

import asyncio
import base64
import binascii
import hashlib
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx

from core.ai_contract import MAX_IMAGE_BYTES, AiImage
from core.problems import Invalid, TooLarge


@dataclass(frozen=True)
class Photo:
    image_id: str
    data: bytes = field(repr=False)


async def load_photos(images: list[AiImage], hosts: frozenset[str]) -> list[Photo]:
    """The images in their order.

    A `url` is fetched only from `hosts`, so that a request cannot make this service knock on other doors.
    Raises `Invalid` for broken base64, an unreachable or foreign URL or a wrong hash, `TooLarge` for more than
    `MAX_IMAGE_BYTES`.
    """
    return [await _load(image, hosts) for image in images]


async def _load(image: AiImage, hosts: frozenset[str]) -> Photo:
    if image.url is not None:
        data = await _fetch(image.image_id, image.url, hosts)
    else:
        data = await asyncio.to_thread(_decode, image)
    if await asyncio.to_thread(lambda: hashlib.sha256(data).hexdigest()) != image.sha256:
        raise Invalid(f"The bytes of image {image.image_id} do not match its sha256.")
    return Photo(image.image_id, data)


def _decode(image: AiImage) -> bytes:
    try:
        data = base64.b64decode(image.base64 or "", validate=True)
    except (binascii.Error, ValueError) as error:
        raise Invalid(f"Image {image.image_id} is not base64.") from error
    if len(data) > MAX_IMAGE_BYTES:
        raise TooLarge(f"Image {image.image_id} is larger than {MAX_IMAGE_BYTES} bytes.")
    return data


async def _fetch(image_id: str, url: str, hosts: frozenset[str]) -> bytes:
    if urlsplit(url).hostname not in hosts:
        raise Invalid(f"Image {image_id} is on a host this service does not fetch from.")
    data = bytearray()
    try:
        async with (
            httpx.AsyncClient(timeout=10, trust_env=False) as client,
            client.stream("GET", url, headers={"Accept-Encoding": "identity"}) as response,
        ):
            response.raise_for_status()
            async for chunk in response.aiter_raw():
                data += chunk
                if len(data) > MAX_IMAGE_BYTES:
                    raise TooLarge(f"Image {image_id} is larger than {MAX_IMAGE_BYTES} bytes.")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Invalid(f"Image {image_id} could not be fetched.") from error
    return bytes(data)
