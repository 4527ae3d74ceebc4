"""How many tokens of each hit are read: all of those that search is sure of, few of the rest.

A wrong reference read in full costs attention as well as bytes. The score of a hit against the best
one's tells how sure search is; what is far behind is read at low resolution, which carries what it is
about but not its details.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Literal, TypeVar

from trimem.errors import InvalidInputError
from trimem.types import Hit

T = TypeVar("T")

Density = Literal["dense", "mixed"] | Sequence[int]
"""``"dense"``, ``"mixed"``, or tokens a head of the best hit, the second best ..., the last for all others."""

GRADES = ((0.7, None), (0.5, 64), (0.3, 32), (0.0, 8))
"""From which share of the best score on, how many tokens a head; None is all."""


def tokens_per_hit(hits: Sequence[Hit], density: Density) -> list[int | None]:
    """Return how many tokens a head to read of each hit; None is all that are stored.

    Args:
        hits: Best first.
        density: What to go by.

    Raises:
        InvalidInputError: The density is neither known nor a sequence of positive whole numbers.
    """
    if density == "dense":
        return [None] * len(hits)
    if density == "mixed":
        best = max((hit.score for hit in hits), default=0.0)
        return [_grade(hit.score / best if best > 0 else 1.0) for hit in hits]
    if isinstance(density, str) or not density or not all(isinstance(k, int) and k > 0 for k in density):
        raise InvalidInputError(
            f'density must be "dense", "mixed", or tokens a head of each hit, such as (128, 32, 8), got {density!r}'
        )
    return [_at(density, rank) for rank in range(len(hits))]


def bias_per_hit(hits: Sequence[Hit], bias: float | Sequence[float]) -> list[float] | None:
    """Return what is added to the attention logits of each hit, or None for nothing.

    Args:
        hits: Best first.
        bias: One for all, or of the best hit, the second best ..., the last for all others.

    Raises:
        InvalidInputError: There is none, or one is not finite.
    """
    each = [bias] if isinstance(bias, int | float) else list(bias)
    if not each or not all(isinstance(b, int | float) and isfinite(b) for b in each):
        raise InvalidInputError(f"bias must be a finite number, or one for each hit, got {bias!r}")
    return [_at(each, rank) for rank in range(len(hits))] if any(each) else None


def _at(given: Sequence[T], rank: int) -> T:
    """Return what is given for a rank; the last is for all that follow."""
    return given[min(rank, len(given) - 1)]


def _grade(share: float) -> int | None:
    return next(tokens for least, tokens in GRADES if share >= least)
