"""`sso oidc` and `sso list`: an OpenID provider named, examined and forgotten."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Command
from tests.fixtures.openid import CLIENT_ID, CLIENT_SECRET, ScriptedProvider, ScriptedProviders, new_key
from tests.fixtures.servers import serving


@pytest.fixture(scope="module")
def provider() -> Iterator[ScriptedProvider]:
    providers = ScriptedProviders()
    with serving(providers) as url:
        yield providers.add(url, new_key("first"))


@pytest.fixture
def secret_file(tmp_path: Path) -> str:
    file = tmp_path / "secret"
    file.write_text(f"{CLIENT_SECRET}\n")
    return str(file)


def test_a_provider_is_named_shown_listed_and_forgotten(
    command: Command, acme: str, provider: ScriptedProvider, secret_file: str
) -> None:
    sso = ("sso", "oidc")
    before = json.loads(command.run(*sso, "show", acme, "--connection", "id", "--json").stdout)
    assert before["redirect_uri"] == "http://cli-acme.localhost:8000/auth/oidc/callback/id"
    assert before["issuer"] is None

    set_it = (*sso, "set", acme, "--connection", "id", "--issuer", provider.issuer, "--client-id", CLIENT_ID)
    refused = command.run(*set_it, "--role", "doctors=physician", "--keep-secret", code=1)
    assert "needs the client secret" in refused.stderr
    assert "no client secret" in command.run(*set_it, code=1).stderr  # nothing on standard input
    done = command.run(*set_it, "--role", "doctors=physician", "--secret-file", secret_file)
    changed = command.run(*set_it, "--keep-secret", "--email-domain", "Clinic.example", "--json")
    assert CLIENT_SECRET not in done.output + changed.output
    after = json.loads(changed.stdout)
    assert (after["issuer"], after["client_auth"]) == (provider.issuer, "client_secret_basic")
    assert after["roles"] == {"doctors": "physician"}
    assert after["email_domains"] == ["clinic.example"]
    command.run(*set_it, "--keep-secret", "--disable")
    listed = json.loads(command.run("sso", "list", acme, "--json").stdout)
    assert [(each["kind"], each["enabled"]) for each in listed if each["connection"] == "id"] == [
        ("oidc", False)
    ]

    assert "is removed" in command.run(*sso, "remove", acme, "--connection", "id").stderr
    assert "no such connection" in command.run(*sso, "remove", acme, "--connection", "id").stderr
    command.run(*sso, "test", acme, "--connection", "id", code=1)


def test_what_is_wrong_with_a_provider_is_told_by_check(
    command: Command, acme: str, provider: ScriptedProvider, secret_file: str
) -> None:
    set_it = ("sso", "oidc", "set", acme, "--issuer", provider.issuer, "--client-id", CLIENT_ID)
    command.run(*set_it, "--connection", "examined", "--secret-file", secret_file)
    test_it = ("sso", "oidc", "test", acme, "--connection", "examined", "--json")

    def results(code: int = 0, **settings: str) -> dict[str, str]:
        told = json.loads(command.run(*test_it, code=code, **settings).stdout)
        return {each["check"]: each["result"] for each in told}

    allowed: dict[str, Any] = {"sso_fetch_allow": "127.0.0.1"}
    assert results(1) == {"oidc.discovery": "wrong"}  # plain http, and nobody allowed it
    assert set(results(**allowed).values()) == {"ok"}
    provider.discovery = {
        "authorization_response_iss_parameter_supported": None,
        "code_challenge_methods_supported": None,
    }
    good = results(**allowed)
    assert {check for check, result in good.items() if result == "could be better"} == {
        "oidc.pkce",
        "oidc.response-issuer",
    }
    provider.discovery = {
        "id_token_signing_alg_values_supported": ["HS256"],
        "token_endpoint_auth_methods_supported": ["tls_client_auth"],
    }
    provider.published = [{"kty": "oct", "k": "c2VjcmV0"}]
    assert {check for check, result in results(1, **allowed).items() if result == "wrong"} == {
        "oidc.algorithm",
        "oidc.client-auth",
        "oidc.keys",
    }
    provider.discovery = {"issuer": "https://other.example"}
    assert results(1, **allowed) == {"oidc.discovery": "wrong"}
