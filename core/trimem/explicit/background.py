"""Work that nobody waits for, done one thing after the other in a thread that is there while it is needed."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import TypeVar

T = TypeVar("T")


class Background:
    """Takes work at any time, from any thread."""

    def __init__(self) -> None:
        self._executor: ThreadPoolExecutor | None = None
        self._lock = Lock()

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Do some work after what was submitted before, and return what will come of it."""
        with self._lock:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(1, thread_name_prefix="trimem-background")
            return self._executor.submit(work)

    def close(self) -> None:
        """Wait for the work at hand and drop what has not begun."""
        with self._lock:
            executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(cancel_futures=True)
