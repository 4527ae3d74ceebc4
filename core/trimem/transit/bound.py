"""A bound on the error that holds for any input: what the codec misses is stored beside the code, coarse first.

Each level holds what the levels before it left over, in whole numbers of 8 bits with one step a vector, so
that it divides the error by 254. Most vectors need none or one. What float32 cannot mend so, numbers far
beyond any the codec has seen, is stored as it came.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_MOST_LEVELS = 4
_LEVELS = 127
_SLACK = 1e-5
"""Of the largest number: a vector expanded among others differs by rounding from the same expanded alone."""


@dataclass(frozen=True, slots=True)
class Level:
    """What is added to some vectors.

    Attributes:
        rows: (k,) in int32, to which of the batch.
        steps: (k,) in float32, the size of one.
        counts: (k, dim) in int8.
    """

    rows: Tensor
    steps: Tensor
    counts: Tensor


@dataclass(frozen=True, slots=True)
class Corrections:
    """What brings expanded vectors within the bound.

    Attributes:
        levels: From the coarsest.
        exact_rows: (e,) in int32, which vectors are stored as they came.
        exact: (e, dim) in float32.
    """

    levels: tuple[Level, ...]
    exact_rows: Tensor
    exact: Tensor

    @classmethod
    def none(cls, dim: int) -> Corrections:
        """Return no corrections, of vectors with ``dim`` numbers."""
        return cls((), torch.zeros(0, dtype=torch.int32), torch.zeros(0, dim))

    def nbytes(self, n: int) -> Tensor:
        """Return the bytes that each of ``n`` vectors takes here, (n,) in int64."""
        total = torch.zeros(n, dtype=torch.long)
        for level in self.levels:
            total[level.rows.long()] += level.counts.shape[1] + level.steps.element_size()
        total[self.exact_rows.long()] += self.exact.shape[1] * self.exact.element_size()
        return total

    def apply(self, expanded: Tensor, levels: int | None = None) -> Tensor:
        """Return expanded vectors with their corrections added.

        Args:
            expanded: (n, dim) in float32, of the same vectors in the same order.
            levels: How many to add, coarse first; None adds all and holds the bound.
        """
        mended = expanded.clone()
        for level in self.levels[:levels]:
            rows = level.rows.long().to(mended.device)
            mended[rows] += (level.counts * level.steps[:, None]).to(mended.device)
        if levels is None:
            mended[self.exact_rows.long().to(mended.device)] = self.exact.to(mended.device)
        return mended

    def left(self, n: int) -> Tensor:
        """Return how far off the numbers of each vector are once corrected, root mean square, (n,) in float32.

        What rounding to steps leaves is spread evenly over one, step / sqrt(12), and nothing is left where a vector is
        stored as it came. Not a number where nothing is corrected.

        Args:
            n: Vectors of the batch.
        """
        left = torch.full((n,), torch.nan)
        for level in self.levels:
            left[level.rows.long()] = level.steps / math.sqrt(12)  # a later level is finer
        left[self.exact_rows.long()] = 0.0
        return left

    def of(self, row: int) -> Corrections:
        """Return the corrections of one vector, as of a batch of one."""
        levels = []
        for level in self.levels:
            at = level.rows == row
            if at.any():
                levels.append(Level(torch.zeros(1, dtype=torch.int32), level.steps[at], level.counts[at]))
        at = self.exact_rows == row
        return Corrections(tuple(levels), torch.zeros(int(at.sum()), dtype=torch.int32), self.exact[at])

    def __bool__(self) -> bool:
        return bool(self.levels) or len(self.exact_rows) > 0


def correct(x: Tensor, expanded: Tensor, max_error: float) -> Corrections:
    """Return what must be stored of vectors so that no number of them is off by more than ``max_error``.

    Args:
        x: (n, dim) in float32, finite.
        expanded: (n, dim) in float32, what the codec makes of them; need not be finite.
        max_error: In units of x.
    """
    x, expanded = x.cpu(), expanded.cpu()
    size = torch.maximum(x.abs().amax(1), expanded.abs().amax(1))
    bound = max_error - _SLACK * size.double()
    # Rounding alone may pass the bound where numbers are so large, or are no numbers at all.
    hopeless = ~(bound > 0.5 * max_error)
    mended = expanded.clone()
    mended[hopeless] = x[hopeless]
    levels: list[Level] = []
    for _ in range(_MOST_LEVELS):
        rows = _beyond(x, mended, bound) & ~hopeless
        if not rows.any():
            break
        left = x[rows] - mended[rows]
        steps = left.abs().amax(1) / _LEVELS
        counts = (left / steps[:, None]).round().clamp(-_LEVELS, _LEVELS).to(torch.int8)
        levels.append(Level(rows.nonzero().flatten().int(), steps, counts))
        mended[rows] += counts * steps[:, None]
    hopeless |= _beyond(x, mended, bound)
    kept = [_without(level, hopeless) for level in levels]
    return Corrections(
        tuple(level for level in kept if len(level.rows)), hopeless.nonzero().flatten().int(), x[hopeless].clone()
    )


def _beyond(x: Tensor, mended: Tensor, bound: Tensor) -> Tensor:
    """Return which vectors are further off than the bound, (n,) in bool; what is no number is."""
    return ~((x.double() - mended.double()).abs().amax(1) <= bound)


def _without(level: Level, rows: Tensor) -> Level:
    """Return a level without some rows, (n,) in bool, which are stored as they came."""
    keep = ~rows[level.rows.long()]
    return Level(level.rows[keep], level.steps[keep], level.counts[keep])
