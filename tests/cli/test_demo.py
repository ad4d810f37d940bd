"""`demo`: the main job, end to end, in a process of its own that leaves nothing running."""

import json
import os
import signal
import socket
import subprocess
from itertools import takewhile
from pathlib import Path

import httpx
import pytest

from tests.cli.conftest import Command, stop

LIMIT_S = 120


def below(state: Path) -> list[str]:
    """Command lines of processes that name the state's directory, or where root's PostgreSQL lives instead."""
    elsewhere = state / "postgres" / "home"
    places = [str(state), *([elsewhere.read_text()] if elsewhere.exists() else [])]
    listed = subprocess.run(["ps", "-ewwo", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if any(place in line for place in places)]


def test_the_main_job_is_done_for_two_tenants_and_the_gateway_serves_on(state: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        arguments = ("demo", "--state", str(state), "--port", str(port))
        with Command({}).running(*arguments) as process:
            assert process.stderr
            said = list(takewhile(lambda line: "Serving until Ctrl-C" not in line, process.stderr))
            assert f"Port {port} is in use by another program" in said[0], said
            assert below(state), said
            settings = dict(line.split("=", 1) for line in (state / "env").read_text().splitlines())
            health = httpx.get(settings["DERMADETECT_PUBLIC_URL"] + "/health", trust_env=False).json()
            assert {each["status"] for each in health["components"].values()} == {"up"}
            stop(process, signal.SIGINT)
    assert below(state) == []

    summary = json.loads(state.with_name("summary.json").read_text())
    assert summary["done"]
    assert set(summary["steps"][0]) == {"tenant", "who", "step", "method", "path", "status", "ms"}
    assert summary["total_ms"] == pytest.approx(sum(step["ms"] for step in summary["steps"]), abs=1)
    stories = [
        [s["step"] for s in summary["steps"] if s["tenant"] == tenant] for tenant in ("acme", "globex")
    ]
    assert stories[0][:-2] == stories[1], "both tenants have done the same"
    for step in ("exchange the code for a token", "add the photograph", "answer", "download it"):
        assert step in stories[0]
    assert "verify what is printed on it" in stories[0]
    assert [step["status"] for step in summary["steps"][-2:]] == [401, 404], "tenants do not see each other"
    assert not [step for step in summary["steps"] if len(step["path"]) > 50], "patterns, not ids"

    assert state.with_name("report.pdf").read_bytes().startswith(b"%PDF-1.7")


def test_a_step_that_fails_is_named_and_nothing_keeps_running(state: Path, tmp_path: Path) -> None:
    file = tmp_path / "not-a-photograph.jpg"
    file.write_bytes(os.urandom(2000))
    with Command({}).running("demo", "--once", "--state", str(state), "--image", str(file)) as process:
        _, said = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 1
    assert "add the photograph: POST /v1/cases/{case}/images answered 415" in said
    assert "Traceback" not in said
    summary = json.loads(state.with_name("summary.json").read_text())
    assert (summary["done"], summary["failed_step"]) == (False, "add the photograph")
    assert below(state) == []
