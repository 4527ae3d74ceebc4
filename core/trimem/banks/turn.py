"""Taking turns: what only one process or thread may do to a bank at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from filelock import FileLock, Timeout

from trimem.progress import announce


@contextmanager
def turn(lock: Path, what: str, progress: bool | None) -> Iterator[None]:
    """Wait until nobody else holds a lock file; the system ends the turn of a killed process.

    Args:
        lock: The file.
        what: What is waited for, for the message.
        progress: Whether to say so; None leaves that to the terminal.
    """
    held = FileLock(lock)
    try:
        held.acquire(blocking=False)
    except Timeout:
        with nullcontext() if progress is False else announce(f"waiting for {what}"):
            held.acquire()
    try:
        yield
    finally:
        held.release()


def in_turn(lock: Path) -> bool:
    """Return whether somebody alive holds a lock file."""
    held = FileLock(lock)
    try:
        held.acquire(blocking=False)
    except Timeout:
        return True
    held.release()
    return False
