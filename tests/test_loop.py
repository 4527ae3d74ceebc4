"""The watch over event loops sees what it is there to see."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.loop import loop_alive


async def test_a_loop_that_waits_is_alive() -> None:
    async with loop_alive():
        await asyncio.to_thread(time.sleep, 0.2)


@pytest.mark.parametrize("busy", [False, True])
async def test_a_loop_that_is_blocked_is_not(busy: bool) -> None:
    async def block() -> None:
        async with loop_alive():
            await asyncio.sleep(0.01)
            until = time.perf_counter() + 0.5
            if not busy:
                time.sleep(0.5)
            while time.perf_counter() < until:
                pass

    with pytest.raises(AssertionError, match=r"stood still for 0\."):
        await block()
