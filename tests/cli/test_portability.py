"""Exporting and restoring at the command line, and what a killed process leaves."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.conftest import ROOT, Command, eventually
from tests.cli.test_lifecycle import create, store_blobs
from tests.cli.test_tenants import row, sql
from tests.fixtures.fleet import REVISION

BLOBS = {f"cases/{n:03}/original": bytes([n]) * 50_000 for n in range(40)}


def kill_at(process: "subprocess.Popen[str]", line: str) -> None:
    """Kill it as soon as it has said `line`."""
    assert process.stderr
    while line not in (said := process.stderr.readline()):
        assert said, "it ended early"
    process.kill()
    process.wait()


@contextmanager
def locked(command: Command, statement: str) -> Iterator[None]:
    """Hold what a statement locks, from a connection in a process of its own."""
    code = (
        "import asyncio, asyncpg, sys\n"
        "async def main():\n"
        "    c = await asyncpg.connect(sys.argv[1]); t = c.transaction(); await t.start()\n"
        "    await c.execute(sys.argv[2]); print('held', flush=True); sys.stdin.read()\n"
        "asyncio.run(main())"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, command.superuser_url, statement],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        yield
    finally:
        holder.communicate()


def test_an_export_that_is_killed_leaves_no_bundle_and_is_begun_anew(
    command: Command, tmp_path: Path
) -> None:
    tenant = create(command, "exported")
    store_blobs(tenant, BLOBS)
    target, partial = tmp_path / "bundle", tmp_path / ".bundle.partial"
    arguments = ("tenants", "export", "exported", "--to", str(target), "--json")
    # Halted at a table that somebody holds, then at a blob whose bytes do not come.
    pipe = tenant["directory"] / "cases~020~pipe"
    table = f"LOCK TABLE {tenant['schema']}.users IN ACCESS EXCLUSIVE MODE"
    with locked(command, table), command.running(*arguments) as process:
        eventually(lambda: any(partial.glob("tables/*")))
        process.kill()
        process.wait()
    assert not target.exists()
    os.mkfifo(pipe)
    with command.running(*arguments) as process:
        eventually(lambda: (partial / "named").exists())
        process.kill()
        process.wait()
    pipe.unlink()
    assert not target.exists()

    told = json.loads(command.run(*arguments).stdout)
    assert (told["blobs"], told["blob_bytes"], told["missing_blobs"]) == (40, 2_000_000, 0)
    assert list(tmp_path.iterdir()) == [target]
    assert target.stat().st_mode & 0o077 == 0, "health data is its owner's"
    assert json.loads(command.run("tenants", "verify-export", str(target), "--json").stdout) == told
    command.run(*arguments, code=1)  # never over an older one
    (target / "blobs/cases/007/original").write_bytes(bytes(50_000))
    refused = command.run("tenants", "verify-export", str(target), code=1)
    assert refused.stderr.startswith("The bundle cannot be trusted: blobs/cases/007/original ")


@pytest.mark.parametrize("killed_after", ["verified", "bundle", "rows", "blobs", "settings", "patients"])
def test_a_restore_that_is_killed_is_finished_by_the_same_command(
    command: Command, tmp_path: Path, killed_after: str
) -> None:
    slug, other = f"from-{killed_after}", f"into-{killed_after}"
    tenant = create(command, slug)
    store_blobs(tenant, BLOBS)
    bundle, passphrase = tmp_path / "bundle", tmp_path / "passphrase"
    passphrase.write_text("correct horse battery staple\n")
    command.run("tenants", "export", slug, "--to", str(bundle), "--passphrase-file", str(passphrase))
    arguments = ("tenants", "restore", str(bundle), "--slug", other, "--passphrase-file", str(passphrase))
    with command.running(*arguments) as process:
        kill_at(process, f"✓ {killed_after}")
    if killed_after not in ("verified", "patients"):  # else it is not begun, or may be finished
        assert row(command, other)["state"] == "provisioning"
        created = command.run("tenants", "create", other, "--name", tenant["name"], "--plan", "trial", code=1)
        assert created.stderr.startswith("Not possible in the tenant's present state: ")

    restored = json.loads(command.run(*arguments, "--json").stdout)
    assert (restored["state"], restored["host"]) == ("active", f"{other}.localhost")
    assert sql(command, f"SELECT count(*) FROM {restored['schema']}.oauth_clients") == 1
    again = tmp_path / "again"
    command.run("tenants", "export", other, "--to", str(again))
    for part in ("tables", "blobs"):
        assert contents(again / part) == contents(bundle / part)
    keys = "SELECT count(*) FROM control.tenant_keys WHERE retires_at IS NULL AND tenant_id = "
    assert sql(command, keys + f"(SELECT id FROM control.tenants WHERE slug = '{other}')") == 3


def contents(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


@pytest.mark.parametrize("in_python", [False, True])
def test_a_bundle_of_an_older_release_is_migrated_when_it_is_restored(
    command: Command, tmp_path: Path, in_python: bool
) -> None:
    slug = "aged-in-python" if in_python else "aged"
    create(command, slug)
    command.run("clients", "add", slug, "app", "--name", "App", "--redirect-uri", "https://app.example/cb")
    command.run("tenants", "export", slug, "--to", str(tmp_path / "bundle"))
    shutil.copytree(
        ROOT / "migrations", tmp_path / "migrations", ignore=shutil.ignore_patterns("__pycache__")
    )
    revision = REVISION.format(
        id="0002",
        before="0001",
        in_python=in_python,
        body="""op.add_column("oauth_clients", sa.Column("shouted", sa.Text(), nullable=True))
    op.execute("UPDATE oauth_clients SET shouted = upper(name)")""",
    )
    (tmp_path / "migrations" / "tenant" / "versions" / "0002_next.py").write_text(revision)
    newer = Command(command.settings, command.superuser_url, tmp_path)
    arguments = ("tenants", "restore", str(tmp_path / "bundle"), "--slug", f"{slug}-again", "--json")
    with newer.running(*arguments) as process:
        # The next attempt must not load rows into a schema of another revision.
        kill_at(process, "rows of bundle")
    with newer.running(*arguments) as process:
        told, said = process.communicate()
    assert process.returncode == 0, said
    restored = json.loads(told)
    assert restored["schema_revision"] == "0002"
    schema = restored["schema"]
    shouted = sql(command, f"SELECT string_agg(shouted, ' ') FROM {schema}.oauth_clients")
    assert shouted == "APP"
    command.run("tenants", "close", f"{slug}-again", "--reason", "this release does not know its revision")
    command.run("tenants", "purge", f"{slug}-again", "--confirm", f"{slug}-again", "--now")
