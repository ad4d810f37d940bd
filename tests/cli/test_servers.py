"""`serve`, `worker` and the reference services, as processes that are stopped by signals."""

import signal
import socket
from pathlib import Path

import httpx
import pytest

from core.clock import utcnow
from tests.cli.conftest import Command, answer, eventually, stop
from tests.cli.test_tenants import sql
from tests.fixtures.servers import free_port


def test_serve_answers_until_it_is_told_to_stop(command: Command, acme: str) -> None:
    port = free_port()
    origin = f"http://127.0.0.1:{port}"
    with command.running("serve", "--port", str(port)) as process:
        assert answer(f"{origin}/health", process).json()["components"]["database"]["status"] == "up"
        tenant = httpx.get(f"{origin}/v1/me", headers={"Host": "cli-acme.localhost"}, trust_env=False)
        assert tenant.status_code == 401
        assert "server" not in tenant.headers
        said = stop(process, signal.SIGTERM)
    assert "Finishing requests under way." in said
    assert "Traceback" not in said


def test_only_named_proxies_are_believed(command: Command, acme: str) -> None:
    # The address limit counts addresses, so a forged one would have an allowance of its own.
    headers = [{"Host": "cli-acme.localhost", "X-Forwarded-For": f"192.0.2.{last}"} for last in (1, 2)]
    for trusted, second in (("", 429), ("127.0.0.1", 200)):
        port = free_port()
        url = f"http://127.0.0.1:{port}/auth/saml/metadata"
        settings = {"trusted_proxies": trusted, "address_limit": "1/hour"}
        with command.running("serve", "--port", str(port), **settings) as process:
            assert answer(url, process, headers=headers[0]).status_code == 200
            assert answer(url, process, headers=headers[1]).status_code == second
            stop(process, signal.SIGTERM)


def test_a_port_in_use_is_said_plainly(command: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = command.run("serve", "--port", port, code=1)
    assert result.stderr.startswith("The port is in use: ")
    assert port in result.stderr


def test_several_processes_must_count_together(command: Command) -> None:
    result = command.run("serve", "--workers", "2", code=4)
    assert "DERMADETECT_LIMITS_STORAGE" in result.stderr
    command.run("serve", "--workers", "2", "--with-worker", code=2)


def test_serving_an_empty_database_says_what_to_do(command: Command) -> None:
    empty = command.settings["DERMADETECT_DATABASE_URL"].replace("/cli", "/template1")
    result = command.run("serve", "--port", str(free_port()), code=1, database_url=empty)
    assert "Traceback" not in result.output
    assert len(result.stderr.strip().splitlines()) == 1


def test_the_worker_does_what_is_due_and_stops(command: Command, acme: str) -> None:
    key = sql(command, "SELECT key FROM control.tenants WHERE slug = 'cli-acme'")
    ring = (
        "INSERT INTO control.doorbells (id, tenant_key, kind, due_at) "
        f"VALUES (gen_random_uuid(), '{key}', 'sweep-images', '{utcnow().isoformat()}')"
    )
    sql(command, ring, "SELECT 1")
    waiting = f"SELECT count(*) FROM control.doorbells WHERE tenant_key = '{key}' AND due_at <= now()"
    with command.running("worker") as process:
        eventually(lambda: sql(command, waiting) == 0)
        stop(process, signal.SIGINT)


def test_reference_services_run_alone(command: Command) -> None:
    ai, idp = free_port(), free_port()
    with command.running("reference-ai", "--port", str(ai), "--token", "t") as process:
        assert answer(f"http://127.0.0.1:{ai}/healthy", process).status_code == 200
        assert httpx.put(f"http://127.0.0.1:{ai}/faults", json={}, trust_env=False).status_code == 401
        stop(process, signal.SIGTERM)
    with command.running("reference-idp", "--port", str(idp)) as process:
        assert b"IDPSSODescriptor" in answer(f"http://127.0.0.1:{idp}/metadata", process).content
        stop(process, signal.SIGTERM)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_development_brings_all_it_needs(state: Path, number: signal.Signals) -> None:
    port = free_port()
    with Command({}).running(
        "serve", "--dev", "--with-worker", "--port", str(port), "--state", str(state)
    ) as process:
        health = answer(f"http://127.0.0.1:{port}/health", process).json()
        assert health["components"]["database"]["status"] == health["components"]["blobs"]["status"] == "up"
        # The file it leaves configures every other command.
        lines = (state / "env").read_text().splitlines()
        other = Command(dict(line.replace("'", "").split("=", 1) for line in lines))
        other.run("tenants", "create", "devco", "--name", "Devco", "--plan", "standard")
        eventually(
            lambda: (
                httpx.get(
                    f"http://127.0.0.1:{port}/auth/saml/metadata",
                    headers={"Host": "devco.localhost"},
                    trust_env=False,
                ).status_code
                == 200
            )
        )
        said = stop(process, number)
    assert "Never for production" in said
    assert ((state / "env").stat().st_mode & 0o077) == 0
