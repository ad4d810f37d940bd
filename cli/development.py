"""A whole environment of one's own below one directory: PostgreSQL, blobs and a master key. Never for production."""

import base64
import secrets
import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.output import err, tell
from cli.run import admin_database

if TYPE_CHECKING:
    from core.settings import Settings

State = Annotated[
    Path,
    typer.Option(
        help="Where PostgreSQL, photographs and keys of development live on.",
        file_okay=False,
        resolve_path=True,
    ),
]
DEFAULT_STATE = Path("demo/state")


@asynccontextmanager
async def development(state: Path, port: int, **more: str) -> AsyncIterator["Settings"]:
    """Settings of a migrated environment below `state`, whose PostgreSQL runs while the block does.

    `more` are further settings. All are also left in `state/env`, for other commands in another shell.
    """
    from core.embedded_postgres import EmbeddedPostgres
    from core.settings import Settings
    from migrations.fleet import migrate
    from migrations.runner import login_of

    with err.status("Starting PostgreSQL"):
        postgres = EmbeddedPostgres(state / "postgres")
        postgres.start()
    try:
        logins = await postgres.bootstrap()
        values: dict[str, Any] = {
            "public_url": f"http://localhost:{port}",
            "database_url": logins.gateway_url,
            "admin_database_url": logins.admin_url,
            "master_key": _kept_key(state / "master.key"),
            "blob_directory": str(state / "blobs"),
            **more,
        }
        lines = [f"DERMADETECT_{name.upper()}={shlex.quote(value)}\n" for name, value in values.items()]
        _write_private(state / "env", "".join(lines))
        # Named here, so that what the shell has for production does not slip in.
        no_azure = {"azure_connection_string": None, "azure_account_url": None}
        settings = Settings(**values | no_azure | {"limits_storage": "memory://"})
        with err.status("Migrating"):
            async with admin_database(settings) as admin:
                report = await migrate(admin, login_of(logins.gateway_url))
        for slug, reason in report.quarantined.items():
            tell(f"{slug} was not migrated: {reason}")
        yield settings
    finally:
        postgres.stop()


def _kept_key(path: Path) -> str:
    if not path.exists():
        _write_private(path, base64.b64encode(secrets.token_bytes(32)).decode())
    return path.read_text()


def _write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)
