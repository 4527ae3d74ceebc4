"""The watch over event loops sees what it is there to see."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from tests.loop import loop_alive


async def test_a_loop_that_waits_is_alive() -> None:
    async with loop_alive():
        await asyncio.to_thread(time.sleep, 0.2)


def wait() -> None:
    time.sleep(0.5)


def compute() -> None:
    until = time.perf_counter() + 0.5
    while time.perf_counter() < until:
        pass


def compute_alone() -> None:
    """Compute in C, where no other thread runs meanwhile."""
    sum(range(40_000_000))


@pytest.mark.parametrize("work", [wait, compute, compute_alone])
async def test_a_loop_that_is_blocked_is_not(work: Callable[[], None]) -> None:
    async def block() -> None:
        async with loop_alive():
            await asyncio.sleep(0.01)
            work()

    with pytest.raises(AssertionError, match=r"stood still for \d"):
        await block()
