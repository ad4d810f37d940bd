"""Rate limits: declared with slowapi, counted with the asynchronous storages of `limits` (slowapi's engine).

slowapi's own hits are synchronous and would hold the event loop while Redis answers, so its `Limiter` is the
registry of declarations here (`@limiter.limit("10/minute")`) and `RateLimits` does the counting: in process
for one gateway, in Redis for several. When Redis is away counting goes on in process, and `/health` says so.
"""

import asyncio
import logging
import time
from dataclasses import dataclass
from functools import lru_cache

from fastapi import Depends, Request
from limits import RateLimitItem, parse
from limits.aio.storage import RedisStorage
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


class InProcessWindows:
    """Fixed windows in a dictionary. `limits` ships some too, but walks all its keys at every hit."""

    def __init__(self) -> None:
        self._windows: dict[tuple[str, str, int], tuple[int, float]] = {}
        self._sweep_at = 10_000

    def hit(self, name: str, item: RateLimitItem, key: str) -> tuple[int, float]:
        """Count one; returns the count of the present window and the time at which it ends."""
        now, length = time.time(), item.get_expiry()
        at = (name, key, length)
        count, ends = self._windows.get(at, (0, 0.0))
        if ends <= now:
            count, ends = 0, now + length
            if len(self._windows) >= self._sweep_at:
                self._windows = {k: w for k, w in self._windows.items() if w[1] > now}
                self._sweep_at = max(10_000, 2 * len(self._windows))
        self._windows[at] = (count + 1, ends)
        return count + 1, ends


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
        self._local = InProcessWindows()
        self._shared: RedisStorage | None = None
        if not url.startswith("memory:"):
            # The default client of limits' Redis storage (coredis) crashed with this version.
            self._shared = RedisStorage(
                f"async+{url}", implementation="redispy", socket_timeout=0.25, socket_connect_timeout=0.25
            )
        self._shared_away_until = 0.0

    @property
    def degraded(self) -> bool:
        """Whether Redis is configured but away, so that each process counts for itself."""
        return self._shared is not None and time.monotonic() < self._shared_away_until

    async def _count(self, name: str, item: RateLimitItem, key: str) -> tuple[int, float]:
        if self._shared is not None and not self.degraded:
            try:
                at = item.key_for(name, key)
                count = await self._shared.incr(at, item.get_expiry())
                return count, await self._shared.get_expiry(at)
            except Exception as error:  # any failure of the shared counter means: count here
                self._shared_away_until = time.monotonic() + 5
                log.warning(
                    "rate-limit storage away, counting in process", extra={"error": type(error).__name__}
                )
        return self._local.hit(name, item, key)

    async def hit(self, name: str, item: RateLimitItem, key: str) -> Window:
        """Count one request of `key` against the limit `name`. Raises `RateLimited` when it is used up."""
        count, ends = await self._count(name, item, key)
        window = Window(name, item, max(0, item.amount - count), max(0, round(ends - time.time())))
        if count > item.amount:
            raise RateLimited(
                f"More than {item.amount} requests in {item.get_expiry()} s; "
                f"try again in {max(1, window.reset_s)} s.",
                headers={"Retry-After": str(max(1, window.reset_s)), **window.headers()},
                limit=name,
            )
        return window

    async def ping(self) -> None:
        """Raise unless the configured storage answers."""
        if self._shared is not None:
            async with asyncio.timeout(1):
                if not await self._shared.check():
                    raise ConnectionError("the rate-limit storage does not answer")
            self._shared_away_until = 0.0

    async def close(self) -> None:
        """Close the connections to Redis."""
        if self._shared is not None:
            await self._shared.bridge.storage.aclose()  # type: ignore[attr-defined]  # redis-py's client


async def _declared(request: Request) -> None:
    """Count against the limits that slowapi's decorator declared on this endpoint."""
    endpoint = request.scope["endpoint"]
    name = f"{endpoint.__module__}.{endpoint.__name__}"
    limits: RateLimits = request.app.state.parts[RateLimits]
    for declared in limiter._route_limits.get(name, ()):
        await limits.hit(f"route:{endpoint.__name__}", declared.limit, declared.key_func(request))


declared_limits = Depends(_declared)
"""Put it into `dependencies` of every route that declares a limit with `@limiter.limit`."""
