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

    A thread ticks beside the loop. For as long as it stood still, too, the machine was busy with something else,
    which is not held against the loop.
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
    still, machine = _longest(ticks), _longest(beside)
    assert still <= most + machine, (
        f"the event loop stood still for {still:.3f} s, a thread beside it for {machine:.3f} s"
    )


def _longest(ticks: list[float]) -> float:
    return max(after - before for before, after in pairwise(ticks))
