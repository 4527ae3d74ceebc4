"""How slots are used: counted in memory and written now and then, so that nobody who reads waits for a writer.

Uses that are not written yet are lost when the process is killed.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from threading import Lock

from trimem.store.database import Database
from trimem.types import SlotId

EVERY = timedelta(minutes=1)
"""How often counts are written while slots are read."""

_PATIENCE = 200  # milliseconds to wait for others who write; counts can wait, too
_FIND = "SELECT id, coalesce(warmth, 0), coalesce(warmth_at, id - 1) FROM slot WHERE slot_id = ?"
_ADD = (
    "UPDATE slot SET reads = reads + ?, read_at = max(coalesce(read_at, ''), ?), warmth = ?, warmth_at = ? WHERE id = ?"
)


class Uses:
    """Counts of one open bank. Thread-safe.

    Args:
        database: Of the bank.
        half_life: Slots written after which a use counts half.
    """

    def __init__(self, database: Database, half_life: Callable[[], float]) -> None:
        self._database = database
        self._half_life = half_life
        self._turn = Lock()
        self._lock = Lock()
        self._counts: dict[SlotId, tuple[int, datetime]] = {}
        self._written = database.now()
        self._background = ThreadPoolExecutor(1, "trimem-uses")

    def note(self, slots: Iterable[SlotId]) -> None:
        """Count slots as read at this moment."""
        now = self._database.now()
        with self._lock:
            for slot in slots:
                self._counts[slot] = self._counts.get(slot, (0, now))[0] + 1, now
            due = bool(self._counts) and now - self._written >= EVERY
            if due:
                self._written = now
        if due:
            self._background.submit(self.write)

    def write(self) -> bool:
        """Write what is counted, and return whether that could be done; else it is kept for the next time."""
        with self._turn:
            with self._lock:
                counts, self._counts = self._counts, {}
                self._written = self._database.now()
            if not counts:
                return True
            try:
                self._add(counts)
            except sqlite3.Error:
                with self._lock:
                    for slot, (count, moment) in counts.items():
                        more, latest = self._counts.get(slot, (0, moment))
                        self._counts[slot] = count + more, max(moment, latest)
                return False
            return True

    def _add(self, counts: Mapping[SlotId, tuple[int, datetime]]) -> None:
        half_life = self._half_life()
        with closing(self._database.raw_connection()) as connection:
            cursor = connection.cursor()
            (patience,) = cursor.execute("PRAGMA busy_timeout").fetchone()
            cursor.execute(f"PRAGMA busy_timeout={_PATIENCE}")
            try:
                cursor.execute("BEGIN IMMEDIATE")
                (newest,) = cursor.execute("SELECT max(id) FROM slot").fetchone()
                for slot, (count, moment) in counts.items():
                    for row, before, at in cursor.execute(_FIND, (slot,)).fetchall():  # nothing of one that is gone
                        warmth = _sum(before - (newest - at) / half_life, math.log2(count))
                        cursor.execute(_ADD, (count, _stored(moment), warmth, newest, row))
                cursor.execute("COMMIT")
            finally:
                if cursor.connection.in_transaction:
                    cursor.execute("ROLLBACK")
                cursor.execute(f"PRAGMA busy_timeout={patience}")
                cursor.close()

    def close(self) -> None:
        """Write what is counted, if nobody else writes."""
        self._background.shutdown()
        self._background = ThreadPoolExecutor(1, "trimem-uses")
        self.write()


def _stored(moment: datetime) -> str:
    """Return a moment as the database holds it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")


def _sum(a: float, b: float) -> float:
    """Return log2(2^a + 2^b)."""
    return max(a, b) + math.log2(1 + 2 ** -abs(a - b))
