"""A slot that was found by ear."""

from __future__ import annotations

from dataclasses import dataclass

from trimem.types import Hit

HALF = 3.0
"""Standard deviations above the other slots at which a score is one half."""


@dataclass(frozen=True, slots=True)
class SoundHit(Hit):
    """A slot that sounds like a query; its score is ``z / (z + 3)``, and 0 where z is negative.

    Attributes:
        nats: How much more likely the query was heard because of this slot than by chance.
        z: The same in standard deviations above all other slots that might have been found.
        word: The word of the slot that what resonates begins with.
        quoted: How well the query is heard as a phrase said there: nats as a share of what its phonemes could tell;
            minus infinity where too little of it is.
    """

    nats: float = 0.0
    z: float = 0.0
    word: int = 0
    quoted: float = float("-inf")


def score(z: float) -> float:
    """Return a score from 0 to 1."""
    return max(z, 0.0) / (max(z, 0.0) + HALF)
