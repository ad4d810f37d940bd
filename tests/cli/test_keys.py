"""`keys`: a tenant's keys, and a master key that is replaced while everything goes on."""

import base64
import json
import os
import re
import signal
from typing import Any

import pytest

from tests.cli.conftest import Command
from tests.cli.test_tenants import sql

SLUG = "cli-keys"


@pytest.fixture(scope="module")
def tenant(command: Command) -> str:
    command.run("tenants", "create", SLUG, "--name", "Keys", "--plan", "standard")
    return SLUG


def keys(command: Command, *arguments: str, **settings: Any) -> Any:
    return json.loads(command.run("keys", *arguments, "--json", **settings).stdout)


def states(rows: list[dict[str, Any]], purpose: str) -> list[str]:
    return [row["state"] for row in rows if row["purpose"] == purpose]


def test_a_tenants_keys_are_listed_rotated_and_retired(command: Command, tenant: str) -> None:
    before = keys(command, "list", tenant)
    assert [(row["purpose"], row["state"], row["age_days"]) for row in before] == [
        ("data", "active", 0),
        ("saml", "active", 0),
        ("token", "active", 0),
    ]
    rotated = keys(command, "rotate", tenant)
    assert states(rotated, "token") == ["next", "active"]
    again = command.run("keys", "rotate", tenant, code=1)
    assert again.stderr.startswith("The key is being rotated already: ")
    new, old = (row["id"] for row in rotated if row["purpose"] == "token")
    assert keys(command, "show", tenant, new)["public"]["kid"] == new
    assert states(keys(command, "retire", tenant, old), "token") == ["active", "retired"]

    result = command.run("keys", "rotate", tenant, "--purpose", "saml", "--use-after", "14d", "--json")
    saml = json.loads(result.stdout)
    assert states(saml, "saml") == ["next", "active"]
    assert "sso saml show" in result.stderr
    certificate = next(row["id"] for row in saml if row["state"] == "next")
    assert "BEGIN CERTIFICATE" in keys(command, "show", tenant, certificate)["public"]
    assert states(keys(command, "rotate", tenant, "--revoke-now"), "token") == [
        "active",
        "retired",
        "retired",
    ]

    command.run("keys", "rotate", tenant, "--retire-after", "soon", code=2)
    command.run("keys", "rotate", tenant, "--revoke-now", "--use-after", "1h", code=2)
    assert "proof" not in command.run("keys", "show", tenant, certificate).stdout
    log = sql(
        command, "SELECT string_agg(action, ' ' ORDER BY id) FROM control.audit_events WHERE action ^@ 'key.'"
    )
    assert log == "key.rotated key.retired key.rotated key.revoked"


def wrapped(command: Command) -> dict[str, int]:
    counted = "SELECT json_object_agg(kek_id, n) FROM (SELECT kek_id, count(*) AS n FROM control.tenant_keys GROUP BY 1) k"
    found: dict[str, int] = json.loads(sql(command, counted))
    return found


def test_the_master_key_is_replaced_though_the_command_is_killed(command: Command, tenant: str) -> None:
    old = command.settings["DERMADETECT_MASTER_KEY"]
    new = base64.b64encode(os.urandom(32)).decode()
    both: dict[str, Any] = {"master_key": new, "master_key_previous": old}
    total = sum(wrapped(command).values())
    (former,) = wrapped(command)

    planned = keys(command, "rewrap", "--dry-run", **both)
    assert planned["left"] >= total
    assert planned["done"] == 0
    assert wrapped(command) == {former: total}

    with command.running("keys", "rewrap", "--batch", "1", **both) as process:
        assert process.stderr is not None
        for _ in range(3):
            assert re.fullmatch(r"\d+ left\n", process.stderr.readline())
        process.send_signal(signal.SIGKILL)
        process.wait()
    halfway = wrapped(command)
    assert halfway[former] < total
    assert halfway[planned["to"]] > 0
    # Both are known, so everything goes on: keys are made, and those of either master key open.
    command.run("keys", "rotate", tenant, "--purpose", "data", **both)

    done = keys(command, "rewrap", **both)
    assert (done["left"], done["locked"], done["broken"]) == (0, {}, [])
    assert set(wrapped(command)) == {planned["to"]}
    assert keys(command, "rewrap", master_key=new)["done"] == 0
    command.run("keys", "rotate", tenant, "--purpose", "data", master_key=new)

    # Without the right one nothing is done, and it is said.
    failed = command.run("keys", "rewrap", master_key=old, code=3)
    assert "keys stay locked" in failed.stderr
    assert new not in failed.output
    keys(command, "rewrap", master_key=old, master_key_previous=new)
    assert set(wrapped(command)) == {former}


def test_a_key_that_does_not_open_holds_up_no_other(command: Command, tenant: str) -> None:
    new = base64.b64encode(os.urandom(32)).decode()
    old = command.settings["DERMADETECT_MASTER_KEY"]
    # A wrapped key moved to another row belongs there no more than anywhere else.
    victim = f"purpose = 'data' AND tenant_id = (SELECT id FROM control.tenants WHERE slug = '{SLUG}')"
    kept = sql(
        command,
        f"SELECT id || ' ' || encode(private_wrapped, 'hex') FROM control.tenant_keys WHERE {victim} LIMIT 1",
    )
    key_id, former = str(kept).split()
    other = "(SELECT private_wrapped FROM control.tenant_keys WHERE purpose = 'token' LIMIT 1)"
    put = f"UPDATE control.tenant_keys SET private_wrapped = {{}} WHERE id = '{key_id}'"
    sql(command, put.format(other), "SELECT 1")
    try:
        failed = command.run("keys", "rewrap", "--json", master_key=new, master_key_previous=old, code=3)
        outcome = json.loads(failed.stdout)
        assert len(outcome["broken"]) == 1
        assert key_id in outcome["broken"][0]
        assert (outcome["left"], sum(wrapped(command).values()) - 1) == (0, wrapped(command)[outcome["to"]])
    finally:
        sql(command, put.format(f"decode('{former}', 'hex')"), "SELECT 1")
        command.run("keys", "rewrap", master_key=old, master_key_previous=new)
