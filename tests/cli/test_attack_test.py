"""`sso attack-test`: a tenant's own configuration under the whole attack list; `sso refusals` and `sso saml test`, which
explain."""

import asyncio
import base64
import contextlib
import json
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest

from auth.connections.errors import SignInRefused
from auth.connections.service import refusals_recorded
from core.clock import utcnow
from core.database import Database
from core.telemetry import bind
from reference.attacks.corpus import ATTACKS
from reference.idp.config import IdpConfig, ServiceProvider, SigningKey, User
from reference.idp.messages import idp_metadata
from reference.idp.response import Answer, build_response
from tenants.directory.service import find_tenant
from tests.cli.conftest import Command

ENTITY = "http://attacked.localhost:8000/auth/saml/metadata"
ACS = "http://attacked.localhost:8000/auth/saml/acs"
IDP = IdpConfig("https://idp.example")


@pytest.fixture(scope="module")
def tenant(command: Command, tmp_path_factory: pytest.TempPathFactory) -> str:
    command.run("tenants", "create", "attacked", "--name", "Attacked Clinic", "--plan", "standard")
    file = tmp_path_factory.mktemp("idp") / "idp.xml"
    file.write_bytes(idp_metadata(IDP))
    command.run("sso", "saml", "set", "attacked", "--metadata", str(file), "--role", "doctors=physician")
    command.run(
        "clients", "add", "attacked", "app", "--name", "App", "--redirect-uri", "https://app.example/"
    )
    return "attacked"


def kept(command: Command, schema: str) -> Sequence[object]:
    """How many rows each table has that a sign-in writes, and the certificates that connections trust."""
    tables = ("users", "sessions", "login_requests", "used_assertions", "oauth_clients", "audit_events")
    counts = ", ".join(f"(SELECT count(*) FROM {schema}.{table})" for table in tables)

    async def read() -> Sequence[object]:
        connection = await asyncpg.connect(command.superuser_url)
        try:
            return await connection.fetch(f"SELECT certificates, {counts} FROM control.saml_connections")
        finally:
            await connection.close()

    return asyncio.run(read())


def test_all_attacks_are_refused_and_nothing_is_left_behind(command: Command, tenant: str) -> None:
    schema = json.loads(command.run("tenants", "show", tenant, "--json").stdout)["schema"]
    before = kept(command, schema)
    result = command.run("sso", "attack-test", tenant, "--json")

    rows = {row["attack"]: row for row in json.loads(result.stdout)}
    assert {"honest", "honest-encrypted", "replay-parallel", *(a.name for a in ATTACKS)} <= set(rows)
    assert not {name: row for name, row in rows.items() if row["outcome"] != row["expected"]}
    assert f"{len(rows) - 2} of {len(rows) - 2} attacks were refused." in result.stderr
    assert kept(command, schema) == before
    audited = json.loads(command.run("audit", "list", "--action", "sso.attack-test", "--json").stdout)
    assert audited[0]["detail"]["passed"] is True


def test_a_refused_sign_in_is_found_by_its_reference_and_explained(command: Command, tenant: str) -> None:
    reference = "0198c2f4-5d1e-7a30-9c1f-2b6f0e4d7a11"

    async def refuse() -> None:
        database = Database(command.settings["DERMADETECT_DATABASE_URL"])
        async with database.control() as control:
            scope = (await find_tenant(control, tenant)).scope
        bind(reference)
        with contextlib.suppress(SignInRefused):
            async with refusals_recorded(database, scope):
                raise SignInRefused("saml.audience")
        await database.close()

    asyncio.run(refuse())
    for arguments in ((), ("--reference", reference), ("--reference", "7A11")):
        row = json.loads(command.run("sso", "refusals", tenant, *arguments, "--json").stdout)[0]
        assert (row["reference"], row["check"]) == (reference, "saml.audience")
        assert "meant for another application" in row["meaning"]
    shown = command.run("sso", "saml", "test", tenant, "--reference", "7A11", "--json", code=1)
    assert "saml.audience: The response is meant for another" in json.loads(shown.stdout)[-1]["detail"]
    for unknown in ("0198c2f4", "%"):
        assert (
            "gateway's log" in command.run("sso", "refusals", tenant, "--reference", unknown, code=1).stderr
        )


def captured(user: User, key: SigningKey | None = None) -> bytes:
    """A response as another vendor would have sent it a month ago, and somebody found it in a log."""
    answer = Answer(
        "https://idp.example/metadata",
        ServiceProvider(ENTITY, ACS),
        user,
        "_an-old-request",
        issued_at=utcnow() - timedelta(days=30),
    )
    xml = build_response(answer, key or SigningKey.generate(), sign="response")
    if key:
        return base64.encodebytes(xml)
    return base64.encodebytes(xml.replace(b"saml:", b"s2:").replace(b":saml=", b":s2="))


def test_a_captured_response_is_attacked_as_the_provider_would_send_it(
    command: Command, tenant: str, tmp_path: Path
) -> None:
    file = tmp_path / "captured.b64"
    file.write_bytes(captured(User("u-1", "ada@attacked.example", "Ada", ("doctors",))))
    rows = json.loads(
        command.run("sso", "attack-test", tenant, "--from-response", str(file), "--json").stdout
    )
    assert all(row["passed"] for row in rows)
    assert len(rows) > len(ATTACKS)


def test_where_the_honest_response_is_refused_nothing_is_proven(
    command: Command, tenant: str, tmp_path: Path
) -> None:
    file = tmp_path / "captured.b64"
    file.write_bytes(captured(User("u-1", "ada@attacked.example", "Ada", ("gardeners",))))
    result = command.run("sso", "attack-test", tenant, "--from-response", str(file), code=1)
    assert "An honest response was refused: login.no-role: None of the person's groups" in result.stderr
    assert "0 of 0 attacks" in result.stderr

    file.write_bytes(b"no response at all")
    assert (
        "could not be read"
        in command.run("sso", "attack-test", tenant, "--from-response", str(file), code=1).stderr
    )
    command.run("sso", "attack-test", tenant, "--connection", "other", code=1)


def test_a_captured_response_is_explained(command: Command, tenant: str, tmp_path: Path) -> None:
    """As of the moment at which it was made, a month ago: what is wrong with it, not that it is old."""
    file = tmp_path / "captured"

    def findings(response: bytes, code: int) -> dict[str, tuple[str, str]]:
        file.write_bytes(response)
        said = command.run("sso", "saml", "test", tenant, "--from-response", str(file), "--json", code=code)
        return {each["name"]: (each["state"], each["detail"]) for each in json.loads(said.stdout)}

    doctor = User("u-1", "ada@attacked.example", "Ada", ("doctors",))
    good = captured(doctor, IDP.key)
    for response in (good, base64.b64decode(good)):
        found = findings(response, 0)
        assert found["person"] == ("ok", "It names u-1.")
        assert found["roles"] == ("ok", "These give physician.")
    foreign = findings(captured(doctor, SigningKey.generate()), 1)
    assert foreign["response"][0] == "wrong"
    assert foreign["response"][1].startswith("saml.invalid-signature: No certificate of this connection")
    gardener = findings(captured(User("u-2", "", "Bo", ("gardeners",)), IDP.key), 1)
    assert gardener["groups"] == ("ok", "It has gardeners.")
    assert gardener["roles"][1].startswith("login.no-role: ")
    for broken, check in ((b"no response", "saml.base64"), (b"<a/>", "saml.")):
        assert findings(broken, 1)["response"][1].startswith(check)
