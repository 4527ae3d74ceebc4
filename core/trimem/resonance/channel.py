"""How likely it is that one phoneme was heard as another, and words or phrases with it. Pure functions.

A listener hears each phoneme right, as another one that is formed alike, or not at all; now and then he hears
one that was not there. Everything is in nats.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trimem.resonance.phonemes import distances

NEVER = -1e4
"""In place of minus infinity, which would turn into nan."""


@dataclass(frozen=True, slots=True)
class Channel:
    """How a listener errs.

    Attributes:
        changed: Probability that a phoneme is heard as another one.
        dropped: That it is not heard.
        inserted: That one is heard after it which was not there.
        width: How unlike, in mean differences of features, a phoneme must be to be e times less likely.
    """

    changed: float = 0.15
    dropped: float = 0.04
    inserted: float = 0.04
    width: float = 0.12

    def heard(self, heard: Sequence[str], spoken: Sequence[str]) -> Tensor:
        """Return the log-probability of each phoneme heard by each spoken, (heard, spoken)."""
        if not heard or not spoken:
            return torch.zeros(len(heard), len(spoken))
        apart = torch.from_numpy(distances(heard, spoken)).float()
        others = torch.from_numpy(distances(spoken, spoken)).float()
        total = (-others / self.width).exp().sum(0) - 1.0 + 1e-6  # over all phonemes but the one spoken
        wrong = math.log(self.changed) - apart / self.width - total.log()
        right = torch.tensor([[h == s for s in spoken] for h in heard])
        kept = math.log(1 - self.changed - self.dropped)
        return torch.where(right, torch.full_like(wrong, kept), wrong.clamp(max=kept))

    def spurious(self, phonemes: int) -> float:
        """Return the log-probability of a phoneme heard that was not there, among so many."""
        return math.log(self.inserted / max(phonemes, 1))


def align(pairs: Tensor, heard: Tensor, spoken: Tensor, *, spurious: float, dropped: float) -> Tensor:
    """Return how likely phonemes were heard where others were spoken, by the best alignment of the two.

    Args:
        pairs: (batch, heard length, spoken length) log-probability of each phoneme heard by each spoken.
        heard: (batch,) how many phonemes were heard; at least 1.
        spoken: (batch,) how many were spoken.
        spurious: Log-probability of a phoneme heard that was not there.
        dropped: Of one that was not heard.

    Returns:
        (batch,) log-probabilities.

    Cost: O(batch * heard * spoken), one step of tensors for each phoneme heard.
    """
    batch, rows, columns = pairs.shape
    steps = torch.arange(columns + 1, device=pairs.device, dtype=pairs.dtype)
    row = (steps * dropped).repeat(batch, 1)
    result = torch.full((batch,), NEVER, device=pairs.device)
    for i in range(rows):
        best = row + spurious
        torch.maximum(best[:, 1:], row[:, :-1] + pairs[:, i], out=best[:, 1:])
        # Dropping costs the same for each phoneme of a run, so that a running maximum finds the best run.
        row = (best - steps * dropped).cummax(dim=1).values + steps * dropped
        end = row.gather(1, spoken[:, None])[:, 0]
        result = torch.where(heard == i + 1, end, result)
    return result


def align_inside(pairs: Tensor, spoken: Tensor, *, spurious: float, dropped: float) -> tuple[Tensor, Tensor]:
    """Return the same for a phrase that may begin and end anywhere in what was spoken, and where it begins.

    Args:
        pairs: (batch, heard, spoken length) log-probabilities; the same phrase is heard everywhere.
        spoken: (batch,) how many phonemes were spoken.
        spurious: Log-probability of a phoneme heard that was not there.
        dropped: Of one that was not heard.

    Returns:
        (batch,) log-probabilities, and (batch,) the phoneme spoken that the best alignment begins with.
    """
    batch, rows, columns = pairs.shape
    steps = torch.arange(columns + 1, device=pairs.device, dtype=pairs.dtype)
    beyond = torch.arange(columns + 1, device=pairs.device)[None] > spoken[:, None]
    row = torch.zeros(batch, columns + 1, device=pairs.device).masked_fill(beyond, NEVER)
    begin = torch.arange(columns + 1, device=pairs.device).repeat(batch, 1)
    for i in range(rows):
        best, origin = row + spurious, begin
        matched = torch.nn.functional.pad(row[:, :-1] + pairs[:, i], (1, 0), value=NEVER)
        better = matched > best
        best = torch.where(better, matched, best)
        origin = torch.where(better, begin.roll(1, dims=1), origin)
        run = (best - steps * dropped).cummax(dim=1)
        row = (run.values + steps * dropped).masked_fill(beyond, NEVER)
        begin = origin.gather(1, run.indices)
    end = row.max(dim=1)
    return end.values, begin.gather(1, end.indices[:, None])[:, 0]
