"""A load generator on bare sockets: a client library would cost more than the servers it is to measure."""

import asyncio
import re
import time
from collections.abc import Sequence
from itertools import cycle
from typing import cast

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_SLOWEST_S = 15.0


class UnexpectedAnswer(Exception):
    """A response that was not 200 with the body's expected length; holds its beginning."""


class _Client(asyncio.Protocol):
    """One keep-alive connection (HTTP/1.1) that sends its next request as soon as one is answered."""

    def __init__(self, requests: Sequence[tuple[bytes, int | None]], until: float) -> None:
        self._requests = cycle(requests)
        self._until = until
        self._received = b""
        self.answered = 0
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self._ask()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head_end = self._received.find(b"\r\n\r\n")
        if head_end < 0:
            return
        length = _LENGTH.search(self._received, 0, head_end + 2)
        if (
            not self._received.startswith(b"HTTP/1.1 200 ")
            or length is None
            or self._body_length not in (None, int(length[1]))
        ):
            self._end(UnexpectedAnswer(self._received[:2000].decode(errors="replace")))
            return
        if len(self._received) < head_end + 4 + int(length[1]):
            return
        self._received = b""
        self.answered += 1
        if time.perf_counter() < self._until:
            self._ask()
        else:
            self._end(None)

    def connection_lost(self, error: Exception | None) -> None:
        self._end(error or ConnectionResetError("the server closed the connection"))

    def _ask(self) -> None:
        request, self._body_length = next(self._requests)
        self._transport.write(request)

    def _end(self, error: Exception | None) -> None:
        if not self.finished.done():
            if error is None:
                self.finished.set_result(None)
            else:
                self.finished.set_exception(error)
        self._transport.close()


def get_request(path: str, host: str, **headers: str) -> bytes:
    """The bytes of a GET request."""
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}", "Accept: application/json"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def post_request(
    path: str, host: str, body: bytes, content_type: str = "application/json", **headers: str
) -> bytes:
    """The bytes of a POST request."""
    head = [f"POST {path} HTTP/1.1", f"Host: {host}", "Accept: application/json"]
    head += [f"Content-Type: {content_type}", f"Content-Length: {len(body)}"]
    head += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*head, "", ""]).encode() + body


async def load(
    port: int,
    requests: Sequence[tuple[bytes, int | None]],
    *,
    seconds: float,
    connections: int | None = None,
) -> float:
    """Answers per second of the server on `port` to `requests` (the bytes to send, and the length of the body that
    must come back, None for any), dealt to so many connections, which go round theirs; None: one for each.

    Raises `UnexpectedAnswer`, `TimeoutError`, `OSError`.
    """
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    clients = []
    connections = connections or len(requests)
    for number in range(connections):
        client = _Client(requests[number % len(requests) :: connections], started + seconds)
        await loop.create_connection(lambda client=client: client, "127.0.0.1", port)  # type: ignore[misc]
        clients.append(client)
    async with asyncio.timeout(seconds + _SLOWEST_S):
        await asyncio.gather(*(client.finished for client in clients))
    return sum(client.answered for client in clients) / (time.perf_counter() - started)


async def send_all(port: int, requests: Sequence[bytes], *, connections: int) -> float:
    """Seconds until the server on `port` has answered each of `requests` once, all with 201, over so many keep-alive
    connections. Raises `UnexpectedAnswer`, `TimeoutError`, `OSError`."""
    waiting = iter(requests)

    async def send_some() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for request in waiting:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = _LENGTH.search(head)
            body = await reader.readexactly(int(length[1])) if length else b""
            if not head.startswith(b"HTTP/1.1 201 "):
                raise UnexpectedAnswer((head + body)[:2000].decode(errors="replace"))
        writer.close()

    started = time.perf_counter()
    async with asyncio.timeout(_SLOWEST_S * 4), asyncio.TaskGroup() as tasks:
        for _ in range(connections):
            tasks.create_task(send_some())
    return time.perf_counter() - started
