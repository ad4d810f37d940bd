"""What every command has in common: help, completion, exit codes, and where its words go."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main

from cli.main import app
from tests.cli.conftest import COMMAND, ROOT, Command


def leaves(command: Any, *path: str) -> Iterator[tuple[str, ...]]:
    children = getattr(command, "commands", {})
    if not children or (path and command.invoke_without_command):
        yield path
    for name, child in children.items():
        yield from leaves(child, *path, name)


ALL = list(leaves(typer.main.get_command(app)))


def test_the_commands_are_the_documented_ones() -> None:
    names = {path[0] for path in ALL}
    assert {"tenants", "quotas", "migrate", "serve", "worker", "demo", "doctor", "sso", "clients"} <= names
    assert {"reference-ai", "reference-idp"} <= names


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_command_teaches_by_an_example(command: Command, path: tuple[str, ...]) -> None:
    said = command.run(*path, "--help").stdout
    assert re.search(rf"^ *dermadetect {' '.join(path)}", said, re.M)


def test_help_tells_the_exit_codes(command: Command) -> None:
    said = " ".join(command.run("--help").stdout.split())
    assert "0 done · 1 failed, or not healthy · 2 wrong usage · 3 partly failed · 4 not configured" in said
    assert "5 stopped before the end" in said


def test_help_and_completion_do_not_wait_for_the_rooms() -> None:
    heavy = "{'sqlalchemy', 'fastapi', 'lxml', 'alembic', 'uvicorn', 'asyncpg'}"
    code = f"import sys, cli.main; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_shell_completes_commands() -> None:
    words = {"_DERMADETECT_COMPLETE": "complete_bash", "COMP_WORDS": "dermadetect ten", "COMP_CWORD": "1"}
    program = COMMAND[-1].replace("app()", "app(prog_name='dermadetect')")
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=os.environ | words, capture_output=True, text=True
    )
    assert done.stdout.split() == ["tenants"]


@pytest.mark.parametrize(
    ("missing", "arguments"),
    [
        ("admin_database_url", ["tenants", "list"]),
        ("database_url", ["migrate"]),
        ("database_url", ["worker"]),
        ("database_url", ["serve", "--port", "0"]),
        ("master_key", ["tenants", "create", "someone", "--name", "Someone", "--plan", "standard"]),
        ("blob_directory", ["tenants", "create", "someone", "--name", "Someone", "--plan", "standard"]),
    ],
)
def test_a_missing_setting_is_named(command: Command, missing: str, arguments: list[str]) -> None:
    if "0" in arguments:
        arguments = [*arguments[:-1], "8123"]
    result = command.run(*arguments, code=4, **{missing: None})
    assert f"DERMADETECT_{missing.upper()}" in result.stderr
    assert result.stderr.startswith("A setting is missing: ")
    assert result.stdout == ""


def test_a_wrong_setting_is_named_without_its_value(command: Command) -> None:
    result = command.run("tenants", "list", code=4, master_key="bm90IDMyIGJ5dGVz")
    assert "master_key" in result.stderr
    assert "32 bytes" in result.stderr
    assert "bm90IDMyIGJ5dGVz" not in result.output


def test_a_database_that_is_away_is_one_line(command: Command) -> None:
    result = command.run("tenants", "list", code=1, admin_database_url="postgresql://a:secret@127.0.0.1:1/x")
    assert len(result.stderr.strip().splitlines()) == 1
    assert "secret" not in result.output
    assert result.stdout == ""


def test_wrong_usage_is_2(command: Command) -> None:
    command.run("tenants", "list", "--state", "asleep", code=2)
    command.run("quotas", "set", "acme", "requests", "many", code=2)
    command.run("nonsense", code=2)
