"""`dermadetect audit`."""

import getpass
import json
from pathlib import Path

from tests.cli.conftest import Command, command_on
from tests.cli.test_tenants import sql
from tests.fixtures.postgres import PostgresServer


def test_acts_are_listed_and_exported_with_who_did_them(command: Command) -> None:
    slug = "cli-audited"
    command.run("tenants", "create", slug, "--name", "Audited", "--plan", "standard")
    command.run("quotas", "set", slug, "requests", "4711")
    command.run("clients", "add", slug, "audited", "--name", "App", "--redirect-uri", "https://a.example/cb")
    [newest] = json.loads(
        command.run("audit", "list", "--action", "quota.set", "--limit", "1", "--json").stdout
    )
    assert newest["actor"] == f"cli:{getpass.getuser()}"
    assert newest["detail"] == {"metric": "requests", "limit": 4711}
    assert newest["seal"]
    own = ("--tenant", slug, "--action", "client.registered")
    [added, *_] = json.loads(command.run("audit", "list", *own, "--json").stdout)
    assert added["detail"] == {"client_id": "audited", "operator": f"cli:{getpass.getuser()}"}
    lines = command.run("audit", "export", *own).stdout.splitlines()
    assert json.loads(lines[0])["id"] == added["id"]
    assert not command.run("audit", "export", "--since", "2999-01-01").stdout


def test_verify_names_the_log_and_the_seal(postgres: PostgresServer, tmp_path: Path) -> None:
    command = command_on(postgres, "audited", tmp_path)  # whose logs no other test leaves without a seal
    command.run("tenants", "create", "cli-tampered", "--name", "Tampered", "--plan", "standard")
    command.run(
        "clients", "add", "cli-tampered", "app", "--name", "A", "--redirect-uri", "https://a.example/cb"
    )
    schema = "t_" + sql(command, "SELECT key FROM control.tenants WHERE slug = 'cli-tampered'")
    # What the worker does within a second.
    sql(command, f"SET ROLE {schema}", "SELECT audit.seal()")
    noted = command.run("audit", "verify", "--json").stdout
    assert {row["log"]: row["intact"] for row in json.loads(noted)}["cli-tampered"]
    (tmp_path / "heads.json").write_text(noted)
    command.run("audit", "verify", "--against", str(tmp_path / "heads.json"))

    sql(command, f"UPDATE {schema}.audit_events SET action = 'nothing'", "SELECT 1")
    result = command.run("audit", "verify", "--tenant", "cli-tampered", code=1)
    assert "cli-tampered, seal 1: one of its 1 rows was changed" in result.stderr
    assert json.loads(command.run("audit", "verify", "--platform", "--json").stdout)[0]["intact"]

    sql(command, f"DELETE FROM {schema}.audit_events", f"DELETE FROM {schema}.audit_seals", "SELECT 1")
    command.run("audit", "verify", "--tenant", "cli-tampered")
    against = ("--tenant", "cli-tampered", "--against", str(tmp_path / "heads.json"))
    assert "there was a seal 1" in command.run("audit", "verify", *against, code=1).stderr
    command.run("audit", "verify", "--tenant", "cli-tampered", "--platform", code=2)
    (tmp_path / "heads.json").write_text("[1]")
    assert "Not a result of" in command.run("audit", "verify", *against, code=1).stderr
