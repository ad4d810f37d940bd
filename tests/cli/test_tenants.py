"""`tenants`, `quotas`, `clients` and `migrate` on a real database."""

import asyncio
import json
from typing import Any

import asyncpg

from tests.cli.conftest import Command


def sql(command: Command, *statements: str) -> Any:
    """What the last statement gives, as the superuser."""

    async def work() -> Any:
        connection = await asyncpg.connect(command.superuser_url)
        try:
            for statement in statements[:-1]:
                await connection.execute(statement)
            return await connection.fetchval(statements[-1])
        finally:
            await connection.close()

    return asyncio.run(work())


def row(command: Command, slug: str) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(command.run("tenants", "show", slug, "--json").stdout)
    return shown


def test_creating_prints_what_the_tenant_is_called_everywhere(command: Command) -> None:
    arguments = ("tenants", "create", "initech", "--name", "Initech", "--plan", "standard")
    dry = command.run(*arguments, "--dry-run", "--json")
    assert [each["step"] for each in json.loads(dry.stdout)] == [
        "reserved",
        "schema",
        "container",
        "keys",
        "active",
    ]
    assert "tenant-not-found" not in dry.stderr
    command.run("tenants", "show", "initech", code=1)  # the dry run made nothing

    made = command.run(*arguments, "--json")
    tenant = json.loads(made.stdout)
    assert tenant["state"] == "active"
    assert tenant["host"] == "initech.localhost"
    assert (tenant["schema"], tenant["container"]) == (f"t_{tenant['key']}", f"t-{tenant['key']}")
    assert all(f"✓ {step}" in made.stderr for step in ("schema", "container", "keys"))
    assert "dermadetect sso saml set initech" in made.stderr
    assert sql(command, f"SELECT count(*) FROM {tenant['schema']}.cases") == 0

    assert json.loads(command.run(*arguments, "--json").stdout) == tenant, "again: nothing new"


def test_an_interrupted_creation_is_finished_by_the_same_command(command: Command) -> None:
    arguments = ("tenants", "create", "hooli", "--name", "Hooli", "--plan", "standard")
    # The schema's step fails half-way: the role is there, and cannot be granted to a login that is not.
    nobody = command.settings["DERMADETECT_DATABASE_URL"].replace("dermadetect_gateway", "nobody")
    failed = command.run(*arguments, code=1, database_url=nobody)
    assert 'role "nobody" does not exist' in failed.stderr
    assert row(command, "hooli")["state"] == "provisioning"
    command.run(*arguments)
    assert row(command, "hooli")["state"] == "active"


def test_a_slug_that_cannot_be_used_is_refused(command: Command, acme: str) -> None:
    bad = command.run("tenants", "create", "No_Slug", "--name", "X", "--plan", "standard", code=1)
    assert bad.stderr.startswith("Not a usable slug: ")
    taken = command.run("tenants", "create", acme, "--name", "Other", "--plan", "standard", code=1)
    assert taken.stderr.startswith("The slug is in use: ")
    command.run("tenants", "create", "planless", "--name", "X", "--plan", "gold-plated", code=1)


def test_suspending_and_resuming(command: Command) -> None:
    command.run("tenants", "create", "umbrella", "--name", "Umbrella", "--plan", "standard")
    command.run("tenants", "suspend", "umbrella", "--reason", "unpaid")
    assert row(command, "umbrella")["suspended_reason"] == "unpaid"
    listed = json.loads(command.run("tenants", "list", "--state", "suspended", "--json").stdout)
    assert [each["slug"] for each in listed] == ["umbrella"]
    command.run("tenants", "resume", "umbrella")
    assert row(command, "umbrella")["state"] == "active"
    assert "suspended_reason" not in row(command, "umbrella")


def test_what_can_be_changed_of_a_tenant(command: Command) -> None:
    command.run("tenants", "create", "tyrell", "--name", "Tyrel", "--plan", "standard")
    before = row(command, "tyrell")
    assert (before["ai_model"], before["image_links"]) == (None, "streamed")
    command.run("tenants", "update", before["key"], "--name", "Tyrell", "--ai-model", "2.4.1")
    command.run("tenants", "update", "tyrell", "--image-links", "signed")
    changed = {"name": "Tyrell", "ai_model": "2.4.1", "image_links": "signed"}
    assert row(command, "tyrell") == before | changed
    command.run("tenants", "update", "tyrell", "--ai-model", "")
    command.run("tenants", "update", "tyrell", "--ai-model", "x" * 129, code=2)
    assert row(command, "tyrell")["ai_model"] is None
    for wrong in ([], ["--image-links", "shared"], ["--name", " "]):
        command.run("tenants", "update", "tyrell", *wrong, code=2)


