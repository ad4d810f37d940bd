"""`dermadetect serve`: the gateway."""

from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.development import DEFAULT_STATE, State, development
from cli.output import tell
from cli.run import NOT_CONFIGURED, fail, run, settings

if TYPE_CHECKING:
    from fastapi import FastAPI


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    workers: Annotated[
        int, typer.Option(min=1, max=64, help="Processes; several count rate limits in Redis.")
    ] = 1,
    with_worker: Annotated[
        bool, typer.Option("--with-worker", help="Do the background work in the same process.")
    ] = False,
    dev: Annotated[
        bool,
        typer.Option("--dev", help="Bring a PostgreSQL, a blob directory and a key. Not for production."),
    ] = False,
    state: State = DEFAULT_STATE,
) -> None:
    """Serve the gateway until SIGTERM or Ctrl-C; requests under way are finished.

    Behind a proxy, name it in DERMADETECT_TRUSTED_PROXIES; nobody else's X-Forwarded headers are believed.

      dermadetect serve --host 0.0.0.0 --workers 4
      dermadetect serve --dev --with-worker
    """
    if workers > 1 and (dev or with_worker):
        raise typer.BadParameter(
            "with --dev or --with-worker there is one process; run `dermadetect worker` beside the gateway",
            param_hint="--workers",
        )
    if workers > 1:
        _serve_many(host, port, workers)
    else:
        run(lambda: _serve_one(host, port, with_worker, state if dev else None), fast=True)


async def _serve_one(host: str, port: int, with_worker: bool, state: Path | None) -> None:
    from cli.servers import gateway, listen, until_stopped
    from core.telemetry import configure_logging
    from gateway.assembly import assemble

    async with AsyncExitStack() as stack:
        listener = stack.enter_context(listen(host, port))
        if state is not None:
            configured = await stack.enter_async_context(development(state, port))
            tell(f"DEVELOPMENT: PostgreSQL, photographs and keys are below {state}. Never for production.")
            tell(f"For other commands, in another shell: set -a; . {state}/env; set +a")
        else:
            configured = settings()
        configure_logging(configured.log_level)
        stop = stack.enter_context(until_stopped())
        await stack.enter_async_context(gateway(assemble(configured), listener, with_worker=with_worker))
        tell(f"Serving {configured.public_url} on {host}:{port} until Ctrl-C.")
        await stop.wait()
        tell("Finishing requests under way.")


def _serve_many(host: str, port: int, workers: int) -> None:
    import uvicorn

    from cli.servers import DRAIN_S, listen, proxies
    from core.settings import Settings
    from gateway.assembly import blob_stores, database_url, master_secrets

    async def checked() -> Settings:
        configured = settings()
        database_url(configured), master_secrets(configured), blob_stores(configured)
        return configured

    configured = run(checked)
    if configured.limits_storage.get_secret_value().startswith("memory://"):
        fail(
            "Several processes would each count rate limits alone",
            "set DERMADETECT_LIMITS_STORAGE to redis://HOST:PORT/0, or serve with --workers 1",
            NOT_CONFIGURED,
        )
    listen(host, port).close()
    tell(f"Serving {configured.public_url} on {host}:{port} in {workers} processes until Ctrl-C.")
    uvicorn.run(
        "cli.serve:make_app",
        factory=True,
        host=host,
        port=port,
        workers=workers,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=DRAIN_S,
        **proxies(configured),
    )


def make_app() -> "FastAPI":
    """The gateway of the environment's settings: what each of several processes serves."""
    from core.telemetry import configure_logging
    from gateway.app import create_app
    from gateway.assembly import assemble

    configured = settings()
    configure_logging(configured.log_level)
    return create_app(assemble(configured))
