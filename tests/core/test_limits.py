"""Rate limits: counted in process or in Redis, and in process again when Redis is away."""

import asyncio

import pytest
from fastapi.routing import APIRoute
from limits import parse

from core.limits import InProcessWindows, RateLimited, RateLimits, declared_limits, limiter
from gateway.app import ROUTERS
from tests.fixtures.redis import RedisServer


async def allowed(limits: RateLimits, key: str, times: int) -> list[bool]:
    answers = []
    for _ in range(times):
        try:
            await limits.hit("test", parse("3/minute"), key)
            answers.append(True)
        except RateLimited:
            answers.append(False)
    return answers


async def test_windows_in_process_count_each_key() -> None:
    limits = RateLimits("memory://")
    assert await allowed(limits, "a", 5) == [True] * 3 + [False] * 2
    assert await allowed(limits, "b", 1) == [True]


async def test_a_window_ends() -> None:
    limits = RateLimits("memory://")
    for expected in (1, 0):
        assert (await limits.hit("test", parse("2/second"), "a")).remaining == expected
    with pytest.raises(RateLimited):
        await limits.hit("test", parse("2/second"), "a")
    await asyncio.sleep(1.05)
    assert (await limits.hit("test", parse("2/second"), "a")).remaining == 1


def test_windows_that_ended_are_forgotten() -> None:
    windows = InProcessWindows()
    windows._sweep_at = 10
    for number in range(10):
        windows.hit("test", parse("1/second"), str(number))
    windows._windows = {at: (count, 0.0) for at, (count, _) in windows._windows.items()}
    windows.hit("test", parse("1/second"), "new")
    assert len(windows._windows) == 1


async def test_processes_count_together_in_redis(redis_server: RedisServer) -> None:
    first, second = RateLimits(redis_server.url), RateLimits(redis_server.url)
    assert await allowed(first, "a", 2) == [True, True]
    assert await allowed(second, "a", 2) == [True, False]
    await first.ping()
    window = await first.hit("test", parse("3/minute"), "b")
    assert (window.remaining, 55 <= window.reset_s <= 60) == (2, True)
    await first.close()
    await second.close()


async def test_without_redis_each_process_counts_for_itself_and_says_so(redis_server: RedisServer) -> None:
    limits = RateLimits(redis_server.url)
    assert await allowed(limits, "a", 1) == [True]
    redis_server.stop()
    assert await allowed(limits, "a", 4) == [True] * 3 + [False]
    assert limits.degraded
    with pytest.raises(ConnectionError, match="does not answer"):
        await limits.ping()
    await limits.close()


def test_every_declared_limit_is_enforced() -> None:
    """slowapi's decorator only declares here; the dependency counts."""
    declared = set(limiter._route_limits)
    assert declared
    enforced = {
        f"{route.endpoint.__module__}.{route.endpoint.__name__}"
        for router in ROUTERS
        for route in router.routes
        if isinstance(route, APIRoute) and declared_limits in route.dependencies
    }
    assert declared == enforced
