"""Hosts of a tenant: a new slug, and domains that it has proven its own in a real DNS."""

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.cli.conftest import Command, answer
from tests.cli.test_tenants import row
from tests.fixtures.dns import name_server
from tests.fixtures.servers import free_port

JWKS = "/.well-known/jwks.json"


@pytest.fixture
def gateway(command: Command) -> Iterator[httpx.Client]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with (
        command.running("serve", "--port", str(port)) as process,
        httpx.Client(base_url=url, trust_env=False) as client,
    ):
        answer(f"{url}/healthy", process)
        yield client


def within_a_second(client: httpx.Client, host: str, status: int, path: str = JWKS) -> httpx.Response:
    began = asked = time.monotonic()
    while (got := client.get(path, headers={"Host": host})).status_code != status:
        assert asked - began < 1, f"{host} answers {got.status_code}, not {status}"
        time.sleep(0.02)
        asked = time.monotonic()
    return got


def domains(command: Command, slug: str) -> dict[str, str]:
    listed = json.loads(command.run("tenants", "domains", "list", slug, "--json").stdout)
    return {each["host"]: each["kind"] for each in listed}


def test_a_renamed_tenant_answers_at_both_hosts_and_signs_in_at_the_first(
    command: Command, gateway: httpx.Client
) -> None:
    command.run("tenants", "create", "oldname", "--name", "Name", "--plan", "trial")
    before = row(command, "oldname")
    keys = within_a_second(gateway, "oldname.localhost", 200).json()
    renamed = json.loads(command.run("tenants", "rename", "oldname", "newname", "--json").stdout)
    assert renamed == before | {"slug": "newname"}, "home host, schema and container stay"
    assert within_a_second(gateway, "newname.localhost", 200).json() == keys
    assert within_a_second(gateway, "oldname.localhost", 200).json() == keys
    metadata = gateway.get(
        "/.well-known/oauth-authorization-server", headers={"Host": "newname.localhost"}
    ).json()
    assert metadata["issuer"] == "http://oldname.localhost:8000"
    path = "/auth/authorize?client_id=app&redirect_uri=https%3A%2F%2Fapp.example%2F&state=a%20b"
    moved = within_a_second(gateway, "newname.localhost", 303, path)
    assert moved.headers["location"] == f"http://oldname.localhost:8000{path}"

    for slug in ("oldname", "newname"):
        taken = command.run("tenants", "create", slug, "--name", "Other", "--plan", "trial", code=1)
        assert taken.stderr.startswith("The slug is in use: ")
    command.run("tenants", "create", "bystander", "--name", "Bystander", "--plan", "trial")
    command.run("tenants", "rename", "bystander", "oldname", code=1)
    command.run("tenants", "rename", "bystander", "Bad_Slug", code=1)
    command.run("tenants", "rename", "newname", "oldname")  # its own former slug
    assert domains(command, "oldname") == {"oldname.localhost": "home", "newname.localhost": "alias"}


def test_a_domain_is_served_once_it_is_proven_and_never_handed_on(
    command: Command, gateway: httpx.Client
) -> None:
    for slug in ("owner", "thief"):
        command.run("tenants", "create", slug, "--name", slug.title(), "--plan", "trial")
    texts: dict[str, str] = {}
    with name_server(texts) as server:

        def run(verb: str, slug: str, code: int = 0, domain: str = "Hautärzte.Example.") -> Any:
            arguments = ("tenants", "domains", verb, slug, domain, *([] if verb == "remove" else ["--json"]))
            return command.run(*arguments, code=code, dns_resolvers=server)

        host = "xn--hautrzte-3za.example"
        claimed = json.loads(run("add", "owner").stdout)
        assert (claimed["host"], claimed["kind"]) == (host, "claimed")
        stolen = json.loads(run("add", "thief").stdout)
        assert stolen["challenge"] != claimed["challenge"]
        assert run("verify", "owner", code=1).stderr.startswith(
            "The domain is not proven to be the tenant's: "
        )
        assert gateway.get(JWKS, headers={"Host": host}).status_code == 404

        texts[claimed["record"]] = claimed["challenge"]
        run("verify", "thief", code=1)  # the record names the owner's challenge
        assert json.loads(run("verify", "owner").stdout)["kind"] == "custom"
        within_a_second(gateway, host, 200)
        assert domains(command, "owner") == {"owner.localhost": "home", host: "custom"}
        run("verify", "owner")

        texts[stolen["record"]] = stolen["challenge"]
        assert run("verify", "thief", code=1).stderr.startswith("The domain belongs to another tenant: ")
        run("remove", "owner")
        within_a_second(gateway, host, 404)
        assert run("add", "thief", code=1).stderr.startswith("The domain belongs to another tenant: ")
        run("remove", "thief")
        run("remove", "thief", code=1)
        texts[claimed["record"]] = json.loads(run("add", "owner").stdout)["challenge"]
        run("verify", "owner")
        within_a_second(gateway, host, 200)

        for bad in ("x.localhost", "localhost", "192.0.2.1", "no spaces.example", "a..example", "example"):
            run("add", "owner", code=1, domain=bad)
    command.run("tenants", "domains", "add", "owner", "away.example")
    away = command.run(
        "tenants", "domains", "verify", "owner", "away.example", code=1, dns_resolvers="127.0.0.1:9"
    )
    assert away.stderr.startswith("The DNS resolver does not answer: ")
