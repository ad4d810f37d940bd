"""`users`: people from the command line, and `tenants create --admin-email`."""

import hashlib
import json
import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.cli.conftest import Command
from tests.cli.test_provisioning_crashes import Database

ADDRESS = "ada@cli.example"


@pytest.fixture(scope="module")
def tenant(command: Command) -> str:
    command.run("tenants", "create", "cli-people", "--name", "People Clinic", "--plan", "trial")
    return "cli-people"


def said(command: Command, *line: str) -> Any:
    return json.loads(command.run("users", *line, "--json").stdout)


def test_somebody_is_invited_and_looked_after(command: Command, tenant: str) -> None:
    made = said(
        command, "invite", tenant, ADDRESS, "--role", "tenant_admin", "--role", "auditor", "--name", "Ada"
    )
    assert made["url"].startswith("http://cli-people.localhost:8000/auth/invitation/")
    again = said(command, "invite", tenant, ADDRESS, "--role", "tenant_admin")
    assert (again["user_id"], again["url"] == made["url"]) == (made["user_id"], False)
    [listed] = said(command, "list", tenant)
    assert (listed["id"], listed["email"], listed["roles"]) == (made["user_id"], ADDRESS, ["tenant_admin"])
    assert said(command, "show", tenant, made["user_id"]) == said(command, "show", tenant, ADDRESS.upper())

    changed = said(command, "roles", tenant, ADDRESS, "--role", "physician")
    # They have never signed in: no administrator was lost.
    assert changed["granted_roles"] == ["physician"]
    assert said(command, "deactivate", tenant, ADDRESS)["active"] is False
    assert said(command, "deactivate", tenant, ADDRESS)["active"] is False
    assert said(command, "activate", tenant, ADDRESS)["active"] is True
    events = json.loads(command.run("audit", "list", "--tenant", tenant, "--json").stdout)
    acts = [event for event in events if event["action"].startswith("user.")]
    assert {event["action"] for event in acts} == {
        "user.invited", "user.roles", "user.deactivated", "user.activated"
    }  # fmt: skip
    assert all(event["detail"]["operator"].startswith("cli:") for event in acts)


def test_mistakes_are_named(command: Command, tenant: str) -> None:
    assert "email" in command.run("users", "invite", tenant, "no-address", "--role", "auditor", code=2).stderr
    unknown = command.run("users", "invite", tenant, "x@cli.example", "--role", "emperor", code=1)
    assert unknown.stderr.startswith("No such role: ")
    assert command.run("users", "show", tenant, "nobody@cli.example", code=1).stderr.startswith(
        "No such user: "
    )
    assert command.run("users", "show", tenant, "neither", code=1).stderr.startswith("Not a user: ")


def test_seats_hold_for_operators_too_and_quotas_show_them(command: Command) -> None:
    command.run("tenants", "create", "cli-seats", "--name", "Seats", "--plan", "trial")
    command.run("quotas", "set", "cli-seats", "seats", "1")
    said(command, "invite", "cli-seats", "one@cli.example", "--role", "auditor")
    refused = command.run("users", "invite", "cli-seats", "two@cli.example", "--role", "auditor", code=1)
    assert refused.stderr.startswith("The plan's quota is used up: ")
    quotas = json.loads(command.run("quotas", "show", "cli-seats", "--json").stdout)
    assert next(each for each in quotas if each["metric"] == "seats")["used"] == 1


def test_a_local_administrator_is_made_reset_and_removed(command: Command, tenant: str) -> None:
    made = said(command, "break-glass", tenant)
    assert made["url"] == "http://cli-people.localhost:8000/auth/local"
    assert len(made["password"]) == 24
    uri = urlsplit(made["otpauth"])
    assert (uri.scheme, uri.netloc, uri.path) == ("otpauth", "totp", "/People%20Clinic:administrator")
    assert len(parse_qs(uri.query)["secret"][0]) == 32
    assert "--reset" in command.run("users", "break-glass", tenant, code=1).stderr
    reset = said(command, "break-glass", tenant, "--reset")
    assert reset["password"] != made["password"]
    assert reset["otpauth"] != made["otpauth"]
    assert command.run("users", "break-glass", tenant, "--reset", "--name", "x", code=1).stderr.startswith(
        "No such local administrator: "
    )
    command.run("users", "break-glass", tenant, "--reset", "--remove", code=2)
    assert said(command, "break-glass", tenant, "--remove") == {"name": "administrator", "removed": True}
    command.run("users", "break-glass", tenant, "--remove", code=1)
    shown = command.run("audit", "list", "--tenant", tenant, "--json").stdout
    for secret in (made["password"], reset["password"], parse_qs(uri.query)["secret"][0]):
        assert secret not in shown
    assert "local-administrator.reset" in shown


def create(slug: str) -> tuple[str, ...]:
    return (
        *("tenants", "create", slug, "--name", slug.title(), "--plan", "trial"),
        *("--admin-email", ADDRESS, "--json"),
    )


def token_hash(made: dict[str, Any]) -> str:
    match = re.fullmatch(
        rf"http://{made['slug']}.localhost:8000/auth/invitation/([\w-]{{43}})", made["invitation"]
    )
    assert match
    return hashlib.sha256(match[1].encode()).hexdigest()


def test_a_tenant_is_created_with_its_administrators_invitation(command: Command) -> None:
    dry = json.loads(command.run(*create("with-admin"), "--dry-run").stdout)
    assert [each["step"] for each in dry][-2:] == ["administrator", "active"]
    made = json.loads(command.run(*create("with-admin")).stdout)
    assert (made["state"], made["administrator"]) == ("active", ADDRESS)
    again = json.loads(command.run(*create("with-admin")).stdout)
    with Database(command.superuser_url) as database:
        schema = f"t_{made['key']}"
        assert database.column(f"SELECT token_hash FROM {schema}.invitations") == [token_hash(again)]
        assert token_hash(made) != token_hash(again)
        came = (
            f"UPDATE {schema}.users SET connection_id = gen_random_uuid(), external_id = 'ada' RETURNING id"
        )
        assert len(database.column(came)) == 1
    result = command.run(*create("with-admin"))
    assert json.loads(result.stdout)["invitation"] is None
    assert "known already" in result.stderr
    without = command.run(*(part for part in create("with-admin") if part not in ("--admin-email", ADDRESS)))
    assert "invitation" not in json.loads(without.stdout)
    bad = ("tenants", "create", "bad-admin", "--name", "X", "--plan", "trial", "--admin-email", "nobody")
    command.run(*bad, code=2)
    command.run("tenants", "show", "bad-admin", code=1)


def test_commands_say_nothing_secret_twice(command: Command, tenant: str) -> None:
    made = said(command, "invite", tenant, "once@cli.example", "--role", "auditor")
    token = made["url"].rpartition("/")[2]
    everything = command.run("users", "list", tenant, "--json").stdout
    everything += command.run("audit", "list", "--tenant", tenant, "--json").stdout
    assert token not in everything
