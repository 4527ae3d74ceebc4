"""Words decoded from left to right, several hypotheses side by side, with a checksum as the judge of each block.

Beam search for the posterior of prior and signal. What leaves the beam is remembered as a swap of the hypothesis
it differs least from, with what it lost by then, so the list of what a block may be is far longer than the beam is
wide. The first of the list that passes the block's checksum is the text, and the beam goes on from it alone: list
decoding with a CRC, as of polar codes (Tal and Vardy, IEEE Transactions on Information Theory 61(5), 2015).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from trimem.checks import real, whole
from trimem.resonance.listing import Change, Hypothesis
from trimem.resonance.prior import CONTEXT, LanguagePrior
from trimem.resonance.units import split_units

LISTED = 8
"""Proposals for each place in the beam; those that find none are swaps."""

SAME = 6
"""Words after which two hypotheses that agree in them are one: a model hardly minds what stood before."""

KEPT = 4
"""Hypotheses that a block leaves to the next where none passes its check."""

TORN = 12.0
"""Nats that two words lose which would have been cut as one: "of" and "fice" are likely tokens, and no two words."""

TOGETHER = 16
"""Stretches that are read side by side, which takes a fraction of the time of one after the other."""

Judge = Callable[[int, Sequence[Hypothesis]], tuple[str, ...] | None]
"""Given a block's number and its hypotheses, returns its words if they pass its check."""


