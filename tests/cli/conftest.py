"""The command as people run it: in this process where that is enough, in one of its own where signals matter."""

import asyncio
import base64
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from cli.main import app
from core.embedded_postgres import EmbeddedPostgres
from tests.fixtures.postgres import PostgresServer

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-c", "from cli.main import app; app()"]


@dataclass
class Command:
    """`dermadetect` with the settings of one migrated database."""

    settings: dict[str, str]
    superuser_url: str = ""
    home: Path = ROOT  # whose `migrations` a process of its own finds first

    def run(self, *arguments: str, code: int = 0, **settings: str | None) -> Result:
        """Run it here and check its exit code; a setting that is None is taken away."""
        names = {name: None for name in os.environ if name.startswith("DERMADETECT_")}
        env = names | self.settings | {f"DERMADETECT_{k.upper()}": v for k, v in settings.items()}
        result = CliRunner().invoke(app, arguments, env=env)
        assert result.exit_code == code, f"{result.exit_code}\n{result.output}\n{result.exception!r}"
        return result

    @contextmanager
    def running(self, *arguments: str, **settings: str) -> Iterator[subprocess.Popen[str]]:
        """Run it in a process of its own, which the block is to end."""
        env = {k: v for k, v in os.environ.items() if not k.startswith("DERMADETECT_")}
        env |= self.settings | {f"DERMADETECT_{k.upper()}": v for k, v in settings.items()}
        process = subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=self.home,
            env=env | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "platform")])},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.communicate()


def stop(process: subprocess.Popen[str], number: signal.Signals) -> str:
    """Send a signal, expect success within a few seconds, and return what was said on standard error."""
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 0, said
    return said


def answer(url: str, process: subprocess.Popen[str], **options: Any) -> httpx.Response:
    """The first answer of a server that is starting up."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            # It listens before it is ready, and answers what has connected then.
            return httpx.get(url, trust_env=False, **{"timeout": 60, **options})
        except httpx.ConnectError:
            time.sleep(0.05)
    raise AssertionError("the server did not start")


def eventually(holds: Callable[[], bool], *, within_s: float = 60) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)


@pytest.fixture(scope="session")
def command(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Command:
    """The command on a migrated database of these tests."""
    return command_on(postgres, "cli", tmp_path_factory.mktemp("cli-blobs"))


def command_on(postgres: PostgresServer, database: str, blobs: Path) -> Command:
    """The command on a new, migrated database."""
    logins = asyncio.run(postgres.create_database(database))
    made = Command(
        {
            "DERMADETECT_DATABASE_URL": logins.gateway_url,
            "DERMADETECT_ADMIN_DATABASE_URL": logins.admin_url,
            "DERMADETECT_MASTER_KEY": base64.b64encode(bytes(range(32))).decode(),
            "DERMADETECT_BLOB_DIRECTORY": str(blobs),
        },
        logins.superuser_url,
    )
    made.run("migrate")
    return made


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory for `demo` and `serve --dev`, whose PostgreSQL is deleted at the end wherever it lies."""
    directory = tmp_path_factory.mktemp("state") / "state"
    yield directory
    EmbeddedPostgres(directory / "postgres").destroy()


@pytest.fixture(scope="session")
def acme(command: Command) -> str:
    """A tenant that tests may look at and add to."""
    command.run("tenants", "create", "cli-acme", "--name", "Acme Clinic", "--plan", "standard")
    return "cli-acme"
