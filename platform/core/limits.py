"""Rate limits: declared with slowapi, counted with the asynchronous storages of `limits` (slowapi's engine).

slowapi's own hits are synchronous and would hold the event loop while Redis answers, so its `Limiter` is the
registry of declarations here (`@limiter.limit("10/minute")`) and `RateLimits` does the counting: in process
for one gateway, in Redis for several. When Redis is away counting goes on in process, and `/health` says so.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from fastapi import Depends, Request
from limits import RateLimitItem, parse
from limits.aio.storage import RedisStorage, Storage
from limits.aio.strategies import FixedWindowRateLimiter
from slowapi import Limiter

from core.access import context_of
from core.problems import Problem

log = logging.getLogger(__name__)


class RateLimited(Problem):
    """RFC 6585; `Retry-After` and the draft `RateLimit` headers say when to come back."""

    status, slug, title = 429, "rate-limited", "Too many requests"


def limit_key(request: Request) -> str:
    """Whom a declared limit counts: tenant and client address. Never empty, or the limit would be off."""
    context = context_of(request)
    return f"{context.tenant.key if context.tenant else '-'}:{context.client_address or '-'}"


# Declarations only (`enabled=False`): see the module's docstring. Keys are per endpoint, since slowapi's default
# would give every value of a path parameter its own allowance.
limiter = Limiter(key_func=limit_key, key_style="endpoint", enabled=False)


class InProcessStorage(Storage):
    """Fixed windows in a dictionary. `limits` ships one too, which walks all its keys at every hit."""

    STORAGE_SCHEME: list[str] | None = None

    def __init__(self) -> None:
        super().__init__()
        self._windows: dict[str, tuple[int, float]] = {}
        self._sweep_at = 10_000

    @property
    def base_exceptions(self) -> type[Exception]:
        return ValueError

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        now = time.time()
        count, ends = self._windows.get(key, (0, 0.0))
        if ends <= now:
            count, ends = 0, now + expiry
            if len(self._windows) >= self._sweep_at:
                self._windows = {k: w for k, w in self._windows.items() if w[1] > now}
                self._sweep_at = max(10_000, 2 * len(self._windows))
        self._windows[key] = (count + amount, ends)
        return count + amount

    async def get(self, key: str) -> int:
        count, ends = self._windows.get(key, (0, 0.0))
        return count if ends > time.time() else 0

    async def get_expiry(self, key: str) -> float:
        return self._windows.get(key, (0, time.time()))[1]

    async def check(self) -> bool:
        return True

    async def reset(self) -> int | None:
        count = len(self._windows)
        self._windows.clear()
        return count

    async def clear(self, key: str) -> None:
        self._windows.pop(key, None)


@lru_cache(maxsize=1024)
def per_minute(amount: int) -> RateLimitItem:
    """`amount` requests in a minute."""
    return parse(f"{amount}/minute")


@dataclass(frozen=True, slots=True)
class Window:
    """What is left of a limit: `remaining` requests until `reset_s` seconds from now."""

    name: str
    item: RateLimitItem
    remaining: int
    reset_s: int

    def headers(self) -> dict[str, str]:
        """`RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers)."""
        return {
            "RateLimit-Policy": f'"{self.name}";q={self.item.amount};w={self.item.get_expiry()}',
            "RateLimit": f'"{self.name}";r={self.remaining};t={self.reset_s}',
        }


class RateLimits:
    """Counts hits against fixed windows; `url` is `memory://` or `redis://host:port/db`."""

    def __init__(self, url: str) -> None:
        self._local = FixedWindowRateLimiter(InProcessStorage())
        self._shared: FixedWindowRateLimiter | None = None
        if not url.startswith("memory:"):
            # The default client of limits' Redis storage (coredis) crashed with this version.
            self._shared = FixedWindowRateLimiter(
                RedisStorage(
                    f"async+{url}", implementation="redispy", socket_timeout=0.25, socket_connect_timeout=0.25
                )
            )
        self._shared_away_until = 0.0

    @property
    def degraded(self) -> bool:
        """Whether Redis is configured but away, so that each process counts for itself."""
        return self._shared is not None and time.monotonic() < self._shared_away_until

    async def _with_storage(self, ask: Callable[[FixedWindowRateLimiter], Awaitable[Any]]) -> Any:
        if self._shared is not None and not self.degraded:
            try:
                return await ask(self._shared)
            except Exception as error:  # any failure of the shared counter means: count here
                self._shared_away_until = time.monotonic() + 5
                log.warning(
                    "rate-limit storage away, counting in process", extra={"error": type(error).__name__}
                )
        return await ask(self._local)

    async def hit(self, name: str, item: RateLimitItem, key: str) -> Window:
        """Count one request of `key` against the limit `name`. Raises `RateLimited` when it is used up."""

        async def count(strategy: FixedWindowRateLimiter) -> tuple[bool, int, float]:
            allowed = await strategy.hit(item, name, key)
            ends, remaining = await strategy.get_window_stats(item, name, key)
            return allowed, remaining, ends

        allowed, remaining, ends = await self._with_storage(count)
        window = Window(name, item, remaining, max(0, round(ends - time.time())))
        if not allowed:
            raise RateLimited(
                f"More than {item.amount} requests in {item.get_expiry()} s ({name}); "
                f"try again in {max(1, window.reset_s)} s.",
                headers={"Retry-After": str(max(1, window.reset_s)), **window.headers()},
                limit=name,
            )
        return window

    async def ping(self) -> None:
        """Raise unless the configured storage answers."""
        if self._shared is not None:
            async with asyncio.timeout(1):
                if not await self._shared.storage.check():
                    raise ConnectionError("the rate-limit storage does not answer")
            self._shared_away_until = 0.0


async def _declared(request: Request) -> None:
    """Count against the limits that slowapi's decorator declared on this endpoint."""
    endpoint = request.scope["endpoint"]
    name = f"{endpoint.__module__}.{endpoint.__name__}"
    limits: RateLimits = request.app.state.parts[RateLimits]
    for declared in limiter._route_limits.get(name, ()):
        await limits.hit(f"route:{endpoint.__name__}", declared.limit, declared.key_func(request))


declared_limits = Depends(_declared)
"""Put it into `dependencies` of every route that declares a limit with `@limiter.limit`."""
