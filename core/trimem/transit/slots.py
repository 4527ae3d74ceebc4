"""A fixed number of slots of vectors, read by likeness: what is used stays, what is not makes room.

After MemoryTransit's bank. A slot holds a code; the slot whose code is most like the query's is expanded and
returned. When all slots are taken, a policy says which is written over. Whether a slot is taken is kept
apart from how often it was read: the paper keeps one number for both, so that what was just written, its
count reset to 0, counts as free, and the next write goes over it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trimem.checks import LARGEST, one_of, real, whole
from trimem.errors import InvalidInputError
from trimem.transit.bound import Corrections
from trimem.transit.idrp import Compressed, Idrp, checked
from trimem.transit.numbers import COARSE, NUMBERS, pack, unpack
from trimem.transit.policies import POLICIES
from trimem.transit.scan import Scan

_CHUNK = 4096
"""Vectors that are compressed at once when many are written."""


@dataclass(frozen=True, slots=True)
class Read:
    """What was found, best first.

    Attributes:
        slots: (n, k) in int64.
        scores: (n, k), cosine of the codes in the units of the input, as PCA would give them.
        vectors: (n, k, dim) in float32, expanded.
        expected_error: (n, k), how far off their numbers are likely to be, root mean square: as the codec expects,
            at most the bound if there is one, and what is left where a slot has corrections.
    """

    slots: Tensor
    scores: Tensor
    vectors: Tensor
    expected_error: Tensor


@dataclass(frozen=True, slots=True)
class SlotStats:
    """What the slots hold.

    Attributes:
        capacity: Slots there are.
        occupied: Slots that are taken.
        corrected: Slots that needed corrections to keep the bound.
        code_bytes: Of all codes that are held; several numbers that share a byte where they are stored do not here.
        correction_bytes: Of all corrections.
        reads: Hits since the slots were made.
        writes: Vectors written since.
        evictions: Taken slots that were written over.
    """

    capacity: int
    occupied: int
    corrected: int
    code_bytes: int
    correction_bytes: int
    reads: int
    writes: int
    evictions: int

    @property
    def bytes_per_slot(self) -> float:
        """Bytes that a taken slot takes on average."""
        return (self.code_bytes + self.correction_bytes) / max(1, self.occupied)


class SlotMemory:
    """Vectors in a fixed number of slots.

    Args:
        codec: Compresses and expands them; its ``max_error`` is kept for whatever is written.
        capacity: How many slots.
        policy: Which slot makes room, one of :data:`trimem.transit.policies.POLICIES`.
        half_life: Writes after which a read counts half, for ``"lfu_aged"``; None is as many as there are slots.

    Raises:
        InvalidInputError: There is no such policy, or a number is out of its range.
    """

    def __init__(self, codec: Idrp, capacity: int, *, policy: str = "lfu_aged", half_life: float | None = None) -> None:
        one_of(policy, "policy", POLICIES)
        whole(capacity, "capacity", 1, LARGEST)
        if half_life is not None:
            real(half_life, "half_life", 0)
        self.codec = codec
        self.capacity = capacity
        self.policy = POLICIES[policy](capacity, half_life or float(capacity))
        numbers = codec.config.numbers
        dtype = torch.int8 if numbers in COARSE else NUMBERS[numbers]
        self._scan = Scan(capacity, codec.config.code_dim, dtype, codec.step)
        self._corrections: dict[int, Corrections] = {}
        self._reads = self._writes = self._evictions = 0

    @property
    def occupied(self) -> Tensor:
        """Which slots are taken, (capacity,) in bool."""
        return self._scan.occupied.clone()

    def write(self, x: Tensor, *, mean: bool = False) -> Tensor:
        """Store vectors and return their slots, (n,) in int64.

        Free slots are taken first. Up to 4096 vectors are written together, or as many as there are slots: none of
        them goes over another. O(n (weights + capacity log capacity / 4096)).

        Args:
            x: (n, dim) in any floating point.
            mean: Whether to store one vector by the mean of all codes, as the paper does: right for views of one
                scene, wrong for ten facts. The bound is kept for the mean of the vectors.

        Raises:
            InvalidInputError: The vectors are of another dimension, or a number is not finite.
        """
        x = checked(x, self.codec.dim)
        if not len(x):
            return torch.zeros(0, dtype=torch.long)
        if mean:
            codes = self.codec.pack(self.codec.code(x).mean(0, keepdim=True))
            return self._place(self.codec.within(x.mean(0, keepdim=True), codes))
        parts = x.split(min(_CHUNK, self.capacity))
        return torch.cat([self._place(self.codec.compress_within(part)) for part in parts])

    def read(self, queries: Tensor, k: int = 1, *, touch: bool = True) -> Read:
        """Return the taken slots whose codes are most like the queries'; O(n capacity code_dim), exact.

        Args:
            queries: (n, dim) in any floating point.
            k: How many a query, at most as many as are taken.
            touch: Whether it counts as use.

        Raises:
            InvalidInputError: The queries are of another dimension or not finite, or fewer than k slots are taken.
        """
        taken = int(self._scan.occupied.sum())
        if not 1 <= k <= taken:
            raise InvalidInputError(f"k must be at least 1 and at most the {taken} slots that are taken, got {k}")
        scores, slots = self._scan.nearest(self.codec.place(self.codec.code(queries)), k)
        if touch:
            self.policy.touch(slots.flatten())
            self._reads += slots.numel()
        flat = slots.flatten()
        error = self.codec.expected_error(self._stored(flat))
        bound = self.codec.config.max_error
        if bound is not None:
            error = error.clamp_max(bound)
        for i, slot in enumerate(flat.tolist()):
            if slot in self._corrections:
                error[i] = self._corrections[slot].left(1)
        shape = slots.shape
        return Read(slots, scores, self.vectors(flat).view(*shape, -1), error.view(shape))

    def vectors(self, slots: Tensor) -> Tensor:
        """Return what slots hold, expanded, (n, dim) in float32.

        Args:
            slots: (n,) in int64.

        Raises:
            InvalidInputError: A slot is free, or there is none of that number.
        """
        self._check(slots)
        vectors = self.codec.expand(self._stored(slots))
        for i, slot in enumerate(slots.tolist()):
            if slot in self._corrections:
                vectors[i] = self._corrections[slot].apply(vectors[i : i + 1])[0]
        return vectors

    def erase(self, slots: Tensor) -> None:
        """Free slots; their numbers are overwritten with 0.

        Args:
            slots: (n,) in int64.

        Raises:
            InvalidInputError: A slot is free, or there is none of that number.
        """
        self._check(slots)
        self._scan.clear(slots)
        for slot in slots.tolist():
            self._corrections.pop(slot, None)

    def stats(self) -> SlotStats:
        """Count what is held."""
        occupied = int(self._scan.occupied.sum())
        codes = self._scan.codes
        return SlotStats(
            capacity=self.capacity,
            occupied=occupied,
            corrected=len(self._corrections),
            code_bytes=occupied * codes.shape[1] * codes.element_size(),
            correction_bytes=sum(int(each.nbytes(1).sum()) for each in self._corrections.values()),
            reads=self._reads,
            writes=self._writes,
            evictions=self._evictions,
        )

    def _place(self, stored: Compressed) -> Tensor:
        """Put codes into slots, at most as many as there are, and return which, (n,)."""
        slots = self.policy.choose(self._scan.occupied, len(stored.codes))
        taken = self._scan.occupied[slots]
        self._evictions += int(taken.sum())
        for slot in slots[taken].tolist():
            self._corrections.pop(slot, None)
        self._scan.put(slots, unpack(stored.codes, self.codec.config.numbers))
        self.policy.write(slots)
        for row in stored.corrections.nbytes(len(slots)).nonzero().flatten().tolist():
            self._corrections[int(slots[row])] = stored.corrections.of(row)
        self._writes += len(slots)
        return slots

    def _stored(self, slots: Tensor) -> Tensor:
        return pack(self._scan.codes[slots], self.codec.config.numbers)

    def _check(self, slots: Tensor) -> None:
        """Refuse slots that hold nothing.

        Raises:
            InvalidInputError: One is free, or there is none of that number.
        """
        there = (slots >= 0) & (slots < self.capacity)
        wrong = slots[~there | ~self._scan.occupied[slots.clamp(0, self.capacity - 1)]]
        if len(wrong):
            raise InvalidInputError(f"slots {wrong.tolist()} hold nothing; taken are {int(self._scan.occupied.sum())}")
