"""How sure a mean over questions is: bootstrap intervals by the percentile method (Efron, 1979).

All systems answer the same questions, and some questions are hard for every system. So a resample draws
questions, each with the values of all systems for it: what questions differ in cancels, what systems
differ in stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trimem.errors import InvalidInputError

RESAMPLES = 10_000
CONFIDENCE = 0.95

Array = npt.NDArray[np.float64]
Values = Sequence[float] | Array
"""One value a question, in the order of the questions."""

_BLOCK = 1 << 22  # questions drawn at one time, which bounds the memory it takes


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its confidence interval.

    Attributes:
        value: Of the questions that were asked.
        low: Lower bound of what other questions of their kind would give.
        high: Upper bound.
    """

    value: float
    low: float
    high: float


def mean_difference(
    first: Values, second: Values, *, resamples: int = RESAMPLES, confidence: float = CONFIDENCE, seed: int = 0
) -> Interval:
    """Return mean(first) - mean(second).

    Args:
        first: One system's value for each question.
        second: Another system's, for the same questions in the same order.
        resamples: How often questions are drawn.
        confidence: Share of resamples between the bounds.
        seed: Of the draws.

    Raises:
        InvalidInputError: The values are not finite, not paired or fewer than two, or an option is
            out of its range.
    """
    one, other = _paired(first, second)
    difference = one - other
    (means,) = _resampled_means(difference[None], resamples, seed)
    tail = _tail(confidence)
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(difference.mean()), float(low), float(high))


def ratio_of_means(
    over: Values, under: Values, *, resamples: int = RESAMPLES, confidence: float = CONFIDENCE, seed: int = 0
) -> Interval | None:
    """Return mean(over) / mean(under), or None where the data do not bound it.

    A resample whose mean(under) is 0, or has not the sign it has over all questions, bounds nothing. It
    counts as lying outside on both sides, so the bounds are never too narrow for it; where there are
    more of them than may lie outside, there are no bounds.

    Args:
        over: What is divided, for each question.
        under: What it is divided by, for the same questions in the same order.
        resamples: How often questions are drawn.
        confidence: Share of resamples between the bounds.
        seed: Of the draws.

    Raises:
        InvalidInputError: As :func:`mean_difference`.
    """
    values = _paired(over, under)
    total = values.mean(-1)
    means = _resampled_means(values, resamples, seed)
    tail = _tail(confidence)
    bounding = means[1] * total[1] > 0
    ratios = np.divide(means[0], means[1], out=np.zeros_like(means[0]), where=bounding)
    # No interpolation: between a number and infinity there is nothing.
    low = float(np.quantile(np.where(bounding, ratios, -np.inf), tail, method="lower"))
    high = float(np.quantile(np.where(bounding, ratios, np.inf), 1 - tail, method="higher"))
    if not np.isfinite([low, high]).all():
        return None
    return Interval(float(total[0] / total[1]), low, high)


def gap_closed(
    closed: Values,
    system: Values,
    text: Values,
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Interval | None:
    """Return (mean(closed) - mean(system)) / (mean(closed) - mean(text)), or None as :func:`ratio_of_means`.

    Args:
        closed: Values for each question alone.
        system: A system's, for the same questions in the same order.
        text: What reading the text gives, likewise.
        resamples: How often questions are drawn.
        confidence: Share of resamples between the bounds.
        seed: Of the draws.

    Raises:
        InvalidInputError: As :func:`mean_difference`.
    """
    alone, helped, best = _paired(closed, system, text)
    return ratio_of_means(alone - helped, alone - best, resamples=resamples, confidence=confidence, seed=seed)


def _paired(*systems: Values) -> Array:
    """Return the values as (systems, questions)."""
    lengths = [len(values) for values in systems]
    if min(lengths) < 2 or len(set(lengths)) > 1:
        raise InvalidInputError(f"each system needs a value for the same questions, at least two, got {lengths}")
    values = np.array(systems, dtype=np.float64)
    if not np.isfinite(values).all():
        raise InvalidInputError(f"values must be finite numbers, got {values[~np.isfinite(values)][0]}")
    return values


def _tail(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise InvalidInputError(f"confidence must be between 0 and 1, got {confidence}")
    return (1 - confidence) / 2


def _resampled_means(values: Array, resamples: int, seed: int) -> Array:
    """Draw questions with replacement: (systems, questions) to (systems, resamples)."""
    if resamples < 1:
        raise InvalidInputError(f"resamples must be at least 1, got {resamples}")
    questions = values.shape[1]
    block = max(1, _BLOCK // questions)
    draw = np.random.default_rng(seed)
    return np.concatenate(
        [
            values[:, draw.integers(questions, size=(min(block, resamples - done), questions))].mean(-1)
            for done in range(0, resamples, block)
        ],
        axis=1,
    )
