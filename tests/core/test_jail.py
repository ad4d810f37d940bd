"""Work that can be stopped, and that does not queue without end."""

import asyncio
import os
import time
from collections.abc import AsyncIterator

import pytest
import uvloop

from core.jail import Jail, JailCrash, JailTimeout
from core.problems import Unavailable


@pytest.fixture(scope="module")
async def jail() -> AsyncIterator[Jail]:
    made = Jail(workers=1, memory_bytes=1024**3)
    made.warm()
    yield made
    made.close()


async def test_work_is_done_in_another_process(jail: Jail) -> None:
    assert await jail.run(10, os.getpid) != os.getpid()


async def test_work_that_takes_too_long_is_stopped(jail: Jail) -> None:
    await jail.run(10, os.getpid)
    started = time.monotonic()
    with pytest.raises(JailTimeout):
        await jail.run(0.3, time.sleep, 30)
    assert time.monotonic() - started < 5
    assert await jail.run(10, abs, -1) == 1


async def test_a_worker_that_dies_is_replaced(jail: Jail) -> None:
    with pytest.raises(JailCrash):
        await jail.run(10, os._exit, 3)
    assert await jail.run(10, abs, -1) == 1


async def test_memory_is_bounded(jail: Jail) -> None:
    with pytest.raises(MemoryError):
        await jail.run(10, bytes, 4 * 1024**3)


async def test_errors_of_the_work_arrive(jail: Jail) -> None:
    with pytest.raises(ZeroDivisionError):
        await jail.run(10, divmod, 1, 0)


async def test_secrets_of_the_gateway_stay_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DERMADETECT_MASTER_KEY", "secret")
    monkeypatch.setenv("PGPASSWORD", "secret")
    own = Jail(workers=1)
    try:
        for name in ("DERMADETECT_MASTER_KEY", "PGPASSWORD"):
            assert await own.run(10, os.getenv, name) is None
    finally:
        own.close()


async def test_what_is_too_much_is_refused_at_once(jail: Jail) -> None:
    waiting = [asyncio.create_task(jail.run(30, time.sleep, 0.05)) for _ in range(8)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        await jail.run(10, abs, -1)
    await asyncio.gather(*waiting)
    assert await jail.run(10, abs, -1) == 1


async def test_a_caller_that_gives_up_frees_the_worker(jail: Jail) -> None:
    task = asyncio.create_task(jail.run(30, time.sleep, 30))
    await asyncio.sleep(0.3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.wait_for(jail.run(10, abs, -1), 5) == 1


def test_an_event_loop_that_never_idles_does_not_keep_the_answers_away() -> None:
    """The pool's threads get their turns: twenty answers took half a minute while they did not."""

    async def turn() -> None:
        while True:
            sum(range(5_000))
            await asyncio.sleep(0)

    async def ask() -> None:
        own = Jail(workers=1)
        turns: list[asyncio.Task[None]] = []
        try:
            await own.run(10, abs, -1)
            turns += [asyncio.create_task(turn()) for _ in range(20)]
            async with asyncio.timeout(10):
                for number in range(20):
                    assert await own.run(10, abs, -number) == number
        finally:
            for each in turns:
                each.cancel()
            own.close()

    uvloop.run(ask())  # what the gateway is served by
