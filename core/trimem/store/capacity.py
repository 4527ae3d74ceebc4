"""A bank of a fixed number of slots: how slots are used stands in their rows, and says which make room.

What is used stays, what is not goes. Uses are noted in memory and written a few dozen reads at a time, and before
anything makes room.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from threading import Lock
from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from trimem.errors import InvalidInputError
from trimem.store.reader import in_batches
from trimem.store.schema import SlotRow
from trimem.store.scope import under
from trimem.types import Namespace, SlotId

POLICIES = ("lfu_aged", "lfu", "lru", "paper")
"""Which slots make room: those used least, where uses age; those read least; longest ago; those read least."""

SHARED_BY = ("bank", "tenant")


@dataclass(frozen=True, slots=True)
class Capacity:
    """How many slots there are, and which make room when all are taken.

    Attributes:
        slots: How many.
        policy: One of :data:`POLICIES`. Under ``"lfu_aged"`` being written is a use, and a use counts half after
            ``half_life``; under ``"lru"``, too, being written is one. Of several that are equal, what was written
            first goes first. In rows, which have no numbers, MemoryTransit's own rule, ``"paper"``, is ``"lfu"``.
        half_life: In slots written; None is as many as there are.
        per: Whose they are: all ``"bank"`` has together, or each ``"tenant"``, the first part of a namespace, has
            for itself. A tenant whose memories make room for another's can tell that the other writes.

    Raises:
        InvalidInputError: A value is outside what is allowed.
    """

    slots: int
    policy: str = "lfu_aged"
    half_life: float | None = None
    per: str = "bank"

    def __post_init__(self) -> None:
        if not isinstance(self.slots, int) or isinstance(self.slots, bool) or self.slots < 1:
            raise InvalidInputError(f"slots is how many a bank may hold, at least 1, got {self.slots!r}")
        for name, known in (("policy", POLICIES), ("per", SHARED_BY)):
            if getattr(self, name) not in known:
                raise InvalidInputError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        if self.half_life is not None and not 0 < self.half_life < math.inf:
            raise InvalidInputError(f"half_life is a number of writes above 0, got {self.half_life!r}")

    @property
    def writes(self) -> float:
        """After how many slots written a use counts half."""
        return float(self.slots) if self.half_life is None else self.half_life


@dataclass(frozen=True, slots=True)
class Use:
    """How a slot was used since that was last written down.

    Attributes:
        times: How often.
        last: When it was last.
    """

    times: int
    last: datetime


class Uses:
    """Uses of slots that are not written down yet. Any thread may use it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._noted: dict[SlotId, Use] = {}
        self._reads = 0

    def note(self, slots: Iterable[SlotId], now: datetime) -> int:
        """Note one use of each slot, and return how many reads are noted by now."""
        with self._lock:
            for slot in slots:
                before = self._noted.get(slot)
                self._noted[slot] = Use(1 if before is None else before.times + 1, now)
            self._reads += 1
            return self._reads

    def take(self) -> dict[SlotId, Use]:
        """Return what is noted, which is then to be written down."""
        with self._lock:
            noted, self._noted, self._reads = self._noted, {}, 0
            return noted


def write_uses(session: Session, uses: Mapping[SlotId, Use], half_life: float) -> None:
    """Add uses to slots' rows; slots that are gone do not matter.

    Args:
        session: In a transaction that writes.
        uses: By slot.
        half_life: In slots written, after which a use counts half.
    """
    if not uses:
        return
    clock = session.scalars(select(func.max(SlotRow.id))).one() or 0
    for some in in_batches(uses):
        for row in session.scalars(select(SlotRow).where(SlotRow.slot_id.in_(some))):
            use = uses[row.slot_id]
            row.reads += use.times
            row.read_at = use.last if row.read_at is None else max(row.read_at, use.last)
            before = (row.id - 1) / half_life if row.warmth is None else row.warmth
            row.warmth = _sum(before, clock / half_life + math.log2(use.times))
    session.flush()


def overflow(
    session: Session, capacity: Capacity, namespace: Namespace, new: Collection[SlotId]
) -> dict[str, list[SlotId]]:
    """Return the slots that make room, by the namespace they are in as it is stored. O(slots of bank or tenant).

    Args:
        session: In a transaction that writes, with the new slots in it.
        capacity: Of the bank.
        namespace: That was written to.
        new: What was written, at most as many as there may be.
    """
    scope: list[ColumnElement[bool]] = [] if capacity.per == "bank" else [under(SlotRow.namespace, namespace[:1])]
    over = session.scalars(select(func.count()).select_from(SlotRow).where(*scope)).one() - capacity.slots
    if over <= 0:
        return {}
    worst = (
        select(SlotRow.namespace, SlotRow.slot_id)
        .where(*scope, SlotRow.slot_id.not_in(new))
        .order_by(_value(capacity), SlotRow.id)
        .limit(over)
    )
    found: dict[str, list[SlotId]] = {}
    for path, slot in session.execute(worst):
        found.setdefault(path, []).append(slot)
    return found


def _value(capacity: Capacity) -> ColumnElement[Any]:
    """Return what is lowest where a slot makes room first."""
    if capacity.policy == "lfu_aged":
        # Instead of letting all uses age, later ones count for more: nothing has to be touched as time goes by.
        return func.coalesce(SlotRow.warmth, (SlotRow.id - 1) / capacity.writes)
    if capacity.policy == "lru":
        return func.coalesce(SlotRow.read_at, SlotRow.created_at)
    return SlotRow.reads.expression


def _sum(a: float, b: float) -> float:
    """Return log2(2^a + 2^b)."""
    return max(a, b) + math.log2(1 + 2 ** -abs(a - b))
