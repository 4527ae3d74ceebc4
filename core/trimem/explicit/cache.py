"""Records that were read lately, kept decoded within a number of bytes: the tier above the disk."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from threading import Lock

from trimem.checks import whole
from trimem.explicit.record import Record
from trimem.reports import CacheStats
from trimem.types import SlotId


class RecordCache:
    """Least recently used goes first. Any thread may use it.

    Args:
        limit: Most bytes of key-values held; 0 keeps nothing.

    Raises:
        InvalidInputError: The limit is no whole number of at least 0.
    """

    def __init__(self, limit: int) -> None:
        self._limit = whole(limit, "a cache's limit, in bytes,", 0)
        self._held: OrderedDict[SlotId, tuple[int | None, Record]] = OrderedDict()
        self._bytes = self._hits = self._misses = 0
        self._lock = Lock()

    def get(self, slot: SlotId, most: int | None) -> Record | None:
        """Return at most so many tokens a head of a slot's record, or None if not as many are held.

        Args:
            slot: Whose.
            most: Tokens a head; None is all that are stored.
        """
        with self._lock:
            held = self._held.get(slot)
            if held is None or (held[0] is not None and (most is None or most > held[0])):
                self._misses += 1
                return None
            self._hits += 1
            self._held.move_to_end(slot)
        return held[1] if most is None or most == held[0] else held[1].first(most)

    def put(self, slot: SlotId, most: int | None, record: Record) -> None:
        """Hold a record that was read with at most so many tokens a head; what is larger than all is not held."""
        with self._lock:
            self._drop(slot)
            if record.nbytes <= self._limit:
                self._held[slot] = most, record
                self._bytes += record.nbytes
            while self._bytes > self._limit:
                self._drop(next(iter(self._held)))

    def drop(self, slots: Iterable[SlotId]) -> None:
        """Let go of slots."""
        with self._lock:
            for slot in slots:
                self._drop(slot)

    def stats(self) -> CacheStats:
        with self._lock:
            return CacheStats(len(self._held), self._bytes, self._limit, self._hits, self._misses)

    def _drop(self, slot: SlotId) -> None:
        if (held := self._held.pop(slot, None)) is not None:
            self._bytes -= held[1].nbytes
