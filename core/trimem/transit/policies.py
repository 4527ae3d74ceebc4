"""Which slot makes room when all are taken: used keeps, unused goes."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class Policy(ABC):
    """Knows how slots were used. Whether a slot is taken is not its business.

    Args:
        capacity: Slots.
        half_life: Writes after which a use counts half, for policies that age.
    """

    def __init__(self, capacity: int, half_life: float) -> None:
        self.half_life = half_life
        self.clock = 0
        """Vectors written so far."""
        self.written = torch.full((capacity,), -1, dtype=torch.long)
        """When each slot was last written, on the clock."""

    def choose(self, occupied: Tensor, n: int) -> Tensor:
        """Return the slots that the next ``n`` vectors go to, (n,) in int64: free ones first.

        Args:
            occupied: (capacity,) in bool.
            n: At most as many as there are slots.
        """
        free = (~occupied).nonzero().flatten()[:n]
        if len(free) == n:
            return free
        return torch.cat([free, self._worst(occupied.nonzero().flatten(), n - len(free))])

    def write(self, slots: Tensor) -> None:
        """Note that slots were written, (n,) in int64, each once."""
        self.written[slots] = torch.arange(self.clock, self.clock + len(slots))
        self.clock += len(slots)

    @abstractmethod
    def touch(self, slots: Tensor) -> None:
        """Note that slots were read, (n,) in int64; one may come more than once."""

    @abstractmethod
    def _worst(self, taken: Tensor, n: int) -> Tensor:
        """Return the ``n`` of the taken slots that make room, first the one that does first."""


class Lru(Policy):
    """The slot that was used longest ago."""

    def __init__(self, capacity: int, half_life: float) -> None:
        super().__init__(capacity, half_life)
        self._uses = 0
        self._used = torch.zeros(capacity, dtype=torch.long)

    def write(self, slots: Tensor) -> None:
        super().write(slots)
        self.touch(slots)

    def touch(self, slots: Tensor) -> None:
        self._used[slots] = torch.arange(self._uses, self._uses + len(slots))
        self._uses += len(slots)

    def _worst(self, taken: Tensor, n: int) -> Tensor:
        return _lowest(taken, n, self._used[taken].double())


class Lfu(Policy):
    """The slot that was read least since it was written; of several, the one written first."""

    def __init__(self, capacity: int, half_life: float) -> None:
        super().__init__(capacity, half_life)
        self.count = torch.zeros(capacity, dtype=torch.long)
        """How often each slot was read since it was written."""

    def write(self, slots: Tensor) -> None:
        super().write(slots)
        self.count[slots] = 0

    def touch(self, slots: Tensor) -> None:
        self.count.index_add_(0, slots, torch.ones_like(slots))

    def _worst(self, taken: Tensor, n: int) -> Tensor:
        return _lowest(taken, n, self.count[taken].double(), self.written[taken])


class Paper(Lfu):
    """MemoryTransit's rule: the slot with the lowest access count, the first of several; a write resets the count.

    One thing is mended: there, a count of 0 also means that a slot is free.
    """

    def _worst(self, taken: Tensor, n: int) -> Tensor:
        return _lowest(taken, n, self.count[taken].double())


class LfuAged(Policy):
    """The slot that was used least, where a use counts half after each half-life, and a write is a use.

    So what is new has time to be found useful, and an old favourite that is no longer asked for goes.
    Counts are kept as logarithms, on a scale that grows with the clock: then none has to be touched as time goes by.
    """

    def __init__(self, capacity: int, half_life: float) -> None:
        super().__init__(capacity, half_life)
        self._log_count = torch.full((capacity,), -torch.inf, dtype=torch.float64)

    def write(self, slots: Tensor) -> None:
        now = self.clock
        super().write(slots)
        times = torch.arange(now, now + len(slots), dtype=torch.float64)
        self._log_count[slots] = times / self.half_life

    def touch(self, slots: Tensor) -> None:
        unique, times = slots.unique(return_counts=True)
        gained = self.clock / self.half_life + times.double().log2()
        self._log_count[unique] = torch.logaddexp2(self._log_count[unique], gained)

    def _worst(self, taken: Tensor, n: int) -> Tensor:
        return _lowest(taken, n, self._log_count[taken], self.written[taken])


POLICIES: dict[str, type[Policy]] = {"lfu_aged": LfuAged, "lfu": Lfu, "lru": Lru, "paper": Paper}
"""Which slot makes room, by name."""


def _lowest(taken: Tensor, n: int, value: Tensor, *then: Tensor) -> Tensor:
    """Return the ``n`` slots of the lowest values, by the further keys where values are equal, then by number."""
    order = torch.arange(len(taken))
    for key in reversed((value, *then)):
        order = order[key[order].argsort(stable=True)]
    return taken[order[:n]]
