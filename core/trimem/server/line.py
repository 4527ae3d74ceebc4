"""Requests wait for each other at the model, in the order they came, and not too many of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from trimem.errors import InvalidInputError, ServerBusyError

T = TypeVar("T")


class Line:
    """A line of requests, of which one has its turn.

    Args:
        most: How many may wait.

    Raises:
        InvalidInputError: Nobody may wait.
    """

    def __init__(self, most: int) -> None:
        if most < 1:
            raise InvalidInputError(f"at least one request must be allowed to wait for the model, got {most}")
        self._most = most
        self._waiting = 0
        self._lock = asyncio.Lock()  # bound to an event loop when it is first waited for

    async def run(self, work: Callable[[], T]) -> T:
        """Run ``work`` in a thread when it is its turn.

        Who is cancelled while waiting leaves the line. Work that has begun cannot be cancelled: it keeps its turn
        until it is done, whether anybody still waits for it or not.

        Raises:
            ServerBusyError: Too many wait already.
        """
        if self._waiting >= self._most:
            raise ServerBusyError(f"{self._waiting} requests wait for the model already, as many as may: try again")
        self._waiting += 1
        try:
            await self._lock.acquire()
        finally:
            self._waiting -= 1
        done = asyncio.get_running_loop().run_in_executor(None, work)
        done.add_done_callback(lambda _: self._lock.release())
        return await asyncio.shield(done)
