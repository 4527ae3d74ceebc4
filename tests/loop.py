"""Whether the event loop lives while something is awaited."""

from __future__ import annotations

import asyncio
import gc
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
    which is not held against the loop, unless it was the loop's own thread that computed and let no other run. Garbage
    is not collected meanwhile: there is as much of it as the tests before have left.
    """
    beside = [time.perf_counter()]
    done = Event()

    def tick_beside() -> None:
        while not done.wait(_TICK):
            beside.append(time.perf_counter())

    ticks, computed = [time.perf_counter()], [time.thread_time()]

    async def tick() -> None:
        while True:
            await asyncio.sleep(_TICK)
            ticks.append(time.perf_counter())
            computed.append(time.thread_time())

    collecting = gc.isenabled()
    gc.disable()
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
        if collecting:
            gc.enable()
    beside.append(time.perf_counter())
    still, machine, busy = _longest(ticks), _longest(beside), _longest(computed)
    assert max(still - machine, busy) <= most, (
        f"the event loop stood still for {still:.3f} s, a thread beside it for {machine:.3f} s; its own "
        f"computed for {busy:.3f} s"
    )


def _longest(ticks: list[float]) -> float:
    return max(after - before for before, after in pairwise(ticks))
