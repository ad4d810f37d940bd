"""A server of a benchmark in a process of its own: `python -m benchmarks.serve KIND SOCKET`.

SOCKET is the number of an inherited listening socket. All are served by the same uvicorn with the same settings;
everything else comes from the environment. The server ends when its standard input does, which the kernel sees to
however the benchmark went.
"""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import uvicorn
from fastapi import FastAPI

_STOP_S = 10.0


class Server(NamedTuple):
    """Where a server listens, and its process."""

    port: int
    pid: int


@contextmanager
def serving(which: str, environment: dict[str, str], log: Path) -> Iterator[Server]:
    """A server in a process of its own. It is stopped at the end, whatever happened."""
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listening, log.open("wb") as written:
        port: int = listening.getsockname()[1]
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.serve", which, str(listening.fileno())],
            env=os.environ | environment,
            pass_fds=[listening.fileno()],
            stdin=subprocess.PIPE,
            stdout=written,
            stderr=written,
        )
    try:
        yield Server(port, process.pid)
    except Exception as error:
        error.add_note(f"{which} said: {log.read_text(errors='replace')[-2000:]}")
        raise
    finally:
        try:
            process.communicate(timeout=_STOP_S)  # ends its input, and so the server
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _gateway() -> FastAPI:
    from cli.serve import make_app

    return make_app()


def _untenanted() -> FastAPI:
    from benchmarks.untenanted import create_untenanted
    from core.settings import Settings
    from core.telemetry import configure_logging

    settings = Settings()
    configure_logging(settings.log_level)
    return create_untenanted(
        settings, role=os.environ["BARE_ROLE"], search_path=os.environ["BARE_SEARCH_PATH"]
    )


def _ai() -> FastAPI:
    from reference.ai.app import create_app

    return create_app()


def _bare_ai() -> FastAPI:
    from benchmarks.bare_ai import create_app

    return create_app(
        os.environ["BARE_DATABASE_URL"],
        os.environ["DERMADETECT_AI_URL"],
        pool_size=int(os.environ["DERMADETECT_DATABASE_POOL_SIZE"]),
        role=os.environ["BARE_ROLE"],
        search_path=os.environ["BARE_SEARCH_PATH"],
    )


def _bare() -> FastAPI:
    from benchmarks.bare import create_app

    return create_app(
        os.environ["BARE_DATABASE_URL"],
        pool_size=int(os.environ["DERMADETECT_DATABASE_POOL_SIZE"]),
        role=os.environ["BARE_ROLE"],
        search_path=os.environ["BARE_SEARCH_PATH"],
    )


def _bare_upload() -> FastAPI:
    from benchmarks.bare_upload import create_app

    return create_app(Path(os.environ["BARE_DIRECTORY"]))


def main(which: str, number: str) -> None:
    app = {
        "gateway": _gateway,
        "untenanted": _untenanted,
        "bare": _bare,
        "bare-ai": _bare_ai,
        "bare-upload": _bare_upload,
        "ai": _ai,
    }[which]()
    # uvicorn's own access log would come on top of the gateway's; the bare application goes without any.
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, ws="none"))

    def end_with_input() -> None:
        sys.stdin.read()
        server.should_exit = True

    threading.Thread(target=end_with_input, daemon=True).start()
    server.run([socket.socket(fileno=int(number))])


if __name__ == "__main__":
    main(*sys.argv[1:])
