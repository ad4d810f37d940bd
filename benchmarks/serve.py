"""A server of the request benchmark in a process of its own: `python -m benchmarks.serve gateway|bare SOCKET`.

SOCKET is the number of an inherited listening socket. Both are served by the same uvicorn with the same settings;
everything else comes from the environment. The server ends when its standard input does, which the kernel sees to
however the benchmark went.
"""

import os
import socket
import sys
import threading

import uvicorn
from fastapi import FastAPI


def _gateway() -> FastAPI:
    from cli.serve import make_app

    return make_app()


def _bare() -> FastAPI:
    from benchmarks.bare import create_app

    return create_app(
        os.environ["BARE_DATABASE_URL"],
        pool_size=int(os.environ["DERMADETECT_DATABASE_POOL_SIZE"]),
        role=os.environ["BARE_ROLE"],
        search_path=os.environ["BARE_SEARCH_PATH"],
    )


def main(which: str, number: str) -> None:
    app = {"gateway": _gateway, "bare": _bare}[which]()
    # uvicorn's own access log would come on top of the gateway's; the bare application goes without any.
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, ws="none"))

    def end_with_input() -> None:
        sys.stdin.read()
        server.should_exit = True

    threading.Thread(target=end_with_input, daemon=True).start()
    server.run([socket.socket(fileno=int(number))])


if __name__ == "__main__":
    main(*sys.argv[1:])
