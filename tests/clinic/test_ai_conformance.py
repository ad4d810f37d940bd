"""The contract check: the reference service passes, and whatever breaks a rule is found by the check of that rule."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from clinic.ai.conformance import Finding, check_service
from core.ai_contract import AiEndpoint
from core.ids import new_id
from reference.ai.app import create_app
from reference.ai.faults import Faults
from tests.fixtures.servers import serving


def failed(findings: list[Finding], endpoint: AiEndpoint = AiEndpoint.TRIAGE) -> set[str]:
    return {each.check for each in findings if each.endpoint == endpoint and each.state == "fail"}


async def test_the_reference_service_keeps_the_contract(ai_url: str) -> None:
    findings = await check_service(ai_url, None, 20)
    assert [each for each in findings if each.state != "pass"] == []
    assert {each.endpoint for each in findings} == set(AiEndpoint)
    assert sum(each.endpoint == AiEndpoint.IMAGE_VALIDITY for each in findings) == 17
    assert len(findings) == 5 * 16 + 1


async def test_a_service_with_a_token_is_asked_without_it_too() -> None:
    with serving(create_app(token="let-me-in")) as url:
        findings = await check_service(f"{url}/", "let-me-in", 20)
        assert [each for each in findings if each.state != "pass"] == []
        assert len(findings) == 5 * 18 + 1
        numbered = {each.rule for each in findings if each.rule.startswith("rule ")}
        assert numbered == {f"rule {number}" for number in range(1, 10)}, "every rule has a check"
        outside = await check_service(url, None, 20)
        assert "answers in time" in failed(outside)
    with serving(create_app()) as url:
        careless = await check_service(url, "let-me-in", 20)
    for endpoint in AiEndpoint:
        assert failed(careless, endpoint) == {"without the token", "with a wrong token"}


EVERYTHING_ELSE = {
    "no photographs",
    "same key, another request",
    "photograph of another hash",
    "unknown member",
    "what is no request",
    "unknown model version",
}


@pytest.mark.parametrize(
    ("fault", "expected", "said"),
    [
        ({"delay_s": 5}, {"answers in time"}, "no whole answer within 0.5 s"),
        ({"cut_off": True}, {"answers in time"}, "broke off"),
        ({"status": 500}, EVERYTHING_ELSE | {"answers in time"}, "answered 500"),
        ({"status": 503, "times": 1}, {"answers in time"}, "answered 503"),
        (
            {"wrong_content_type": True},
            EVERYTHING_ELSE
            | {"content type", "shape", "request_id", "input_hash", "same content, same input_hash"},
            "is 'text/html'",
        ),
        (
            {"broken_schema": True},
            EVERYTHING_ELSE | {"shape", "request_id", "input_hash", "same content, same input_hash"},
            "level: Input should be",
        ),
        ({"huge_bytes": 2 * 1024**2, "times": 1}, {"size", "same content, same input_hash"}, "larger than"),
    ],
)
async def test_every_fault_is_found_by_the_checks_it_breaks(
    fault: dict[str, Any], expected: set[str], said: str
) -> None:
    with serving(create_app(Faults(**fault, endpoint=AiEndpoint.TRIAGE))) as url:
        findings = await check_service(url, None, 0.5 if "delay_s" in fault else 20)
    assert failed(findings) == expected
    assert any(said in each.detail for each in findings if each.state == "fail")
    if "delay_s" not in fault:  # half a second is not promised by the others
        others = [each for each in findings if each.endpoint != AiEndpoint.TRIAGE]
        assert [each for each in others if each.state != "pass"] == []


Change = Callable[[dict[str, Any]], Mapping[str, Any]]


@contextmanager
def lax(ai_url: str, *, request: Change = dict, answer: Change = dict, keys: bool = True) -> Iterator[str]:
    """A service that passes everything on to the reference service, but changes what goes in or comes out."""

    async def pass_on(incoming: Request) -> Response:
        body: Any = await incoming.body()
        try:
            sent = json.loads(body)
            body = json.dumps(request(sent)) if isinstance(sent, dict) else body
        except ValueError:
            pass
        headers = {"Content-Type": "application/json"}
        if keys:
            headers["Idempotency-Key"] = incoming.headers["Idempotency-Key"]
        async with httpx.AsyncClient(trust_env=False) as http:
            got = await http.post(f"{ai_url}{incoming.url.path}", content=body, headers=headers)
        if got.status_code != 200:
            return Response(b"", got.status_code)
        return Response(json.dumps(answer(got.json())), media_type="application/json; charset=utf-8")

    with serving(Starlette(routes=[Route("/v1/{endpoint}", pass_on, methods=["POST"])])) as url:
        yield url


def _without_surprises(sent: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in sent.items() if name != "surprise"}
    if isinstance(kept.get("context"), dict):
        kept["context"].pop("surprise", None)
    return kept


def _unhashed(sent: dict[str, Any]) -> dict[str, Any]:
    images = sent.get("images")
    if isinstance(images, list):
        sent["images"] = [each for each in images if each["sha256"] != "0" * 64]
    return sent


def _unpinned(sent: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in sent.items() if name != "model_version"}


def _of_another_version(got: dict[str, Any]) -> dict[str, Any]:
    return got | {"model": {"name": "reference", "version": str(new_id())}}


@pytest.mark.parametrize(
    ("ways", "expected"),
    [
        ({}, set()),
        ({"answer": lambda got: got | {"more": 1}}, set()),
        ({"answer": lambda got: got | {"request_id": "mine"}}, {"request_id"}),
        ({"answer": lambda got: got | {"input_hash": "0" * 64}}, {"input_hash"}),
        ({"keys": False}, {"same key, another request"}),
        ({"request": _without_surprises}, {"unknown member"}),
        ({"request": _unhashed}, {"photograph of another hash"}),
        ({"request": _unpinned}, {"unknown model version"}),
        ({"answer": _of_another_version}, {"its model version", "same key, same answer"}),
        ({"answer": lambda got: got | {"level": None}}, {"shape"}),
        ({"answer": lambda got: got | {"reasons": ["\0"]}}, {"shape", "no photographs"}),
    ],
)
async def test_every_laxness_is_found(ai_url: str, ways: dict[str, Any], expected: set[str]) -> None:
    with lax(ai_url, **ways) as url:
        assert failed(await check_service(url, None, 20)) == expected


async def test_a_photograph_without_a_verdict_is_found(ai_url: str) -> None:
    with lax(ai_url, answer=lambda got: got | {"images": got.get("images", [])[:1]}) as url:
        findings = await check_service(url, None, 20)
    assert failed(findings, AiEndpoint.IMAGE_VALIDITY) == {"every photograph"}


async def test_nobody_there_is_told_once_an_endpoint() -> None:
    findings = await check_service("http://127.0.0.1:1", None, 5)
    assert [each.state for each in findings] == ["fail", "untried"] * 5
    assert "ConnectError" in findings[0].detail
