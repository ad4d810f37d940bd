"""What the whole gateway costs a question to the AI Service: `POST /v1/ai/triage`, against FastAPI that forwards.

Ours is the complete application, as in `request.py`, and asks through `clinic.ai.client`: deadline, breaker, check
of the answer against the contract; the answer and an audit row are kept. The baseline (`benchmarks/bare_ai.py`)
forwards with httpx and inserts the same row of `ai_results`, with nothing around. Both ask one reference AI service,
which alone answers this question about ten times as often as either can pass it on. Each of the three is one uvicorn
process; 16 keep-alive connections, each of a user of another tenant for ours. Every answer must be 200.
"""

from collections.abc import Awaitable, Callable, Sequence

import httpx

from benchmarks.load import load, post_request
from benchmarks.measure import Result, compare, medians
from benchmarks.request import environment_of
from benchmarks.serve import serving
from benchmarks.stage import open_stage

CLIENTS = 16
SECONDS = 1.0
_START_S = 30.0
_PATH = "/v1/ai/triage"
_BODY = b'{"locale": "en", "context": {"age_years": 41, "sex": "female", "symptoms": ["itch", "fever"]}}'


async def _decision(port: int, request_headers: dict[str, str]) -> object:
    """What one question is answered. Waits for the server to start."""
    async with httpx.AsyncClient(timeout=_START_S, trust_env=False) as http:
        answer = await http.post(
            f"http://127.0.0.1:{port}{_PATH}",
            content=_BODY,
            headers={"Content-Type": "application/json"} | request_headers,
        )
    answer.raise_for_status()
    return answer.json()["level"], answer.json()["model"], answer.json()["reasons"]


async def run() -> list[Result]:
    async with open_stage() as stage:
        visitors = [await stage.visitor(f"tenant{number}") for number in range(CLIENTS)]
        environment = environment_of(stage, visitors[0])
        with serving("ai", environment, stage.directory / "ai.log") as ai:
            environment["DERMADETECT_AI_URL"] = f"http://127.0.0.1:{ai.port}"
            with (
                serving("gateway", environment, stage.directory / "gateway.log") as gateway,
                serving("bare-ai", environment, stage.directory / "bare.log") as bare,
            ):
                decisions = [await _decision(bare.port, {})]
                ours: list[tuple[bytes, int | None]] = []
                for visitor in visitors:
                    token = f"Bearer {visitor.token}"
                    decisions.append(
                        await _decision(gateway.port, {"Host": visitor.host, "Authorization": token})
                    )
                    ours.append((post_request(_PATH, visitor.host, _BODY, authorization=token), None))
                assert all(decision == decisions[0] for decision in decisions)
                plain: list[tuple[bytes, int | None]] = [
                    (post_request(_PATH, "localhost", _BODY), None)
                ] * CLIENTS

                def requests(
                    port: int, sent: Sequence[tuple[bytes, int | None]]
                ) -> Callable[[], Awaitable[float]]:
                    return lambda: load(port, sent, seconds=SECONDS)

                seen = await medians(
                    {"gateway": requests(gateway.port, ours), "bare": requests(bare.port, plain)}
                )
    return [
        compare(
            "ai-proxy",
            "POST /v1/ai/triage: authenticated, routed, limited, counted, checked, kept, logged, against bare "
            "FastAPI that forwards with httpx and inserts the same row",
            ours=seen["gateway"],
            baseline=seen["bare"],
            unit="requests/s",
            target=0.8,
        )
    ]
