"""`tenants create`, its `--rollback` and `tenants warm`, killed between any two of their steps.

A real process is halted by a lock on what its next step writes, or by a blob store whose answer does not come, and
killed from outside. Then the same command is run again.
"""

import asyncio
import hashlib
import json
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import pytest

from tests.cli.conftest import Command, eventually
from tests.fixtures.azurite import API_VERSION
from tests.fixtures.postgres import PostgresServer

# What a step waits for while somebody else holds it: its last write, so that all before it is done.
RESERVING = "LOCK TABLE control.hosts IN SHARE MODE"
SCHEMA = "LOCK TABLE pg_catalog.pg_namespace IN SHARE MODE"
KEYS = "LOCK TABLE control.tenant_keys IN SHARE MODE"
LEDGER = "LOCK TABLE control.provisioning_steps IN SHARE MODE"
MOVING = "LOCK TABLE control.tenants IN EXCLUSIVE MODE"
AUDITING = "LOCK TABLE control.audit_events IN SHARE MODE"


@dataclass
class Database:
    """The superuser's connection, driven from tests that run commands in loops of their own."""

    url: str
    runner: asyncio.Runner = field(default_factory=asyncio.Runner)

    def __enter__(self) -> "Database":
        self.runner.__enter__()
        self.connection = self.runner.run(asyncpg.connect(self.url))
        return self

    def __exit__(self, *_: object) -> None:
        self.runner.run(self.connection.close())
        self.runner.close()

    def column(self, sql: str, *values: Any) -> list[Any]:
        return [row[0] for row in self.runner.run(self.connection.fetch(sql, *values))]

    def is_halted(self) -> bool:
        """Whether somebody waits for what this connection holds, and nobody goes on with anything else for a while."""
        if not self._is_quiet():
            return False
        time.sleep(0.2)
        return self._is_quiet()

    def _is_quiet(self) -> bool:
        self.column("SELECT pg_stat_clear_snapshot()")  # else a transaction sees the same activity again
        found = self.runner.run(
            self.connection.fetchrow(
                "SELECT count(*) FILTER (WHERE pg_backend_pid() = ANY(pg_blocking_pids(pid))), "
                "count(*) FILTER (WHERE state <> 'idle' AND wait_event_type IS DISTINCT FROM 'Lock') "
                "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
        assert found
        return bool(found[0]) and not found[1]

    @contextmanager
    def holding(self, lock: str) -> Iterator[None]:
        self.runner.run(self.connection.execute(f"BEGIN; {lock}"))
        try:
            yield
        finally:
            self.runner.run(self.connection.execute("ROLLBACK"))


@pytest.fixture(scope="module")
def database(command: Command) -> Iterator[Database]:
    with Database(command.superuser_url) as opened:
        yield opened


def arguments(slug: str, *options: str) -> tuple[str, ...]:
    return ("tenants", "create", slug, "--name", slug.title(), "--plan", "trial", *options)


def kill_at(command: Command, database: Database, lock: str, *line: str) -> None:
    """Start the command, halt it where it needs what `lock` holds, and kill it."""
    with database.holding(lock), command.running(*line) as process:
        kill_when(database.is_halted, process)


def kill_when(halted: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    eventually(lambda: halted() or process.poll() is not None, within_s=60)  # it has much to import
    assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGKILL)
    process.wait()


def kill_at_store(command: Command, azurite: str, *line: str) -> Command:
    """Start the command with a blob store whose answer does not come, and kill it then. Returns the command with the
    store itself."""
    stored = Command(command.settings | {"DERMADETECT_AZURE_API_VERSION": API_VERSION}, command.superuser_url)
    del stored.settings["DERMADETECT_BLOB_DIRECTORY"]
    with (
        withholding(azurite) as (connection_string, answered),
        stored.running(*line, azure_connection_string=connection_string) as process,
    ):
        kill_when(answered.is_set, process)
    stored.settings["DERMADETECT_AZURE_CONNECTION_STRING"] = azurite
    return stored


@contextmanager
def withholding(azurite: str) -> Iterator[tuple[str, threading.Event]]:
    """A connection string of a store that does what it is told and does not say so."""
    port = re.search(r"127\.0\.0\.1:(\d+)", azurite)
    assert port
    answered = threading.Event()

    def forward(client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", int(port[1]))) as store:
            store.sendall(client.recv(65536))
            assert store.recv(65536)
            answered.set()
            client.recv(1)  # until the client is dead

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=lambda: forward(server.accept()[0]))
        thread.start()
        yield azurite.replace(port[1], str(server.getsockname()[1])), answered
        thread.join(10)


def assert_whole(database: Database, key: str) -> None:
    """Everything of the tenant is there, and once."""
    one = "FROM control.{} AS x JOIN control.tenants AS t ON t.id = x.tenant_id WHERE t.key = $1 ORDER BY 1"
    assert database.column("SELECT purpose " + one.format("tenant_keys"), key) == ["data", "saml", "token"]
    ledger = database.column("SELECT step || ' ' || act " + one.format("provisioning_steps"), key)
    assert ledger == ["container done", "keys done", "schema done"]
    assert database.column("SELECT count(*) FROM pg_roles WHERE rolname = $1", f"t_{key}") == [1]
    assert database.column(f"SELECT version_num FROM t_{key}.alembic_version") != []
    assert database.column(f"SELECT count(*) FROM t_{key}.specialties") == [3]


def assert_active(database: Database, command: Command, slug: str) -> str:
    shown = json.loads(command.run("tenants", "show", slug, "--json").stdout)
    assert shown["state"] == "active"
    assert_whole(database, shown["key"])
    of_tenant = "tenant_id = (SELECT id FROM control.tenants WHERE key = $1) ORDER BY 1"
    assert database.column(f"SELECT host FROM control.hosts WHERE {of_tenant}", shown["key"]) == [
        f"{slug}.localhost"
    ]
    acts = database.column(f"SELECT action FROM control.audit_events WHERE {of_tenant}", shown["key"])
    assert acts == ["tenant.active", "tenant.reserved"]
    return str(shown["key"])


def assert_nothing_left_over(database: Database) -> None:
    """No schema is nobody's, and what was rolled back has left nothing but its key."""
    assert (
        database.column(
            "SELECT nspname FROM pg_namespace WHERE nspname ~ '^t_' AND NOT EXISTS "
            "(SELECT FROM control.tenants WHERE 't_' || key = nspname AND state <> 'rolled-back')"
        )
        == []
    )
    assert (
        database.column(
            "SELECT key FROM control.tenants AS t WHERE state = 'rolled-back' AND ("
            "EXISTS (SELECT FROM pg_roles WHERE rolname = 't_' || key) "
            "OR EXISTS (SELECT FROM control.tenant_keys WHERE tenant_id = t.id) "
            "OR EXISTS (SELECT FROM control.hosts WHERE tenant_id = t.id) OR schema_revision IS NOT NULL)"
        )
        == []
    )


@pytest.mark.parametrize(
    ("name", "locks"),
    [("schema", [RESERVING, SCHEMA, AUDITING]), ("keys", [KEYS, AUDITING]), ("ledger", [LEDGER])],
)
def test_a_creation_that_was_killed_is_finished_by_the_next(
    command: Command, database: Database, name: str, locks: list[str]
) -> None:
    slug = f"killed-{name}"
    for lock in locks:
        kill_at(command, database, lock, *arguments(slug))
    assert (
        database.column("SELECT state FROM control.tenants WHERE slug = $1 AND state = 'active'", slug) == []
    )
    command.run(*arguments(slug))
    assert_active(database, command, slug)
    assert_nothing_left_over(database)


def test_a_creation_whose_container_was_made_unheard_is_finished_by_the_next(
    command: Command, database: Database, azurite: str
) -> None:
    stored = kill_at_store(command, azurite, *arguments("killed-container"))
    stored.run(*arguments("killed-container"))
    assert_active(database, stored, "killed-container")


def test_a_rollback_that_was_killed_after_any_step_is_finished_by_the_next(
    command: Command, database: Database
) -> None:
    create, undo = arguments("undone"), arguments("undone", "--rollback")
    kill_at(command, database, LEDGER, *create)  # all is made, and the ledger knows nothing of it
    [key] = database.column("SELECT key FROM control.tenants WHERE slug = 'undone'")
    for lock in (MOVING, KEYS, LEDGER, SCHEMA, RESERVING):
        kill_at(command, database, lock, *undo)
    assert "is being undone" in command.run(*create, code=1).stderr
    assert json.loads(command.run(*undo, "--json").stdout)["state"] == "rolled-back"
    assert_nothing_left_over(database)
    of_tenant = "tenant_id = (SELECT id FROM control.tenants WHERE key = $1) ORDER BY id"
    undone = database.column(
        f"SELECT step FROM control.provisioning_steps WHERE act = 'undone' AND {of_tenant}", key
    )
    assert undone == ["keys", "container", "schema"]
    acts = database.column(f"SELECT action FROM control.audit_events WHERE {of_tenant}", key)
    assert acts == ["tenant.reserved", "tenant.rolling-back", "tenant.rolled-back"]
    command.run(*create)
    assert assert_active(database, command, "undone") != key, "a key is never used again"


def test_a_rollback_whose_container_was_deleted_unheard_is_finished_by_the_next(
    command: Command, database: Database, azurite: str
) -> None:
    kill_at(command, database, LEDGER, *arguments("undone-container"))
    stored = kill_at_store(command, azurite, *arguments("undone-container", "--rollback"))
    stored.run(*arguments("undone-container", "--rollback"))
    assert_nothing_left_over(database)


def test_a_finished_tenant_is_never_rolled_back(command: Command, database: Database) -> None:
    command.run(*arguments("finished"))
    assert (
        "only a tenant that is provisioning"
        in command.run(*arguments("finished", "--rollback"), code=1).stderr
    )
    other = ("tenants", "create", "finished", "--name", "Another", "--plan", "trial", "--rollback")
    assert command.run(*other, code=1).stderr.startswith("The slug is in use: ")
    assert command.run(*arguments("never-begun", "--rollback"), code=1).stderr.startswith("No such tenant: ")
    assert_active(database, command, "finished")


@pytest.fixture
def pooled(postgres: PostgresServer, command: Command) -> Iterator[tuple[Command, Database]]:
    """A migrated database of its own, whose pool nobody else fills or empties."""
    logins = asyncio.run(postgres.create_database("pooled"))
    urls = {
        "DERMADETECT_DATABASE_URL": logins.gateway_url,
        "DERMADETECT_ADMIN_DATABASE_URL": logins.admin_url,
    }
    made = Command(command.settings | urls, logins.superuser_url)
    made.run("migrate")
    with Database(logins.superuser_url) as database:
        yield made, database


def test_a_pool_whose_filling_was_killed_is_filled_by_the_next_and_claimed_once(
    pooled: tuple[Command, Database],
) -> None:
    command, database = pooled
    fill = ("tenants", "warm", "--size", "1", "--json")
    for lock in (MOVING, SCHEMA, LEDGER):
        kill_at(command, database, lock, *fill)
        assert json.loads(command.run(*fill, "--dry-run").stdout) == {"size": 1, "ready": 0, "made": 0}
    assert json.loads(command.run(*fill).stdout) == {"size": 1, "ready": 1, "made": 1}
    [key] = database.column("SELECT key FROM control.tenants WHERE state = 'warm'")
    assert_whole(database, key)
    assert json.loads(command.run("tenants", "list", "--json").stdout) == []

    kill_at(command, database, RESERVING, *arguments("claimed"))
    assert database.column("SELECT key FROM control.tenants WHERE state = 'warm'") == [key]
    command.run("tenants", "create", "No_Slug", "--name", "X", "--plan", "trial", code=1)
    command.run("tenants", "create", "planless", "--name", "X", "--plan", "none", code=1)
    command.run(*arguments("claimed"))
    assert assert_active(database, command, "claimed") == key
    assert (
        "only a tenant that is provisioning"
        in command.run(*arguments("claimed", "--rollback"), code=1).stderr
    )
    command.run(*arguments("second"))  # the pool is empty
    assert assert_active(database, command, "second") != key
    assert database.column("SELECT count(*) FROM control.tenants") == [2]
    assert_nothing_left_over(database)


def test_a_creation_that_was_killed_after_its_invitation_prints_another(
    command: Command, database: Database
) -> None:
    line = arguments("invited", "--admin-email", "ada@invited.example", "--json")
    kill_at(command, database, KEYS, *line)
    kill_at(command, database, AUDITING, *line)  # what makes the tenant active, after the last step
    [key] = database.column("SELECT key FROM control.tenants WHERE slug = 'invited'")
    [unheard] = database.column(f"SELECT token_hash FROM t_{key}.invitations")
    made = json.loads(command.run(*line).stdout)
    assert (made["state"], made["key"]) == ("active", key)
    token = made["invitation"].rpartition("/")[2]
    [heard] = database.column(f"SELECT token_hash FROM t_{key}.invitations")
    assert heard == hashlib.sha256(token.encode()).hexdigest() != unheard
    assert database.column(f"SELECT email FROM t_{key}.users") == ["ada@invited.example"]
    assert_nothing_left_over(database)


def test_a_prepared_tenant_gets_its_administrator_too_and_a_rollback_takes_them_along(
    pooled: tuple[Command, Database],
) -> None:
    command, database = pooled
    command.run("tenants", "warm", "--size", "1")
    line = arguments("warm-invited", "--admin-email", "ada@invited.example", "--json")
    made = json.loads(command.run(*line).stdout)
    assert database.column(f"SELECT count(*) FROM t_{made['key']}.invitations") == [1]
    half = arguments("half-invited", "--admin-email", "ada@invited.example")
    kill_at(command, database, KEYS, *half)
    kill_at(command, database, AUDITING, *half)
    command.run(*arguments("half-invited", "--rollback"))
    assert_nothing_left_over(database)
