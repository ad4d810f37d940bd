"""`dermadetect tenants move`, killed between any two of its steps."""

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from core.local_blobs import LocalBlobStore
from core.logins import Logins
from tests.cli.conftest import Command, command_on
from tests.cli.test_lifecycle import create, store_blobs
from tests.cli.test_tenants import row
from tests.fixtures.postgres import PostgresServer

STEPS = ["prepared", "copied ahead", "frozen", "fenced", "rows", "blobs", "switched"]


@dataclass
class Cells:
    """The command with a second cell, `eu-2`."""

    command: Command
    far: Logins
    far_blobs: Path

    def create(self, slug: str) -> dict[str, Any]:
        tenant = create(self.command, slug)
        store_blobs(tenant, {"images/one": bytes(1000), "images/two": bytes(234)})
        return tenant

    def kill_after(self, step: str, *arguments: str) -> None:
        with self.command.running("tenants", "move", *arguments) as process:
            assert process.stderr
            while f"✓ {step}" not in (line := process.stderr.readline()):
                assert line, "it ended early"
            process.kill()
            process.wait()

    def contents(self, tenant: dict[str, Any]) -> dict[str, dict[str, Any] | None]:
        """By cell: how many clients and blobs a tenant has there, None where it has nothing at all."""
        return {
            cell: asyncio.run(_contents(url, blobs, tenant))
            for cell, url, blobs in (
                (
                    "default",
                    self.command.settings["DERMADETECT_ADMIN_DATABASE_URL"],
                    tenant["directory"].parent,
                ),
                ("eu-2", self.far.admin_url, self.far_blobs),
            )
        }


async def _contents(url: str, blobs: Path, tenant: dict[str, Any]) -> dict[str, Any] | None:
    connection = await asyncpg.connect(url)
    try:
        schemas = [
            name
            for (name,) in await connection.fetch(
                "SELECT nspname FROM pg_namespace WHERE nspname LIKE '%' || $1", tenant["schema"]
            )
        ]
        role = await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", tenant["schema"])
        container = blobs / tenant["container"]
        if not (schemas or role or container.exists()):
            return None
        await connection.execute("SET ROLE dermadetect_owner")
        store = LocalBlobStore(blobs)
        return {
            "schemas": schemas,
            "clients": await connection.fetchval(f"SELECT count(*) FROM {schemas[0]}.oauth_clients"),
            "blobs": {blob.name: blob.size async for blob in store.list(tenant["container"])},
        }
    finally:
        await connection.close()


@pytest.fixture(scope="module")
def cells(
    postgres: PostgresServer, far_postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Cells:
    """Two cells of their own: other tests' command knows but one, and nothing of tenants elsewhere."""
    command = command_on(postgres, "moving", tmp_path_factory.mktemp("home-blobs"))
    far, blobs = asyncio.run(far_postgres.create_database("cli")), tmp_path_factory.mktemp("far-blobs")
    cell = {
        "database_url": far.gateway_url,
        "admin_database_url": far.admin_url,
        "blob_directory": str(blobs),
    }
    here = Command(
        command.settings | {"DERMADETECT_CELLS": json.dumps({"eu-2": cell})}, command.superuser_url
    )
    here.run("migrate")
    return Cells(here, far, blobs)


def whole(tenant: dict[str, Any]) -> dict[str, Any]:
    return {"schemas": [tenant["schema"]], "clients": 1, "blobs": {"images/one": 1000, "images/two": 234}}


@pytest.mark.parametrize("step", STEPS)
def test_a_move_that_is_killed_is_finished_by_the_same_command(cells: Cells, step: str) -> None:
    slug = f"moved-{STEPS.index(step)}"
    tenant = cells.create(slug)
    cells.kill_after(step, slug, "--to-cell", "eu-2")
    moved = json.loads(cells.command.run("tenants", "move", slug, "--to-cell", "eu-2", "--json").stdout)
    assert (moved["cell"], moved["state"]) == ("eu-2", "active")
    assert cells.contents(tenant) == {"default": None, "eu-2": whole(tenant)}
    cells.command.run("clients", "list", slug)
    cells.command.run("audit", "verify", "--tenant", slug)
    cells.command.run("tenants", "move", slug, "--rollback", code=1)


@pytest.mark.parametrize("step", STEPS[:-1])
def test_a_move_that_is_killed_before_the_switch_can_be_rolled_back(cells: Cells, step: str) -> None:
    slug = f"stayed-{STEPS.index(step)}"
    tenant = cells.create(slug)
    cells.kill_after(step, slug, "--to-cell", "eu-2")
    cells.command.run("tenants", "close", slug, "--reason", "x", code=int(step not in STEPS[:2]))
    if step in STEPS[:2]:
        purge = ("tenants", "purge", slug, "--confirm", slug, "--now")
        assert "being moved" in cells.command.run(*purge, code=1).stderr
        cells.command.run("tenants", "reopen", slug)
    cells.command.run("tenants", "move", slug, "--rollback")
    assert row(cells.command, slug)["state"] == "active"
    assert cells.contents(tenant) == {"default": whole(tenant), "eu-2": None}
    cells.command.run("clients", "list", slug)


@pytest.mark.parametrize("undone", ["unfenced", "served"])
def test_a_rollback_that_is_killed_is_finished_by_the_same_command(cells: Cells, undone: str) -> None:
    slug = f"undone-{undone}"
    tenant = cells.create(slug)
    cells.kill_after("rows", slug, "--to-cell", "eu-2")
    cells.kill_after(undone, slug, "--rollback")
    cells.command.run("tenants", "move", slug, "--rollback")
    assert row(cells.command, slug)["state"] == "active"
    assert cells.contents(tenant) == {"default": whole(tenant), "eu-2": None}


def test_where_to_must_be_said_and_be_known(cells: Cells) -> None:
    cells.create("undecided")
    cells.command.run("tenants", "move", "undecided", code=2)
    assert "mars" in cells.command.run("tenants", "move", "undecided", "--to-cell", "mars", code=1).stderr
    cells.command.run("tenants", "move", "undecided", "--rollback", code=1)


def test_the_doctor_looks_at_every_cell(cells: Cells) -> None:
    checks = json.loads(cells.command.run("doctor", "--json").stdout)
    states = {check["name"]: check["state"] for check in checks}
    assert {states[f"eu-2: {name}"] for name in ("gateway login", "operator login", "blob store")} == {"ok"}
