"""`scim token`: made once, listed without secrets, revoked for good."""

import json

from tests.cli.conftest import Command


def test_a_token_is_made_shown_once_and_revoked(command: Command, acme: str) -> None:
    made = json.loads(command.run("scim", "token", "create", acme, "--name", "entra", "--json").stdout)
    assert made["token"].startswith("dds_")
    listed = command.run("scim", "token", "list", acme, "--json").stdout
    assert made["token"] not in listed
    (row,) = [each for each in json.loads(listed) if each["name"] == "entra"]
    assert (row["last_used_at"], row["revoked_at"]) == (None, None)
    for _ in range(2):
        command.run("scim", "token", "revoke", acme, "entra")
    (row,) = json.loads(command.run("scim", "token", "list", acme, "--json").stdout)
    assert row["revoked_at"]


def test_what_cannot_be_done_is_said(command: Command, acme: str) -> None:
    command.run("scim", "token", "create", acme, "--name", "once")
    for arguments in (
        ("create", acme, "--name", "once"),
        ("create", acme, "--name", "No Name"),
        ("create", acme, "--name", "for-ever", "--days", "10000"),
        ("revoke", acme, "nothing"),
    ):
        assert "SCIM token" in command.run("scim", "token", *arguments, code=1).stderr
