"""Several HTTP servers and a worker in one event loop, with one way to stop them all."""

import asyncio
import contextlib
import errno
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import uvicorn

from cli.run import fail

if TYPE_CHECKING:
    from core.parts import Parts
    from core.settings import Settings

DRAIN_S = 20  # how long requests and jobs under way may take once the command is asked to stop


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # signals are the command's business, which stops its servers in order


@contextmanager
def until_stopped() -> Iterator[asyncio.Event]:
    """An event that SIGTERM and SIGINT set. The second signal of a kind ends the process as usual."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    numbers = (signal.SIGINT, signal.SIGTERM)

    def heard(number: int) -> None:
        stop.set()
        loop.remove_signal_handler(number)

    for number in numbers:
        loop.add_signal_handler(number, heard, number)
    try:
        yield stop
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def listen(host: str, port: int, *, else_next: int = 0) -> socket.socket:
    """A listening socket. A port in use ends the command, or (`else_next`) is passed over for one of the next so
    many."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for candidate in range(port, port + else_next + 1):
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, candidate))
            listener.listen(2048)
            return listener
        except OSError as error:
            listener.close()
            if error.errno != errno.EADDRINUSE:
                fail("Cannot listen", f"{host}:{candidate}: {error.strerror}")
    return fail("The port is in use", f"{host}:{port} belongs to another program; choose another with --port")


@asynccontextmanager
async def serving(app: Any, listener: socket.socket, **options: Any) -> AsyncIterator[None]:
    """Serve an ASGI application while the block runs; then finish the requests under way."""
    config = uvicorn.Config(
        app,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=DRAIN_S,
        **({"proxy_headers": False} | options),
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        while not server.started and not task.done():  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.005)
        yield
    finally:
        server.should_exit = True
        await task


@asynccontextmanager
async def gateway(parts: "Parts", listener: socket.socket, *, with_worker: bool) -> AsyncIterator[None]:
    """The gateway over `parts`, which are closed at the end; `with_worker` does the background work beside it.

    The lifespan is entered here and not by uvicorn, which would turn its errors into log lines.
    """
    from core.settings import Settings
    from gateway.app import create_app

    app = create_app(parts)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(app.router.lifespan_context(app))
        await stack.enter_async_context(serving(app, listener, **proxies(parts[Settings])))
        if with_worker:
            await stack.enter_async_context(_working(parts))
        yield


def proxies(settings: "Settings") -> dict[str, Any]:
    """uvicorn's options for the proxies whose X-Forwarded headers are believed; none by default."""
    trusted = settings.trusted_proxies.strip()
    return {"proxy_headers": True, "forwarded_allow_ips": trusted} if trusted else {"proxy_headers": False}


@asynccontextmanager
async def _working(parts: "Parts") -> AsyncIterator[None]:
    from gateway.assembly import background_worker

    stop = asyncio.Event()
    task = asyncio.create_task(background_worker(parts).run(stop), name="worker")
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait([task], timeout=DRAIN_S)
        task.cancel()  # what it was doing rings again when its lease ends
        with contextlib.suppress(asyncio.CancelledError):
            await task