@dataclass(frozen=True, slots=True)
class Beam:
    """How far a search looks.

    Attributes:
        width: Most hypotheses of a text that are read on.
        reach: How far behind the best one they may be, in nats.

    Raises:
        InvalidInputError: ``width`` is below 1, or ``reach`` is not above 0.
    """

    width: int
    reach: float

    def __post_init__(self) -> None:
        whole(self.width, "width", 1)
        real(self.reach, "reach", 0)


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """What the signal says of a block of words.

    Attributes:
        number: Which block.
        candidates: (words, candidates) surfaces, :data:`trimem.resonance.prior.NOTHING` where there are fewer.
        likelihood: (words, candidates) log-likelihood of the signal, in nats.
        known: Words that are stored as they are, by place.
    """

    number: int
    candidates: NDArray[np.int64] = field(repr=False)
    likelihood: NDArray[np.float64] = field(repr=False)
    known: dict[int, str] = field(repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class Stretch:
    """Neighbouring blocks in doubt.

    Attributes:
        before: The words before them.
        blocks: In order.
    """

    before: tuple[str, ...]
    blocks: Sequence[Block]


class _Step(NamedTuple):
    """A hypothesis continued by a word: by which one, how likely it seemed, and how likely the signal finds it."""

    parent: int
    unit: str
    estimate: float
    likelihood: float


class _Grown(NamedTuple):
    """A hypothesis as it came, what it was taken for before its word was read whole, and its row of the model."""

    hypothesis: Hypothesis
    estimate: float
    row: int


def search(
    prior: LanguagePrior,
    surfaces: Sequence[str],
    stretches: Sequence[Stretch],
    beam: Beam,
    judge: Judge,
) -> list[tuple[str, ...]]:
    """Decode stretches from left to right, block by block.

    Args:
        prior: What words are likely.
        surfaces: Of candidates.
        stretches: What is in doubt; each is decoded by itself.
        beam: How far to look.
        judge: Says what a block is; where it does not know, the best hypotheses are read on.

    Returns:
        The best words of each stretch.

    Raises:
        ContextLengthError: A block with its context does not fit the model's.

    Cost: a forward pass over each word and each hypothesis of it, for :data:`TOGETHER` stretches at once.
    """
    found: list[tuple[str, ...]] = []
    for first in range(0, len(stretches), TOGETHER):
        some = stretches[first : first + TOGETHER]
        texts = [[Hypothesis(stretch.before)] for stretch in some]
        for turn in range(max(len(stretch.blocks) for stretch in some)):
            live = [i for i, stretch in enumerate(some) if turn < len(stretch.blocks)]
            blocks = [some[i].blocks[turn] for i in live]
            grown = _walk(prior, surfaces, [texts[i] for i in live], blocks, beam)
            for i, block, hypotheses in zip(live, blocks, grown, strict=True):
                words = judge(block.number, hypotheses)
                if words is None:
                    texts[i] = hypotheses[:KEPT]
                else:
                    texts[i] = [Hypothesis(hypotheses[0].units[: -len(words)] + words)]
        found += [text[0].units[len(stretch.before) :] for text, stretch in zip(texts, some, strict=True)]
    return found


def _walk(
    prior: LanguagePrior,
    surfaces: Sequence[str],
    texts: Sequence[Sequence[Hypothesis]],
    blocks: Sequence[Block],
    beam: Beam,
) -> list[list[Hypothesis]]:
    """Read a block of each of several texts side by side; return the hypotheses of each, best first."""
    hypotheses = [[replace(one, swaps=()) for one in text] for text in texts]
    branches = prior.read([one.units[-CONTEXT:] for text in texts for one in text])
    count = iter(range(len(branches.said)))
    rows = [[next(count) for _ in text] for text in texts]
    for place in range(max(len(block.candidates) for block in blocks)):
        live = [i for i, block in enumerate(blocks) if place < len(block.candidates)]
        proposed = {}
        for i in live:
            proposed[i] = _propose(prior, branches.said[rows[i]], hypotheses[i], blocks[i], place, surfaces, beam)
        steps = [(i, step) for i in live for step in proposed[i][0]]
        said = prior.extend(branches, [rows[i][step.parent] for i, step in steps], [step.unit for _, step in steps])
        grown: dict[int, list[_Grown]] = {i: [] for i in live}
        for row, ((i, step), heard) in enumerate(zip(steps, said, strict=True)):
            parent = hypotheses[i][step.parent]
            if place not in blocks[i].known:
                # A model has not read every sign: what it finds odd letter by letter may be a common word.
                taken = step.estimate - parent.score - step.likelihood
                heard = float(np.logaddexp(heard, taken)) - math.log(2)
            score = parent.score + heard + step.likelihood
            grown[i].append(_Grown(Hypothesis((*parent.units, step.unit), score, parent.swaps), step.estimate, row))
        for i in live:
            pruned = [((*hypotheses[i][step.parent].units, step.unit), step.estimate) for step in proposed[i][1]]
            hypotheses[i], rows[i] = _prune(grown[i], pruned, place + 1, beam)
    return hypotheses


def _propose(
    prior: LanguagePrior,
    said: Tensor,
    texts: Sequence[Hypothesis],
    block: Block,
    place: int,
    surfaces: Sequence[str],
    beam: Beam,
) -> tuple[list[_Step], list[_Step]]:
    """Return how hypotheses may go on, best first: in the beam, and outside of it."""
    candidates, likelihood = block.candidates[place], block.likelihood[place]
    possible = np.isfinite(likelihood)
    if place in block.known or not possible.any():
        unit = block.known.get(place, "")
        return [_Step(i, unit, text.score, 0.0) for i, text in enumerate(texts)], []
    candidates, likelihood = candidates[possible], likelihood[possible]
    scores = np.array([text.score for text in texts])
    total = scores[:, None] + prior.foretold(said, candidates) + likelihood
    order = np.argsort(-total, axis=None, kind="stable")[: 2 * LISTED * beam.width]
    steps = []
    for at in order.tolist():
        parent, which = divmod(at, len(candidates))
        unit, before = surfaces[candidates[which]], texts[parent].units[-1:]
        likely = float(likelihood[which]) - (0.0 if _apart("".join(before), unit) else TORN)
        estimate = float(total[parent, which]) - float(likelihood[which]) + likely
        steps.append(_Step(parent, unit, estimate, likely))
    steps = sorted(steps, key=lambda step: -step.estimate)[: LISTED * beam.width]
    least = steps[0].estimate - beam.reach
    inside = sum(step.estimate >= least for step in steps[: beam.width])
    return steps[:inside], steps[inside:]


@lru_cache(maxsize=1 << 16)
def _apart(before: str, unit: str) -> bool:
    """Return whether a text is cut between two words."""
    return not before or split_units(before + unit) == [before, unit]


def _prune(
    grown: Sequence[_Grown], pruned: Sequence[tuple[tuple[str, ...], float]], words: int, beam: Beam
) -> tuple[list[Hypothesis], list[int]]:
    """Return the hypotheses that stay, best first, and their rows; they remember all others as swaps.

    Args:
        grown: Hypotheses that were read.
        pruned: Those that were not, with what they were taken for.
        words: Of the block so far.
        beam: How far to look.
    """
    grown = sorted(grown, key=lambda one: -one.hypothesis.score)
    kept: list[_Grown] = []
    others: list[tuple[tuple[str, ...], float | None, float]] = [(units, None, taken) for units, taken in pruned]
    least = grown[0].hypothesis.score - beam.reach
    endings: set[tuple[str, ...]] = set()
    for one in grown:
        ending = one.hypothesis.units[-SAME:]
        if one.hypothesis.score < least or ending in endings:
            others.append((one.hypothesis.units, one.hypothesis.score, 0.0))
        else:
            kept.append(one)
            endings.add(ending)
    swaps: list[list[tuple[float, Change]]] = [[] for _ in kept]
    for units, score, taken in others:
        changes = [_change(one.hypothesis.units, units, words) for one in kept]
        nearest = min(range(len(kept)), key=lambda i: len(changes[i]))
        stays = kept[nearest]
        lost = stays.estimate - taken if score is None else stays.hypothesis.score - score
        if changes[nearest]:
            swaps[nearest].append((max(0.0, lost), changes[nearest]))
    return (
        [replace(one.hypothesis, swaps=(*one.hypothesis.swaps, *more)) for one, more in zip(kept, swaps, strict=True)],
        [one.row for one in kept],
    )


def _change(units: tuple[str, ...], other: tuple[str, ...], words: int) -> Change:
    """Return what makes the last ``words`` of one text those of another."""
    pairs = enumerate(zip(units[-words:], other[-words:], strict=True))
    return tuple((place, new) for place, (old, new) in pairs if old != new)
