"""Switches that make the service slow, broken or rude, so that its callers can prove they survive it."""

import asyncio
from typing import Annotated

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from starlette.types import ASGIApp, Receive, Scope, Send

from core.ai_contract import AiEndpoint

_CHUNK = b" " * 65_536


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Faults:
    """What goes wrong. `delay_s` comes first; of the others the first that is set, in this order, answers."""

    delay_s: Annotated[float, Field(ge=0, le=600)] = 0.0
    cut_off: bool = False
    """Close the connection in the middle of the answer."""
    status: Annotated[int, Field(ge=400, le=599)] | None = None
    """Answer with this status and a text no client should ever see."""
    wrong_content_type: bool = False
    """Answer 200 with an HTML page, as a proxy in between might."""
    broken_schema: bool = False
    """Answer 200 with JSON of the wrong shape."""
    huge_bytes: Annotated[int, Field(ge=0, le=256 * 1024**2)] = 0
    """Answer 200 with that many bytes."""
    endpoint: AiEndpoint | None = None
    """Only on this endpoint; on all five if absent."""
    times: Annotated[int, Field(ge=1)] | None = None
    """Only for so many requests, then all is well again; for ever if absent."""


class FaultSwitch:
    """The faults in force, and how many more requests they touch."""

    def __init__(self, faults: Faults) -> None:
        self.set(faults)

    def set(self, faults: Faults) -> None:
        self.faults = faults
        self._left = faults.times

    def take(self, path: str) -> Faults | None:
        """The faults this request meets; counts it."""
        endpoint = self.faults.endpoint
        if not path.startswith("/v1/") or (endpoint and path != f"/v1/{endpoint}") or self._left == 0:
            return None
        if self._left is not None:
            self._left -= 1
        return self.faults


class FaultMiddleware:
    def __init__(self, app: ASGIApp, switch: FaultSwitch) -> None:
        self.app = app
        self.switch = switch

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        faults = self.switch.take(scope["path"]) if scope["type"] == "http" else None
        if faults is None:
            await self.app(scope, receive, send)
            return
        await asyncio.sleep(faults.delay_s)
        if faults.cut_off:
            # A server closes the connection of an application that promised more than it sent.
            await _start(send, 200, b"application/json", 1_000)
            await send({"type": "http.response.body", "body": b'{"request_id":', "more_body": True})
        elif faults.status is not None:
            await _answer(
                receive, send, faults.status, b"text/plain", b"reference AI: a fault was switched on"
            )
        elif faults.wrong_content_type:
            await _answer(receive, send, 200, b"text/html", b"<!doctype html><title>Welcome</title>")
        elif faults.broken_schema:
            await _answer(receive, send, 200, b"application/json", b'{"request_id": 7, "level": "maybe"}')
        elif faults.huge_bytes:
            await _start(send, 200, b"application/json", faults.huge_bytes)
            for start in range(0, faults.huge_bytes, len(_CHUNK)):
                chunk = _CHUNK[: faults.huge_bytes - start]
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        else:
            await self.app(scope, receive, send)


async def _start(send: Send, status: int, content_type: bytes, length: int) -> None:
    headers = [(b"content-type", content_type), (b"content-length", str(length).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def _answer(receive: Receive, send: Send, status: int, content_type: bytes, body: bytes) -> None:
    while (await receive()).get("more_body"):  # the caller sends all of it before it listens
        pass
    await _start(send, status, content_type, len(body))
    await send({"type": "http.response.body", "body": body})
