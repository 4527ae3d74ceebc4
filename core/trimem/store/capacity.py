"""A bank that holds so much and no more: how slots were used stands in their rows, and says which make room.

What is used stays, what is not goes, whole documents at a time. Items neither count nor go: who keeps an object under a
key, with a time to live or for ever, is to find it there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, func, select, text
from sqlalchemy.orm import Session

from trimem.checks import one_of, real, whole
from trimem.errors import InvalidInputError
from trimem.store.reader import in_batches
from trimem.store.schema import ItemRow, ShardRow, SlotRow
from trimem.store.scope import under
from trimem.types import Namespace, SlotId

POLICIES = ("lfu_aged", "lfu", "lru", "paper")
"""Which slots make room: those used least, where uses age; those read least; longest ago; those read least."""

SHARED_BY = ("bank", "tenant")

_MOST = 2**62  # of anything: SQLite counts to 2^63
_ITEMS = select(ItemRow.document_id)

HALF_LIFE = 10_000
"""Slots written after which a use counts half, where any number of slots is held."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """How much a bank holds of what is remembered, and what makes room when there is more; items do not count.

    Attributes:
        slots: How many slots; None is any number.
        policy: One of :data:`POLICIES`. Under ``"lfu_aged"`` being written is a use, and a use counts half after
            ``half_life``; under ``"lru"``, too, being written is one. Of several that are equal, what was written
            first goes first. In rows, which have no numbers, MemoryTransit's own rule, ``"paper"``, is ``"lfu"``.
        half_life: In slots written; None is as many as there are.
        per: Whose they are: all ``"bank"`` has together, or each ``"tenant"``, the first part of a namespace, has
            for itself. A tenant whose memories make room for another's can tell that the other writes.
        tensor_bytes: How many bytes of tensors; None is any number.
        spare: For how many slots more room is made at once: each time costs as much as to forget, O(index).

    Raises:
        InvalidInputError: A value is outside what is allowed.
    """

    slots: int | None = None
    policy: str = "lfu_aged"
    half_life: float | None = None
    per: str = "bank"
    tensor_bytes: int | None = None
    spare: int = 0

    def __post_init__(self) -> None:
        for name, least in (("slots", 1), ("tensor_bytes", 1), ("spare", 0)):
            if getattr(self, name) is not None or name == "spare":
                whole(getattr(self, name), name, least, _MOST)
        if self.slots is None and self.tensor_bytes is None:
            raise InvalidInputError("a capacity is a number of slots, or of tensor_bytes: give one of them, or both")
        for name, known in (("policy", POLICIES), ("per", SHARED_BY)):
            one_of(getattr(self, name), name, known)
        if self.half_life is not None:
            real(self.half_life, "half_life", 0)

    @property
    def writes(self) -> float:
        """After how many slots written a use counts half."""
        return float(self.slots or HALF_LIFE) if self.half_life is None else self.half_life


@dataclass(frozen=True, slots=True)
class _Held:
    """A document as it is weighed.

    Attributes:
        document: Its row id.
        slots: How many it has.
        bytes: Of their tensors.
    """

    document: int
    slots: int
    bytes: int


def newest_slot(session: Session) -> int:
    """Return the newest row of a slot, which is the time by which uses age; 0 where there is none."""
    return int(session.scalars(text("SELECT coalesce(max(id), 0) FROM main.slot")).one())


def excess(session: Session, capacity: Capacity, namespace: Namespace) -> tuple[int, int]:
    """Return how many slots and bytes of tensors are too many, or, below 0, are free. O(slots of bank or tenant).

    Args:
        session: To read with.
        capacity: Of the bank.
        namespace: Whose.
    """
    scope = _scope(capacity, namespace)
    slots = held = 0
    if capacity.slots is not None:
        slots = session.scalars(select(func.count()).select_from(SlotRow).where(*scope)).one() - capacity.slots
    if capacity.tensor_bytes is not None:
        # The bytes of records add up to those of their files, which are few.
        total = select(func.sum(SlotRow.tensor_bytes))
        if capacity.per == "tenant":
            held = session.scalars(total.where(*scope)).one() or 0
        else:
            files = session.scalars(select(func.sum(ShardRow.bytes)).where(ShardRow.records > 0)).one() or 0
            held = files - (session.scalars(total.where(SlotRow.document_id.in_(_ITEMS))).one() or 0)
        held -= capacity.tensor_bytes
    return slots, held


def overflow(
    session: Session, capacity: Capacity, namespace: Namespace, new: Collection[SlotId]
) -> dict[str, list[SlotId]]:
    """Return the slots that make room, by the namespace they are in as it is stored. O(slots of bank or tenant).

    Args:
        session: In a transaction that writes, with the new slots in it.
        capacity: Of the bank.
        namespace: That was written to.
        new: What was written, which goes last.

    Raises:
        InvalidInputError: A single document is more than the capacity.
    """
    found: dict[str, list[SlotId]] = {}
    for some in in_batches(_doomed(session, capacity, namespace, new)):
        slots = select(SlotRow.namespace, SlotRow.slot_id).where(SlotRow.document_id.in_(some)).order_by(SlotRow.id)
        for path, slot in session.execute(slots):
            found.setdefault(path, []).append(slot)
    return found


def _doomed(session: Session, capacity: Capacity, namespace: Namespace, new: Collection[SlotId]) -> list[int]:
    """Return the row ids of the documents that make room; one always stays."""
    slots, held = excess(session, capacity, namespace)
    if slots <= 0 and held <= 0:
        return []
    spared = slots + capacity.spare if slots > 0 else slots
    written = {
        row
        for some in in_batches(new)
        for row in session.scalars(select(SlotRow.document_id).where(SlotRow.slot_id.in_(some)))
    }
    chosen: list[int] = []
    waiting = _worst_first(session, capacity, namespace, written)
    each = next(waiting)
    for following in waiting:  # so that the last is never chosen
        if held <= 0 and (spared <= 0 or (slots <= 0 and each.document in written)):
            return chosen
        chosen.append(each.document)
        slots, spared, held = slots - each.slots, spared - each.slots, held - each.bytes
        each = following
    if slots > 0 or held > 0:
        raise InvalidInputError(
            f"one text of {each.slots:,} slots and {each.bytes:,} bytes of tensors is more than the bank may hold, "
            f"{capacity}: cut the text up, or give the bank a larger capacity"
        )
    return chosen


def _worst_first(
    session: Session, capacity: Capacity, namespace: Namespace, written: Collection[int]
) -> Iterator[_Held]:
    """Yield documents, the one that goes first first, and those that were just written last."""
    statement = (
        select(SlotRow.document_id, func.count(), func.sum(SlotRow.tensor_bytes))
        .where(*_scope(capacity, namespace))
        .group_by(SlotRow.document_id)
        .order_by(func.max(_value(capacity)), func.min(SlotRow.id))
    )
    later = []
    for document, slots, size in session.execute(statement.execution_options(yield_per=1000)):
        held = _Held(document, slots, size or 0)
        if document in written:
            later.append(held)
        else:
            yield held
    yield from later


def _scope(capacity: Capacity, namespace: Namespace) -> list[ColumnElement[bool]]:
    remembered = SlotRow.document_id.not_in(_ITEMS)
    return [remembered] if capacity.per == "bank" else [remembered, under(SlotRow.namespace, namespace[:1])]


def _value(capacity: Capacity) -> ColumnElement[Any]:
    """Return what is lowest where a slot makes room first."""
    if capacity.policy == "lfu_aged":
        # Instead of letting all uses age, later ones count for more: nothing has to be touched as time goes by.
        used = SlotRow.warmth + SlotRow.warmth_at / capacity.writes
        return func.coalesce(used, (SlotRow.id - 1) / capacity.writes)
    if capacity.policy == "lru":
        return func.coalesce(SlotRow.read_at, SlotRow.created_at)
    return SlotRow.reads.expression
