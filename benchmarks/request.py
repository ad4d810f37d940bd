"""What the whole gateway costs a request: `GET /v1/cases/{id}`, against the same query in bare FastAPI and ORM.

Ours is the complete application: host routing, a verified access token, limits by address, user and tenant, the
monthly count, role, path and row rule, the access log; 32 keep-alive connections, each of a user of another tenant.
The baseline (`benchmarks/bare.py`) has none of these and reads one of the 32 cases. Each is one uvicorn process on
the same PostgreSQL with the same pool. Status and length of every answer are checked.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import httpx

from benchmarks.load import get_request, load
from benchmarks.measure import Result, compare, medians
from benchmarks.serve import serving
from benchmarks.stage import Stage, Visitor, open_stage

CLIENTS = 32
SECONDS = 1.0
_START_S = 30.0


def environment_of(stage: Stage, bare_reads: Visitor) -> dict[str, str]:
    """The settings of both servers, as an operator would give them."""
    settings = stage.settings
    assert settings.master_key
    return {
        "DERMADETECT_DATABASE_URL": stage.logins.gateway_url,
        "DERMADETECT_MASTER_KEY": settings.master_key.get_secret_value(),
        "DERMADETECT_BLOB_DIRECTORY": str(settings.blob_directory),
        "DERMADETECT_ADDRESS_LIMIT": settings.address_limit,
        "DERMADETECT_DATABASE_POOL_SIZE": str(settings.database_pool_size),
        "BARE_DATABASE_URL": stage.logins.gateway_url.replace("postgresql://", "postgresql+asyncpg://"),
        "BARE_ROLE": bare_reads.scope.role,
        "BARE_SEARCH_PATH": f"{bare_reads.scope.schema}, extensions",
    }


async def length_of_case(port: int, visitor: Visitor) -> tuple[int, dict[str, Any]]:
    """The body's length and content when the visitor reads their case once. Waits for the server to start."""
    async with httpx.AsyncClient(timeout=_START_S, trust_env=False) as http:
        answer = await http.get(
            f"http://127.0.0.1:{port}{visitor.path}",
            headers={"Host": visitor.host, "Authorization": f"Bearer {visitor.token}"},
        )
    answer.raise_for_status()
    return len(answer.content), answer.json()


async def run() -> list[Result]:
    async with open_stage() as stage:
        visitors = [await stage.visitor(f"tenant{number}") for number in range(CLIENTS)]
        first = visitors[0]
        environment = environment_of(stage, first)
        with (
            serving("gateway", environment, stage.directory / "gateway.log") as gateway,
            serving("bare", environment, stage.directory / "bare.log") as bare,
        ):
            ours = []
            for visitor in visitors:
                length, case = await length_of_case(gateway.port, visitor)
                assert case["id"] == str(visitor.case_id)
                token = f"Bearer {visitor.token}"
                ours.append((get_request(visitor.path, visitor.host, authorization=token), length))
            length, plain_case = await length_of_case(bare.port, first)
            _, same_case = await length_of_case(gateway.port, first)
            # Who asks is nobody to the baseline; all else is alike.
            assert same_case | {"allowed_actions": []} == plain_case
            plain = [(get_request(first.path, "localhost"), length)] * CLIENTS

            def requests(port: int, sent: list[tuple[bytes, int]]) -> Callable[[], Awaitable[float]]:
                return lambda: load(port, sent, seconds=SECONDS)

            seen = await medians(
                {"gateway": requests(gateway.port, ours), "bare": requests(bare.port, plain)}
            )
    return [
        compare(
            "request",
            "GET /v1/cases/{id}: authenticated, routed, limited, counted, logged, against bare FastAPI and "
            "SQLAlchemy ORM",
            ours=seen["gateway"],
            baseline=seen["bare"],
            unit="requests/s",
            target=0.85,
        )
    ]