def test_tables_are_for_people_and_hold_the_same(command: Command, acme: str) -> None:
    tenant, table = row(command, acme), command.run("tenants", "list").stdout
    for key in ("slug", "name", "state", "plan", "host", "schema", "container"):
        assert tenant[key] in table
    unknown = command.run("tenants", "show", "nobody", code=1)
    assert unknown.stderr.startswith("No such tenant: ")
    assert unknown.stdout == ""


def test_quotas_are_overridden_and_returned_to_the_plan(command: Command, acme: str) -> None:
    def requests() -> dict[str, Any]:
        shown = json.loads(command.run("quotas", "show", acme, "--json").stdout)
        return next(each for each in shown if each["metric"] == "requests")

    planned = requests()
    assert planned["source"] == "plan"
    command.run("quotas", "set", acme, "requests", "4711")
    assert requests() == planned | {"limit": 4711, "source": "override"}
    command.run("quotas", "set", acme, "requests", "plan")
    assert requests() == planned
    command.run("quotas", "set", acme, "patience", "1", code=1)


def test_what_is_stored_is_shown_beside_its_quota(command: Command, acme: str) -> None:
    schema = row(command, acme)["schema"]
    sql(command, f"UPDATE {schema}.storage_use SET used = 123456")
    shown = json.loads(command.run("quotas", "show", acme, "--json").stdout)
    assert {each["metric"]: each["used"] for each in shown}["storage_bytes"] == 123456


def test_client_apps_are_registered_and_listed(command: Command, acme: str) -> None:
    uris = ("https://tablet.example/cb", "com.example.tablet:/cb")
    options = [part for uri in uris for part in ("--redirect-uri", uri)]
    command.run("clients", "add", acme, "tablet", "--name", "Tablet", *options)
    listed = {
        each["client_id"]: each for each in json.loads(command.run("clients", "list", acme, "--json").stdout)
    }
    tablet = {"client_id": "tablet", "name": "Tablet", "kind": "app", "redirect_uris": list(uris)}
    assert listed["tablet"].items() >= tablet.items()
    refused = command.run(
        "clients", "add", acme, "x1", "--name", "X", "--redirect-uri", "http://x.example/", code=1
    )
    assert refused.stderr.startswith("Not a usable redirect URI: ")


def test_a_tenant_that_cannot_be_migrated_is_3_and_is_named(command: Command, acme: str) -> None:
    plan = json.loads(command.run("migrate", "--plan", "--json").stdout)
    assert (plan["tenants"], plan["revisions"]) == ({}, [])
    # Another release's revision: this one has nothing to go on from there.
    sql(command, "UPDATE control.tenants SET schema_revision = '9999' WHERE slug = 'cli-acme'")
    try:
        result = command.run("migrate", "--json", code=3)
        assert json.loads(result.stdout)["left"] == {"cli-acme": "9999"}
        assert "cli-acme was not touched: " in result.stderr
    finally:
        sql(command, "UPDATE control.tenants SET schema_revision = '0001' WHERE slug = 'cli-acme'")
    assert json.loads(command.run("migrate", "--json").stdout)["left"] == {}


def test_migrations_are_paused_and_resumed(command: Command, acme: str) -> None:
    def paused() -> Any:
        return json.loads(command.run("migrate", "status", "--json").stdout)["paused"]

    command.run("migrate", "pause", code=2)
    command.run("migrate", "pause", "--reason", "clinics are open")
    assert paused() == "clinics are open"
    command.run("migrate")  # nobody is behind: nothing to stop
    command.run("migrate", "resume")
    assert paused() is None
    acts = (
        "SELECT string_agg(action, ' ' ORDER BY created_at) FROM control.audit_events WHERE tenant_id IS NULL"
    )
    assert sql(command, acts) == "migration.paused migration.resumed"
    assert json.loads(command.run("migrate", "retry", acme, "--json").stdout) == {"released": []}
    command.run("migrate", "retry", "nobody", code=1)


def test_drift_is_1_and_is_named(command: Command, acme: str) -> None:
    schema = row(command, acme)["schema"]
    command.run("tenants", "drift", "--tenant", acme)
    sql(command, f"ALTER TABLE {schema}.pools ADD nickname text")
    try:
        difference = {
            "tenant": acme,
            "kind": "column",
            "name": "pools.nickname",
            "expected": None,
            "found": "text",
        }
        found = json.loads(command.run("tenants", "drift", "--tenant", acme, "--json", code=1).stdout)
        assert found["differences"] == [difference]
        assert "pools.nickname" in command.run("tenants", "drift", "--tenant", acme, code=1).stdout
    finally:
        sql(command, f"ALTER TABLE {schema}.pools DROP nickname")
    command.run("tenants", "drift", "--tenant", "nobody", code=1)
