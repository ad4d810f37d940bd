"""Every way the AI Service can fail, from end to end: the gateway and the service each behind a socket of its own."""

import logging
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import httpx
import pytest

from core.ai_contract import AiEndpoint
from core.settings import Settings
from gateway.app import create_app
from gateway.assembly import assemble
from reference.ai.app import create_app as create_ai
from tests.clinic.journey import Clinic, ok
from tests.fixtures.servers import free_port, serving
from tests.fixtures.world import Person, World

DEADLINE_S = 2.0
SPARE_S = 1.5  # for everything but waiting for the AI Service, on a busy machine
FOREIGN = ("reference", "fault", "Welcome", "maybe")  # what the AI Service says in its faults
TOKEN = "for-the-gateway-alone"


@contextmanager
def gateway(world: World, ai_url: str) -> Iterator[str]:
    """Another gateway of the same tenants, over HTTP, with an AI Service of its own."""
    changes = {"ai_url": ai_url, "ai_token": TOKEN, "ai_deadline_s": DEADLINE_S}
    settings = Settings.model_validate(world.settings.model_dump() | changes)
    with serving(create_app(assemble(settings))) as url:
        yield url


def client(url: str, who: Person) -> httpx.AsyncClient:
    headers = {"Host": "acme.localhost", "Authorization": f"Bearer {who.token}"}
    return httpx.AsyncClient(base_url=url, headers=headers, timeout=30, trust_env=False)


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    with serving(create_ai(token=TOKEN)) as url:
        yield url


@pytest.fixture(scope="module")
def gateway_url(world: World, service: str) -> Iterator[str]:
    with gateway(world, service) as url:
        yield url


@pytest.fixture
def switch(service: str) -> Iterator[Callable[..., None]]:
    def switch(**faults: Any) -> None:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        assert httpx.put(f"{service}/faults", json=faults, headers=headers).status_code == 200

    yield switch
    switch()


@pytest.fixture(scope="module")
async def clinic(world: World) -> Clinic:
    return await Clinic.open(world)


@pytest.fixture
async def http(gateway_url: str, clinic: Clinic) -> AsyncIterator[httpx.AsyncClient]:
    async with client(gateway_url, clinic.referrer) as opened:
        yield opened


def slug(answer: httpx.Response) -> str:
    assert answer.headers["Content-Type"] == "application/problem+json"
    return str(answer.json()["type"].rsplit(":", 1)[1])


@pytest.mark.parametrize(
    ("fault", "status", "expected"),
    [
        ({"delay_s": 30}, 504, "ai-timeout"),
        ({"delay_s": 0.7, "status": 503}, 504, "ai-timeout"),
        ({"cut_off": True}, 502, "ai-unreachable"),
        ({"status": 500}, 502, "ai-unreachable"),
        ({"status": 503}, 502, "ai-unreachable"),
        ({"status": 401}, 502, "ai-unreachable"),
        ({"status": 422}, 422, "ai-input-rejected"),
        ({"broken_schema": True}, 502, "ai-answer-invalid"),
        ({"huge_bytes": 200_000_000}, 502, "ai-answer-invalid"),
        ({"wrong_content_type": True}, 502, "ai-answer-invalid"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
async def test_a_fault_is_told_in_time_in_our_words_and_leaves_nothing_behind(
    http: httpx.AsyncClient,
    clinic: Clinic,
    switch: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
    fault: dict[str, Any],
    status: int,
    expected: str,
) -> None:
    case = await clinic.draft()
    path = f"/v1/cases/{case['id']}"
    switch(**fault)
    started = time.monotonic()
    with caplog.at_level(logging.DEBUG, "clinic"):
        answer = await http.post(f"{path}/ai/diagnosis")
    assert time.monotonic() - started < DEADLINE_S + SPARE_S
    assert (answer.status_code, slug(answer)) == (status, expected)
    assert "AI Service" in caplog.text
    assert not any(text in answer.json()["detail"] or text in caplog.text for text in FOREIGN)
    assert ok(await http.get(f"{path}/ai-results"))["items"] == []
    switch()
    ok(await http.post(f"{path}/ai/diagnosis"))
    assert len(ok(await http.get(f"{path}/ai-results"))["items"]) == 1


async def test_503_twice_and_then_fine_is_an_answer(
    http: httpx.AsyncClient, switch: Callable[..., None]
) -> None:
    switch(status=503, times=2)
    ok(await http.post("/v1/ai/triage", json={}))


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{"])
async def test_a_connection_that_is_reset_is_502(world: World, clinic: Clinic, said: bytes) -> None:
    """Before the answer and in the middle of it."""

    def reset_each(listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return  # the test is over
            with connection:
                connection.recv(65_536)
                connection.sendall(said)
                time.sleep(0.05)  # what was said is read before the reset discards it
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        thread = threading.Thread(target=reset_each, args=[listener])
        thread.start()
        with gateway(world, f"http://127.0.0.1:{listener.getsockname()[1]}") as url:
            async with client(url, clinic.referrer) as http:
                answer = await http.post("/v1/ai/triage", json={})
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert (answer.status_code, slug(answer)) == (502, "ai-unreachable")


async def test_a_service_that_is_away_is_left_alone_and_found_again(world: World, clinic: Clinic) -> None:
    port = free_port()
    with gateway(world, f"http://127.0.0.1:{port}") as url:
        async with client(url, clinic.referrer) as http:
            for _ in range(5):
                away = await http.post("/v1/ai/triage", json={})
                assert (away.status_code, slug(away)) == (502, "ai-unreachable")
            started = time.monotonic()
            open_ = await http.post("/v1/ai/triage", json={})
            assert time.monotonic() - started < 0.5, "nothing is tried"
            assert (open_.status_code, slug(open_)) == (503, "ai-unavailable")
            wait = int(open_.headers["Retry-After"])
            assert 1 <= wait <= 10
            with serving(create_ai(token=TOKEN), port):
                ok(await http.post(f"/v1/ai/{AiEndpoint.RED_FLAGS}", json={}))  # has a breaker of its own
                assert (await http.post("/v1/ai/triage", json={})).status_code == 503
                time.sleep(wait + 0.2)
                ok(await http.post("/v1/ai/triage", json={}))
                ok(await http.post("/v1/ai/triage", json={}))
