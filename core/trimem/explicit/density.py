"""How many tokens of each hit are read: all of those that search is sure of, few of the rest.

A wrong reference read in full costs attention as well as bytes. The score of a hit against the best
one's tells how sure search is; what is far behind is read at low resolution, which carries what it is
about but not its details.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeVar

from trimem.types import Hit

T = TypeVar("T")

Density = Literal["dense", "mixed"] | Sequence[int]
"""``"dense"``, ``"mixed"``, or tokens a head of the best hit, the second best ..., the last for all others."""

GRADES = ((0.7, None), (0.5, 64), (0.3, 32), (0.0, 8))
"""From which share of the best score on, how many tokens a head; None is all."""


def tokens_per_hit(hits: Sequence[Hit], density: Density) -> list[int | None]:
    """Return how many tokens a head to read of each hit, best first; None is all that are stored."""
    if density == "dense":
        return [None] * len(hits)
    if density == "mixed":
        best = max((hit.score for hit in hits), default=0.0)
        return [_grade(hit.score / best if best > 0 else 1.0) for hit in hits]
    assert not isinstance(density, str)  # for mypy: ReadConfig has seen to it
    return [_at(density, rank) for rank in range(len(hits))]


def by_rank(given: float | Sequence[float], hits: int) -> list[float]:
    """Return what is given for each hit, best first: one for all, or one each, the last for all that follow."""
    return [_at(given, rank) if isinstance(given, Sequence) else given for rank in range(hits)]


def _at(given: Sequence[T], rank: int) -> T:
    return given[min(rank, len(given) - 1)]


def _grade(share: float) -> int | None:
    return next(tokens for least, tokens in GRADES if share >= least)
