"""`clients` and `sessions`: what an operator does with them, and what the other side of the secret sees."""

import json
from typing import Any

from tests.cli.conftest import Command

MACHINE = ("--name", "Records", "--scope", "cases:read", "--scope", "cases:create")


def shown(command: Command, acme: str, *arguments: str) -> Any:
    verb, *rest = arguments
    return json.loads(command.run("clients", verb, acme, *rest, "--json").stdout)


def test_a_machines_secret_is_shown_once(command: Command, acme: str) -> None:
    made = shown(command, acme, "add", "records", *MACHINE)
    assert made["client_secret"].startswith("ddc_")
    assert made["scopes"] == ["cases:create", "cases:read"]
    again = shown(command, acme, "add", "records", "--name", "Renamed", "--scope", "cases:read")
    assert "client_secret" not in again
    for verb in (["list"], ["show", "records"]):
        text = json.dumps(shown(command, acme, *verb))
        assert "Renamed" in text
        assert made["client_secret"] not in text


def test_a_machine_has_two_secrets_at_most(command: Command, acme: str) -> None:
    secrets = {shown(command, acme, "add", "rotated", *MACHINE)["client_secret"]}
    for _ in range(3):
        secrets.add(shown(command, acme, "rotate", "rotated")["client_secret"])
    assert len(secrets) == 4
    kept = shown(command, acme, "show", "rotated")["secrets"]
    assert [each["last_used_at"] for each in kept] == [None, None]
    shown(command, acme, "rotate", "rotated", "--at-once")
    assert len(shown(command, acme, "show", "rotated")["secrets"]) == 1


def test_a_client_is_disabled_enabled_and_removed(command: Command, acme: str) -> None:
    shown(command, acme, "add", "passing", *MACHINE)
    for _ in range(2):
        command.run("clients", "disable", acme, "passing")
    stopped = shown(command, acme, "show", "passing")
    assert stopped["disabled_at"]
    assert stopped["secrets"] == []
    assert "client_secret" not in shown(command, acme, "add", "passing", *MACHINE), "adding does not enable"
    assert shown(command, acme, "enable", "passing")["client_secret"]
    assert "client_secret" not in shown(command, acme, "enable", "passing")
    command.run("clients", "remove", acme, "passing")
    assert "client-not-found" not in command.run("clients", "remove", acme, "passing", code=1).stdout


def test_an_app_is_no_machine(command: Command, acme: str) -> None:
    app = ("--name", "App", "--redirect-uri", "https://app.example/cb", "--refresh")
    made = shown(command, acme, "add", "an-app", *app)
    assert (made["kind"], made["refresh"]) == ("app", True)
    assert "Apps have no secret" in command.run("clients", "rotate", acme, "an-app", code=1).stderr
    assert "another kind" in command.run("clients", "add", acme, "an-app", *MACHINE, code=1).stderr
    wrong = [
        (),
        (*app[2:], "--scope", "cases:read"),
        ("--scope", "cases:read", "--refresh"),
        ("--for-patients",),
    ]
    for options in wrong:
        command.run("clients", "add", acme, "other", "--name", "Other", *options, code=2)
    for options in (("--scope", "cases:answer"), ("--redirect-uri", "http://app.example/")):
        command.run("clients", "add", acme, "other", "--name", "Other", *options, code=1)


def test_sessions_of_nobody_are_an_error(command: Command, acme: str) -> None:
    nobody = ("--user", "0198c0de-0000-7000-8000-000000000001")
    for verb in ("list", "revoke"):
        assert "No such user" in command.run("sessions", verb, acme, *nobody, code=1).stderr
    one = ("--session", "0198c0de-0000-7000-8000-000000000002")
    assert "No such sign-in session" in command.run("sessions", "revoke", acme, *nobody, *one, code=1).stderr
    command.run("sessions", "list", acme, "--user", "somebody", code=2)
