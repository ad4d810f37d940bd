"""`doctor` finds what is wrong, and says what to do."""

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from azure.storage.blob import generate_account_sas

from core.clock import utcnow
from reference.idp.config import IdpConfig
from reference.idp.messages import idp_metadata
from tests.cli.conftest import Command
from tests.cli.test_tenants import sql
from tests.fixtures.azurite import API_VERSION
from tests.fixtures.saml import Parties


def found(command: Command, *, code: int = 0, **settings: str | None) -> dict[str, Any]:
    """Findings by name; of several with one name, the wrong one."""
    checks = json.loads(command.run("doctor", "--json", code=code, **settings).stdout)
    return {check["name"]: check for check in sorted(checks, key=lambda check: check["state"] == "wrong")}


def test_a_healthy_installation_is_0(command: Command, acme: str, ai_url: str) -> None:
    checks = found(command, ai_url=ai_url)
    assert {check["state"] for check in checks.values()} == {"ok"}
    assert set(checks) == {
        "master key",
        "gateway login",
        "database server",
        "operator login",
        "migrations",
        "blob store",
        "signed links",
        "AI Service",
        "rate limits",
        "identity providers",
    }
    directory = Path(command.settings["DERMADETECT_BLOB_DIRECTORY"])
    assert not list(directory.rglob("*probe*")), "the probe is gone again"


def test_what_is_not_set_up_and_need_not_be_is_no_fault(command: Command) -> None:
    checks = found(command, admin_database_url=None)
    assert checks["operator login"]["state"] == checks["AI Service"]["state"] == "off"


@pytest.mark.parametrize(
    ("change", "back", "says"),
    [
        ("ALTER ROLE {} INHERIT", "ALTER ROLE {} NOINHERIT", "inherits"),
        ("ALTER ROLE {} CREATEDB", "ALTER ROLE {} NOCREATEDB", "create databases"),
        ("ALTER ROLE {} BYPASSRLS", "ALTER ROLE {} NOBYPASSRLS", "row security"),
        ("GRANT dermadetect_owner TO {}", "REVOKE dermadetect_owner FROM {}", "owner of all schemas"),
        ("GRANT TEMP ON DATABASE cli TO {}", "REVOKE TEMP ON DATABASE cli FROM {}", "temporary tables"),
        (
            "CREATE TABLE public.mine (); ALTER TABLE public.mine OWNER TO {}",
            "DROP TABLE public.mine",
            "owns 1",
        ),
    ],
)
def test_a_gateway_login_that_may_too_much_is_found(
    command: Command, change: str, back: str, says: str
) -> None:
    login = "dermadetect_gateway"
    sql(command, change.format(login), "SELECT 1")
    try:
        check = found(command, code=1)["gateway login"]
        assert says in check["detail"]
        assert check["remedy"]
    finally:
        sql(command, back.format(login), "SELECT 1")
    assert found(command)["gateway login"]["state"] == "ok"


def test_an_account_that_cannot_sign_links_is_told(command: Command, azurite: str) -> None:
    account = dict(part.split("=", 1) for part in azurite.strip(";").split(";"))
    signature = generate_account_sas(
        account["AccountName"],
        account["AccountKey"],
        resource_types="sco",
        permission="rwdlc",
        expiry=utcnow() + timedelta(hours=1),
    )
    checks = found(
        command,
        blob_directory=None,
        azure_connection_string=f"BlobEndpoint={account['BlobEndpoint']};SharedAccessSignature={signature}",
        azure_api_version=API_VERSION,
    )
    assert checks["blob store"]["state"] == "ok"
    assert checks["signed links"]["state"] == "off"


def test_logins_that_were_swapped_are_found(command: Command) -> None:
    gateway, admin = (
        command.settings["DERMADETECT_DATABASE_URL"],
        command.settings["DERMADETECT_ADMIN_DATABASE_URL"],
    )
    checks = found(command, code=1, database_url=admin, admin_database_url=gateway)
    assert checks["gateway login"]["state"] == checks["operator login"]["state"] == "wrong"


def test_a_tenant_that_is_behind_is_found(command: Command, acme: str) -> None:
    told = "UPDATE control.tenants SET schema_revision = '{}' WHERE slug = 'cli-acme'"
    at = sql(command, "SELECT schema_revision FROM control.tenants WHERE slug = 'cli-acme'")
    sql(command, told.format("0000"), "SELECT 1")
    try:
        assert "1 of" in found(command, code=1)["migrations"]["detail"]
    finally:
        sql(command, told.format(at), "SELECT 1")


def test_every_fault_is_told_at_once(command: Command) -> None:
    checks = found(
        command,
        code=1,
        database_url="postgresql://nobody:secret@127.0.0.1:1/nothing",
        master_key=None,
        blob_directory="/dev/null/nowhere",
        ai_url="http://127.0.0.1:1",
        limits_storage="redis://127.0.0.1:1/0",
    )
    wrong = {name for name, check in checks.items() if check["state"] == "wrong"}
    assert wrong == {"master key", "gateway login", "migrations", "blob store", "AI Service", "rate limits"}
    assert "secret" not in json.dumps(checks)


def test_a_certificate_that_ends_is_told_before_it_keeps_people_out(
    command: Command, acme: str, tmp_path: Path
) -> None:
    ended = Parties.build().expired_certificate()
    body = "".join(line for line in ended.splitlines() if "-----" not in line)
    xml = idp_metadata(IdpConfig("https://idp.ending.example")).decode()
    file = tmp_path / "idp.xml"
    file.write_text(re.sub(r"(X509Certificate>)[^<]+", rf"\g<1>{body}", xml))
    connection = ("sso", "saml", "set", acme, "--connection", "ending")
    command.run(*connection, "--metadata", str(file), "--role", "a=physician")
    try:
        check = found(command)["identity providers"]
        assert check["state"] == "warning"
        assert check["detail"].startswith(f"{acme}, ending: certificate 1 of 1 ended on ")
        assert check["remedy"]
        assert "All is well" not in command.run("doctor").stderr
    finally:
        command.run("sso", "saml", "remove", acme, "--connection", "ending")
    assert found(command)["identity providers"]["state"] == "ok"
