"""Closing, reopening and purging a tenant."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from core.local_blobs import LocalBlobStore
from tests.cli.conftest import Command, answer
from tests.cli.test_tenants import row, sql
from tests.fixtures.servers import free_port


def create(command: Command, slug: str) -> dict[str, Any]:
    """A tenant with a few rows and two blobs."""
    command.run("tenants", "create", slug, "--name", slug.title(), "--plan", "trial")
    command.run("clients", "add", slug, "app", "--name", "App", "--redirect-uri", "https://app.example/cb")
    tenant = row(command, slug)
    container = Path(command.settings["DERMADETECT_BLOB_DIRECTORY"]) / tenant["container"]
    return tenant | {"directory": container}


def store_blobs(tenant: dict[str, Any], blobs: dict[str, bytes]) -> None:
    async def work() -> None:
        store = LocalBlobStore(tenant["directory"].parent)
        for name, data in blobs.items():
            await store.put(tenant["container"], name, data, content_type="image/png")

    asyncio.run(work())


def remains(command: Command, tenant: dict[str, Any]) -> dict[str, Any]:
    """What is left of a tenant, by where it was."""
    key = tenant["key"]
    mine = f"tenant_id = (SELECT id FROM control.tenants WHERE key = '{key}')"
    return {
        "schema": sql(command, f"SELECT count(*) FROM pg_namespace WHERE nspname = 't_{key}'"),
        "role": sql(command, f"SELECT count(*) FROM pg_roles WHERE rolname = 't_{key}'"),
        "keys": sql(command, f"SELECT count(*) FROM control.tenant_keys WHERE {mine}"),
        "bells": sql(command, f"SELECT count(*) FROM control.doorbells WHERE tenant_key = '{key}'"),
        "container": int(tenant["directory"].exists()),
    }


def test_a_closing_tenant_is_gone_for_its_users_and_can_come_back(command: Command) -> None:
    create(command, "closer")
    port = free_port()
    url, host = f"http://127.0.0.1:{port}/.well-known/jwks.json", {"Host": "closer.localhost"}
    with (
        command.running("serve", "--port", str(port)) as process,
        httpx.Client(headers=host, trust_env=False) as http,
    ):
        assert answer(url, process, headers=host).status_code == 200
        for arguments, status in (
            (("close", "closer", "--reason", "contract ended"), 410),
            (("reopen", "closer"), 200),
        ):
            command.run("tenants", *arguments)
            committed = asked = time.monotonic()
            while http.get(url).status_code != status:
                assert asked - committed < 1.0
                time.sleep(0.01)
                asked = time.monotonic()
    command.run("tenants", "suspend", "closer", "--reason", "unpaid")
    first = json.loads(
        command.run("tenants", "close", "closer", "--reason", "gone", "--grace", "2d", "--json").stdout
    )
    assert (first["state"], first["closing_reason"]) == ("closing", "gone")
    again = json.loads(command.run("tenants", "close", "closer", "--reason", "other", "--json").stdout)
    assert again == first, "closing again prolongs nothing"
    command.run("tenants", "resume", "closer", code=1)
    command.run("tenants", "close", "closer", "--reason", "x", "--grace", "soon", code=2)


def test_nothing_is_purged_early_unconfirmed_or_unclosed(command: Command) -> None:
    tenant = create(command, "keeper")
    assert command.run(
        "tenants", "purge", "keeper", "--confirm", "keeper", "--now", code=1
    ).stderr.startswith("Not possible in the tenant's present state: ")
    command.run("tenants", "close", "keeper", "--reason", "moved")
    command.run("tenants", "purge", "keeper", code=2)
    command.run("tenants", "purge", "keeper", "--confirm", "closer", "--now", code=2)
    early = command.run("tenants", "purge", "keeper", "--confirm", "keeper", code=1)
    assert early.stderr.startswith("The grace period is not over: ")
    command.run("tenants", "certificate", "keeper", code=1)
    assert remains(command, tenant) | {"bells": 0} == {
        "schema": 1, "role": 1, "keys": 3, "bells": 0, "container": 1,
    }  # fmt: skip
    command.run("tenants", "reopen", "keeper")

    command.run("tenants", "close", "keeper", "--reason", "moved", "--grace", "0h")
    command.run("tenants", "purge", "keeper", "--confirm", "keeper")
    assert row(command, "keeper")["state"] == "closed"


@pytest.mark.parametrize("killed_after", ["nothing", "role", "schema", "container", "keys", "certificate"])
def test_a_purge_that_is_killed_is_finished_by_the_same_command(
    command: Command, tmp_path: Path, killed_after: str
) -> None:
    slug = f"purged-{killed_after}"
    tenant = create(command, slug)
    store_blobs(tenant, {"images/one": bytes(1000), "images/two": bytes(234)})
    tables = sql(command, f"SELECT count(*) FROM pg_tables WHERE schemaname = '{tenant['schema']}'")
    command.run("tenants", "close", slug, "--reason", "contract ended")
    arguments = ("tenants", "purge", slug, "--confirm", slug, "--now", "--json")
    with command.running(*arguments) as process:
        assert process.stderr
        if killed_after != "nothing":
            while f"✓ {killed_after}" not in (line := process.stderr.readline()):
                assert line, "it ended early"
        process.kill()
        process.wait()
    if killed_after not in ("nothing", "certificate"):
        command.run("tenants", "reopen", slug, code=1)

    saved = tmp_path / "certificate.jws"
    told = json.loads(command.run(*arguments, "--certificate", str(saved)).stdout)
    assert remains(command, tenant) == dict.fromkeys(("schema", "role", "keys", "bells", "container"), 0)
    assert (told["tenant"]["key"], told["reason"], told["hosts"]) == (
        tenant["key"], "contract ended", [f"{slug}.localhost"]
    )  # fmt: skip
    assert len(told["rows"]) == tables
    assert told["rows"]["oauth_clients"] == 1
    assert len(told["audit_events_sha256"]) == 64
    assert told["blobs"] == {"count": 2, "bytes": 1234}
    assert told["ordered_by"].startswith("cli:")
    assert json.loads(command.run(*arguments).stdout) == told, "again: the same certificate"
    assert json.loads(command.run("tenants", "certificate", slug, "--json").stdout) == told
    assert row(command, slug)["state"] == "closed"
    command.run("tenants", "create", slug, "--name", "Somebody", "--plan", "trial", code=1)

    command.run("tenants", "certificate", slug, "--verify", str(saved))
    header, payload, signature = saved.read_text().strip().split(".")
    saved.write_text(f"{header}.{payload[:-2]}AA.{signature}")
    forged = command.run("tenants", "certificate", slug, "--verify", str(saved), code=1)
    assert forged.stderr.startswith("The platform's signature does not hold: ")


def test_the_gateways_login_cannot_read_the_platforms_keys(command: Command) -> None:
    gateway = Command(command.settings, command.settings["DERMADETECT_DATABASE_URL"])
    assert sql(gateway, "SELECT count(*) FROM control.deletions") >= 0
    with pytest.raises(Exception, match="permission denied"):
        sql(gateway, "SELECT count(*) FROM control.platform_keys")
