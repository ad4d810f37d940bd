"""The AI client over real HTTP, against the reference service: retries, breaker, deadline, slots, and which answers are
taken. What each fault becomes for a caller is in `test_ai_faults.py`."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from clinic.ai.client import AiClient
from clinic.ai.errors import (
    AiAnswerInvalid,
    AiBusy,
    AiInputRejected,
    AiModelMissing,
    AiTimeout,
    AiUnavailable,
    AiUnreachable,
)
from core.ai_contract import (
    MAX_RESPONSE_BYTES,
    AiContext,
    AiEndpoint,
    AiImage,
    AiRequest,
    TriageResponse,
    input_hash,
)
from core.database import TenantScope
from core.ids import new_id
from core.problems import Problem
from reference.ai.app import create_app
from tests.fixtures.servers import serving

ACME, OTHER = TenantScope("acme"), TenantScope("other")
TOKEN = "for-the-gateway-alone"
REFERENCE_TEXT = "reference AI"


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    with serving(create_app(token=TOKEN)) as url:
        yield url


@pytest.fixture
def faults(service: str) -> Iterator[Callable[..., None]]:
    def switch(**faults: Any) -> None:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        assert httpx.put(f"{service}/faults", json=faults, headers=headers).status_code == 200

    yield switch
    switch()


@pytest.fixture
async def client(service: str) -> Any:
    client = AiClient(service, TOKEN, deadline_s=5, cool_down_s=0.2)
    yield client
    await client.aclose()


def a_request(**members: Any) -> AiRequest:
    return AiRequest(request_id=str(new_id()), case_ref="pseudonym", **members)


def no_foreign_text(problem: Problem) -> None:
    assert REFERENCE_TEXT not in str(problem.document())


async def test_every_endpoint_answers_in_the_contracts_terms(client: AiClient) -> None:
    for endpoint in AiEndpoint:
        request = a_request(context=AiContext(symptoms=["itching"]))
        reply = await client.ask(ACME, endpoint, request)
        assert reply.response.request_id == request.request_id
        assert reply.document["input_hash"] == input_hash(request)


@pytest.mark.parametrize("status", [502, 503, 504])
async def test_passing_failures_are_retried(client: AiClient, faults: Any, status: int) -> None:
    faults(status=status, times=2)
    reply = await client.ask(ACME, AiEndpoint.TRIAGE, a_request())
    assert isinstance(reply.response, TriageResponse)


async def test_retries_come_under_one_idempotency_key() -> None:
    keys: list[str | None] = []

    async def triage(request: Request) -> Response:
        keys.append(request.headers.get("Idempotency-Key"))
        return Response(status_code=503)

    with serving(Starlette(routes=[Route("/v1/triage", triage, methods=["POST"])])) as url:
        client = AiClient(url, None, deadline_s=5)
        request = a_request()
        with pytest.raises(AiUnreachable):
            await client.ask(ACME, AiEndpoint.TRIAGE, request)
        await client.aclose()
    assert keys == [request.request_id] * 4


@pytest.mark.parametrize("status", [400, 401, 404, 409, 429, 500, 501])
async def test_other_failures_are_not_retried(client: AiClient, faults: Any, status: int) -> None:
    faults(status=status, times=1)
    with pytest.raises((AiUnreachable, AiInputRejected)) as raised:
        await client.ask(ACME, AiEndpoint.TRIAGE, a_request())
    no_foreign_text(raised.value)


async def test_input_the_service_cannot_read_is_422(client: AiClient) -> None:
    image = AiImage(image_id="1", sha256="0" * 64, base64="bm90IGFuIGltYWdl")
    with pytest.raises(AiInputRejected) as raised:
        await client.ask(ACME, AiEndpoint.IMAGE_VALIDITY, a_request(images=[image]))
    assert raised.value.status == 422


Change = Callable[[dict[str, Any]], bytes]


@contextmanager
def changing(service: str, change: Change) -> Iterator[str]:
    """The reference service behind a proxy that changes its answers."""

    async def proxy(request: Request) -> Response:
        headers = {name: request.headers[name] for name in ("Authorization", "Content-Type")}
        async with httpx.AsyncClient() as real:
            answer = await real.post(f"{service}/v1/triage", content=await request.body(), headers=headers)
        return Response(change(answer.json()), media_type="application/json")

    with serving(Starlette(routes=[Route("/v1/triage", proxy, methods=["POST"])])) as url:
        yield url


@pytest.mark.parametrize(
    ("change", "usable"),
    [
        (lambda answer: json.dumps(answer | {"new_member": 1}).encode(), True),
        (lambda answer: json.dumps(answer | {"request_id": "another"}).encode(), False),
        (lambda answer: json.dumps(answer | {"input_hash": "ab" * 32}).encode(), False),
        (lambda answer: json.dumps(answer | {"new_member": "a\0b"}).encode(), False),
        (lambda answer: json.dumps(answer | {"score": float("nan")}).encode(), False),
        (lambda answer: json.dumps(answer).encode() + b" " * 1000, True),
        (lambda answer: json.dumps(answer).encode() + b" " * MAX_RESPONSE_BYTES, False),
        (lambda answer: json.dumps(answer).encode()[:-1], False),
    ],
)
async def test_only_an_answer_to_this_request_within_the_contract_is_taken(
    service: str, change: Change, usable: bool
) -> None:
    with changing(service, change) as url:
        client = AiClient(url, TOKEN, deadline_s=5)
        request = a_request()
        if usable:
            assert (
                await client.ask(ACME, AiEndpoint.TRIAGE, request)
            ).response.request_id == request.request_id
        else:
            with pytest.raises(AiAnswerInvalid):
                await client.ask(ACME, AiEndpoint.TRIAGE, request)
        await client.aclose()


@pytest.mark.parametrize(("answers_with", "usable"), [("1.0.0", True), ("1.0.1", False)])
async def test_only_the_version_asked_for_is_taken(service: str, answers_with: str, usable: bool) -> None:
    def relabelled(answer: dict[str, Any]) -> bytes:
        return json.dumps(answer | {"model": {"name": "other", "version": answers_with}}).encode()

    with changing(service, relabelled) as url:
        client = AiClient(url, TOKEN, deadline_s=5)
        with nullcontext() if usable else pytest.raises(AiAnswerInvalid):
            await client.ask(ACME, AiEndpoint.TRIAGE, a_request(model_version="1.0.0"))
        await client.ask(ACME, AiEndpoint.TRIAGE, a_request())
        await client.aclose()


async def test_a_version_the_service_does_not_have_is_503(client: AiClient) -> None:
    for _ in range(6):  # more than would open the breaker, were it the service's failure
        with pytest.raises(AiModelMissing) as raised:
            await client.ask(ACME, AiEndpoint.TRIAGE, a_request(model_version="0.9"))
        assert (raised.value.status, raised.value.headers["Retry-After"]) == (503, "600")
    await client.ask(ACME, AiEndpoint.TRIAGE, a_request())


async def test_one_deadline_covers_waiting_and_retries(service: str, faults: Any) -> None:
    client = AiClient(service, TOKEN, deadline_s=0.3)
    faults(delay_s=0.2, status=503)
    started = time.monotonic()
    with pytest.raises(AiTimeout) as raised:
        await client.ask(ACME, AiEndpoint.TRIAGE, a_request())
    assert 0.25 < time.monotonic() - started < 1
    assert raised.value.status == 504
    await client.aclose()


async def test_the_breaker_opens_per_endpoint_and_closes_again(client: AiClient, faults: Any) -> None:
    faults(status=500, endpoint="triage", times=5)
    for _ in range(5):
        with pytest.raises(AiUnreachable):
            await client.ask(ACME, AiEndpoint.TRIAGE, a_request())
    # The service is well again, but the breaker is open: nothing is asked.
    with pytest.raises(AiUnavailable) as raised:
        await client.ask(OTHER, AiEndpoint.TRIAGE, a_request())
    assert raised.value.status == 503
    assert int(raised.value.headers["Retry-After"]) >= 1
    await client.ask(ACME, AiEndpoint.RED_FLAGS, a_request())
    await asyncio.sleep(0.25)
    await client.ask(ACME, AiEndpoint.TRIAGE, a_request())
    await client.ask(ACME, AiEndpoint.TRIAGE, a_request())


async def test_a_half_open_breaker_lets_one_probe_through(client: AiClient, faults: Any) -> None:
    faults(status=500, times=6)
    for _ in range(5):
        with pytest.raises(AiUnreachable):
            await client.ask(ACME, AiEndpoint.TRIAGE, a_request())
    await asyncio.sleep(0.25)
    results = await asyncio.gather(
        *(client.ask(ACME, AiEndpoint.TRIAGE, a_request()) for _ in range(5)), return_exceptions=True
    )
    assert sorted(type(each).__name__ for each in results) == ["AiUnavailable"] * 4 + ["AiUnreachable"]


async def test_rejected_input_does_not_open_the_breaker(client: AiClient, faults: Any) -> None:
    faults(status=422)
    for _ in range(8):
        with pytest.raises(AiInputRejected):
            await client.ask(ACME, AiEndpoint.TRIAGE, a_request())


async def test_one_tenant_cannot_starve_another(service: str, faults: Any) -> None:
    faults(delay_s=1)
    client = AiClient(service, TOKEN, deadline_s=1.6, calls_per_tenant=1)
    first, second, other = await asyncio.gather(
        client.ask(ACME, AiEndpoint.TRIAGE, a_request()),
        client.ask(ACME, AiEndpoint.TRIAGE, a_request()),
        client.ask(OTHER, AiEndpoint.TRIAGE, a_request()),
        return_exceptions=True,
    )
    assert isinstance(getattr(first, "response", None), TriageResponse)
    assert isinstance(getattr(other, "response", None), TriageResponse)
    assert isinstance(second, AiTimeout)  # it had a slot only for what the first had left of its deadline
    await client.aclose()


async def test_waiting_in_vain_for_a_slot_is_not_the_services_failure(service: str) -> None:
    client = AiClient(service, TOKEN, deadline_s=0.05, calls_per_tenant=0)
    for _ in range(6):  # more than would open the breaker
        with pytest.raises(AiBusy) as raised:
            await client.ask(ACME, AiEndpoint.TRIAGE, a_request())
    assert raised.value.status == 503
    await client.aclose()


async def test_without_a_service_every_call_is_503() -> None:
    with pytest.raises(AiUnavailable):
        await AiClient(None, None, deadline_s=1).ask(ACME, AiEndpoint.TRIAGE, a_request())
