"""Whether the event loop lives while something is awaited."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from threading import Event, Thread

MOST_SECONDS = 0.05
"""For how long a loop may stand still."""

_TICK = 0.002


@asynccontextmanager
async def loop_alive(most: float = MOST_SECONDS) -> AsyncIterator[None]:
    """Fail if the loop stands still for longer than ``most`` seconds while the ``async with`` block runs.

    A thread ticks beside the loop. Where it stood still, too, the machine was busy with something else, which is
    not held against the loop.
    """
    beside = [time.perf_counter()]
    done = Event()

    def tick_beside() -> None:
        while not done.wait(_TICK):
            beside.append(time.perf_counter())

    ticks = [time.perf_counter()]

    async def tick() -> None:
        while True:
            await asyncio.sleep(_TICK)
            ticks.append(time.perf_counter())

    thread = Thread(target=tick_beside)
    thread.start()
    ticking = asyncio.create_task(tick())
    await asyncio.sleep(0)
    try:
        yield
        await asyncio.sleep(2 * _TICK)
    finally:
        ticking.cancel()
        done.set()
        thread.join()
    beside.append(time.perf_counter())
    still = max(_pause(before, after, beside) for before, after in pairwise(ticks))
    assert still <= most, f"the event loop stood still for {still:.3f} s"


def _pause(before: float, after: float, beside: list[float]) -> float:
    """Return for how long the loop stood still from one tick to the next while the thread beside it did not."""
    shared = max(
        (min(stop, after) - max(start, before) for start, stop in pairwise(beside) if stop > before and start < after),
        default=0.0,
    )
    return after - before - shared
