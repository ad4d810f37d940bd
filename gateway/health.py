"""Whether the process lives, and whether what it needs answers."""

import asyncio
import time
from collections.abc import Awaitable
from typing import Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy import text

from clinic.ai.client import AiClient
from core.blobs import BlobStores
from core.cells import HOME
from core.database import Database
from core.limits import RateLimits
from core.parts import Parts

router = APIRouter(tags=["health"])

CHECK_LIMIT_S = 2.0
FRESH_S = 1.0


class Component(BaseModel):
    status: Literal["up", "degraded", "down", "off"] = Field(description="`off`: not configured here.")
    latency_ms: float = Field(description="How long the check took.")
    error: str | None = Field(None, description="The kind of failure; details are in the logs.")


class Health(BaseModel):
    """`down` when the gateway cannot serve (no database), `degraded` when something else is away. Other cells than the
    home have components of their own, such as `database eu-2`."""

    status: Literal["up", "degraded", "down"]
    components: dict[str, Component]


class Alive(BaseModel):
    status: Literal["alive"] = "alive"


@router.get("/healthy", summary="The process lives", operation_id="health_alive")
async def healthy() -> Alive:
    return Alive()


@router.get(
    "/health",
    summary="Database, blob store, AI Service and limiter, each with latency",
    operation_id="health_show",
    responses={503: {"model": Health, "description": "The gateway cannot serve."}},
)
async def health(request: Request, response: Response) -> Health:
    examiner: Examiner = request.app.state.examiner
    found = await examiner.examine()
    response.status_code = 503 if found.status == "down" else 200
    return found


class Examiner:
    """Examines the parts at most once a second, however many ask: a question must not become a load."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._lock = asyncio.Lock()
        self._latest: Health | None = None
        self._examined_at = float("-inf")

    async def examine(self) -> Health:
        async with self._lock:
            if self._latest is None or time.monotonic() - self._examined_at > FRESH_S:
                self._latest = await _examine(self._parts)
                self._examined_at = time.monotonic()
            return self._latest


async def _examine(parts: Parts) -> Health:
    limits, ai = parts[RateLimits], parts[AiClient]
    database, stores = parts[Database], parts[BlobStores]
    checks = {
        "database": _check(_ask(database, HOME)),
        "blobs": _check(stores.at(HOME).ping()),
        "ai": _check(ai.ping()) if ai.configured else _off(),
        "limits": _check(limits.ping()),
    }
    for cell in database.cells[1:]:
        checks[f"database {cell}"] = _check(_ask(database, cell))
        checks[f"blobs {cell}"] = _check(stores.at(cell).ping())
    found = await asyncio.gather(*checks.values())
    components = dict(zip(checks, found, strict=True))
    if components["limits"].status == "down":
        components["limits"].status = "degraded"  # counting goes on in process
    status: Literal["up", "degraded", "down"] = "up"
    if any(each.status in ("degraded", "down") for each in found):
        status = "degraded"
    if components["database"].status == "down":
        status = "down"
    return Health(status=status, components=components)


async def _ask(database: Database, cell: str) -> None:
    async with database.control(cell) as session:
        await session.execute(text("SELECT 1"))


async def _off() -> Component:
    return Component(status="off", latency_ms=0)


async def _check(ping: Awaitable[None]) -> Component:
    started = time.perf_counter()
    error = None
    try:
        async with asyncio.timeout(CHECK_LIMIT_S):
            await ping
    except Exception as failure:  # any failure is what this endpoint is asked to report
        error = type(failure).__name__
    latency_ms = round((time.perf_counter() - started) * 1000, 2)
    return Component(status="down" if error else "up", latency_ms=latency_ms, error=error)
