"""`dermadetect ai`."""

import json

from reference.ai.app import create_app
from reference.ai.faults import Faults
from tests.cli.conftest import Command
from tests.fixtures.servers import serving


def test_a_service_that_keeps_the_contract_is_0(command: Command, ai_url: str) -> None:
    result = command.run("ai", "check", ai_url)
    assert "image-validity" in result.stdout
    assert "All 81 checks passed." in result.stderr


def test_a_service_that_breaks_it_is_1_and_named(command: Command) -> None:
    with serving(create_app(Faults(broken_schema=True), token="let-me-in")) as url:
        result = command.run("ai", "check", url, "--json", code=1, ai_token="let-me-in")
    findings = json.loads(result.stdout)
    assert set(findings[0]) == {"endpoint", "check", "state", "detail", "rule"}
    wrong = next(each for each in findings if each["check"] == "shape" and each["endpoint"] == "triage")
    assert (wrong["state"], wrong["rule"]) == ("fail", "TriageResponse")
    assert "level" in wrong["detail"]
    assert result.stderr.startswith("The contract is not kept: ")
    assert "let-me-in" not in result.output


def test_what_is_no_address_is_wrong_usage(command: Command) -> None:
    for url in ("localhost:8900", "ftp://ai.example", "http://", "https://ai.example/?x=1"):
        command.run("ai", "check", url, code=2)


def test_the_contract_is_printed(command: Command) -> None:
    assert json.loads(command.run("ai", "contract").stdout)["paths"]["/v1/triage"]


def test_agreement_of_a_tenant_is_shown(command: Command) -> None:
    command.run("tenants", "create", "agreeing", "--name", "Agreeing", "--plan", "trial")
    days = ("--since", "2026-01-01", "--until", "2026-12-31")
    assert json.loads(command.run("ai", "concordance", "agreeing", *days, "--json").stdout) == []
    command.run("ai", "concordance", "agreeing", "--since", "yesterday", code=2)
    command.run("ai", "concordance", "nobody", code=1)
