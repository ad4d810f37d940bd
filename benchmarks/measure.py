"""Ours against a baseline: alternating rounds, medians, one ratio."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Literal

ROUNDS = 13
WARM_UPS = 4

Round = Callable[[], Awaitable[float]]
"""One measurement of one contender, in the benchmark's unit."""


@dataclass(frozen=True)
class Result:
    """One row of the table: medians of ours and of the baseline, their ratio, and what the ratio should be.

    `name` is the benchmark's, or begins with it and a dot.
    """

    name: str
    what: str
    ours: float
    baseline: float
    unit: str
    ratio: float
    target: float
    better: Literal["higher", "lower"]

    @property
    def met(self) -> bool:
        return self.ratio >= self.target if self.better == "higher" else self.ratio <= self.target


def compare(
    name: str,
    what: str,
    *,
    ours: float,
    baseline: float,
    unit: str,
    target: float,
    better: Literal["higher", "lower"] = "higher",
) -> Result:
    """The result of two medians; the ratio is ours by the baseline."""
    return Result(name, what, ours, baseline, unit, ours / baseline, target, better)


async def medians(contenders: Mapping[str, Round]) -> dict[str, float]:
    """The median of each contender over many short rounds, after some that warm up.

    Every contender takes part in every round, in an order that is reversed each time: what else the machine
    does then falls on all of them alike.
    """
    seen: dict[str, list[float]] = {name: [] for name in contenders}
    order = list(contenders)
    for number in range(WARM_UPS + ROUNDS):
        for name in order:
            value = await contenders[name]()
            if number >= WARM_UPS:
                seen[name].append(value)
        order.reverse()
    return {name: median(values) for name, values in seen.items()}


async def rate(act: Callable[[int], Awaitable[None]], *, tasks: int, seconds: float) -> float:
    """How often per second `tasks` concurrent tasks together finish `act`, which is told the task's number."""
    done = 0
    started = time.perf_counter()

    async def repeat(number: int) -> None:
        nonlocal done
        while time.perf_counter() - started < seconds:
            await act(number)
            done += 1

    await asyncio.gather(*(repeat(number) for number in range(tasks)))
    return done / (time.perf_counter() - started)
