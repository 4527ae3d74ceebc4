"""The vectors in memory, kept in step with the database, whoever writes to it.

Triggers note every slot that comes or goes. Before each search, what was noted since the last is read:
a few slots at once, many by a thread of its own, while searches go on with what is there.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock

from trimem.store.reader import SearchReader, VectorRows
from trimem.store.vectors import SlotVectors

AT_ONCE = 20_000
"""The most changed slots that a search waits for: about a quarter of a second."""

_STEP = 4096  # slots read in one go


class FollowedVectors:
    """The vectors of a bank's slots, as they are in the database.

    A search sees all that was written before it began, unless another process wrote more than
    :data:`AT_ONCE` slots since the last one: those come in while searches go on.

    Args:
        reader: Of the bank's database.
        exact_slots: See :class:`trimem.store.vectors.SlotVectors`.
        at_once: The most changed slots that a search waits for.
    """

    def __init__(self, reader: SearchReader, exact_slots: int | None = None, at_once: int = AT_ONCE) -> None:
        self._reader = reader
        self._exact_slots = exact_slots
        self._at_once = at_once
        self._following = Lock()
        self._starting = Lock()
        self._seen: int | None = None
        self._moved_by: int | None = None  # the last change that may show in the vectors; None while they change
        self._held: SlotVectors | None = None
        self._reading = ThreadPoolExecutor(1, "trimem-vectors")
        self._behind: Future[None] | None = None

    def current(self) -> SlotVectors | None:
        """Return the vectors in step with the database; None where it has no slots."""
        with self._reader.session() as session:
            newest = self._reader.newest_change(session)
        if self._seen == newest:
            return self._held
        if self._far_behind(newest):
            self._follow_behind()
            return self._held
        self.follow()
        return self._held

    def in_step(self, held: SlotVectors, change: int) -> bool:
        """Return whether ``held`` has been as the database was at a change, until now, or is too far behind to be."""
        in_step = held is self._held and self._seen == self._moved_by == change
        return in_step or self._far_behind(change)

    def follow(self) -> None:
        """Read all that changed since the last time. O(changed slots), all slots at the first time."""
        with self._following:
            with self._reader.session() as session:
                newest = self._reader.newest_change(session)
                changed = None if self._seen is None else self._reader.changes(session, self._seen)
            self._moved_by = None
            if changed is None:
                self._held = self._read_all()
            else:
                for start in range(0, len(changed), _STEP):
                    self._take(changed[start : start + _STEP])
            self._seen = newest
            with self._reader.session() as session:
                self._moved_by = self._reader.newest_change(session)

    def catch_up(self) -> None:
        """:meth:`follow`, unless nothing has been read yet."""
        if self._seen is not None:
            self.follow()

    def close(self) -> None:
        """Wait for what is being read."""
        self._reading.shutdown()
        self._reading = ThreadPoolExecutor(1, "trimem-vectors")

    def _far_behind(self, change: int) -> bool:
        return self._seen is not None and change - self._seen > self._at_once

    def _follow_behind(self) -> None:
        with self._starting:
            if self._behind is not None and self._behind.done():
                self._behind.result()  # raises what went wrong
                self._behind = None
            if self._behind is None:
                self._behind = self._reading.submit(self.follow)

    def _read_all(self) -> SlotVectors | None:
        """Read all slots; what changes meanwhile is read again as a change."""
        held, last = None, 0
        while rows := self._next(last):
            if held is None:
                held = SlotVectors(rows.vectors.shape[1], self._exact_slots)
            held.put(rows.ids, rows.paths, rows.vectors)
            last = rows.ids[-1]
        return held

    def _next(self, last: int) -> VectorRows | None:
        with self._reader.session() as session:
            return self._reader.vectors_after(session, last, _STEP)

    def _take(self, ids: list[int]) -> None:
        with self._reader.session() as session:
            rows = self._reader.vectors_of(session, ids)
        if self._held is not None:
            there = set(rows.ids if rows else ())
            self._held.remove([slot for slot in ids if slot not in there])
        if rows is not None:
            if self._held is None:
                self._held = SlotVectors(rows.vectors.shape[1], self._exact_slots)
            self._held.put(rows.ids, rows.paths, rows.vectors)
