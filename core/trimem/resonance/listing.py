"""What a block of words may be, best first: hypotheses and all they were nearly, for a checksum to judge."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Change = tuple[tuple[int, str], ...]
"""Words put in the place of others: places and words, at least one."""


@dataclass(frozen=True, slots=True, eq=False)
class Hypothesis:
    """What a text may be, up to some word.

    Attributes:
        units: The words.
        score: Log-posterior in nats, up to a constant that all hypotheses of a text share.
        swaps: What was nearly chosen instead, in nats lost; places count from the beginning of a block.
    """

    units: tuple[str, ...]
    score: float = 0.0
    swaps: tuple[tuple[float, Change], ...] = ()


def listed(hypotheses: Sequence[Hypothesis], words: int) -> Iterator[tuple[str, ...]]:
    """Return what the last ``words`` of a text may be, each once, in order of their posterior.

    Args:
        hypotheses: At least one, in any order.
        words: In the block.

    Cost: as of :func:`combinations`.
    """

    def variants(one: Hypothesis) -> Iterator[tuple[float, tuple[str, ...]]]:
        units = one.units[len(one.units) - words :]
        for loss, changes in combinations(one.swaps):
            changed = list(units)
            for place, unit in changes:
                changed[place] = unit
            yield loss - one.score, tuple(changed)

    seen: set[tuple[str, ...]] = set()
    for _, units in heapq.merge(*map(variants, hypotheses), key=lambda found: found[0]):
        if units not in seen:
            seen.add(units)
            yield units


def combinations(swaps: Sequence[tuple[float, Change]]) -> Iterator[tuple[float, list[tuple[int, str]]]]:
    """Return sets of swaps in order of what they lose together, none first; no place is swapped twice.

    Args:
        swaps: Loss in nats, at least 0, and what changes.

    Returns:
        The loss of each set, and all that it changes.

    Cost: for each set O(log n), and at worst a look at each swap after its last one; as much memory as looks were
    taken.
    """
    ordered = sorted(swaps)
    yield 0.0, []
    heap: list[tuple[float, tuple[int, ...]]] = [(ordered[0][0], (0,))] if ordered else []
    while heap:
        loss, chosen = heapq.heappop(heap)
        changes = [change for i in chosen for change in ordered[i][1]]
        whole = len({place for place, _ in changes}) == len(changes)
        if whole:
            yield loss, changes
        following = chosen[-1] + 1
        if following < len(ordered):
            more = ordered[following][0]
            heapq.heappush(heap, (loss + more - ordered[chosen[-1]][0], (*chosen[:-1], following)))
            if whole:  # what is added to a set that swaps a place twice does not mend it
                heapq.heappush(heap, (loss + more, (*chosen, following)))
