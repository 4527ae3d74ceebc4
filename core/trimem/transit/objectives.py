"""What training aims at, and how far from it a codec is, in shares of what PCA loses."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

_CHUNK = 1024
_TEMPERATURE = 0.05
_SHAPE = 0.1
"""How much the vectors themselves count where their neighbours are what matters."""

Objective = Callable[[Tensor, Tensor], Tensor]
"""What is made small, given vectors and what is expanded of them, (n, dim) both."""


class Expander(Protocol):
    """What stores vectors as codes."""

    def compress(self, x: Tensor) -> Tensor: ...

    def expand(self, codes: Tensor) -> Tensor: ...


def reconstruction(x: Tensor, expanded: Tensor) -> Tensor:
    """Return the mean squared error."""
    return (x - expanded).square().mean()


def neighbours(x: Tensor, expanded: Tensor) -> Tensor:
    """Return how much the vectors' nearest neighbours change when vectors are expanded ones; O(n² dim).

    Each vector looks for the others. Its distribution over them is the softmax of the dot products, and what
    is lost is the divergence of the one from the other, in nats.
    """
    themselves = torch.eye(len(x), dtype=torch.bool, device=x.device)
    wanted = (x @ x.T / _TEMPERATURE).masked_fill(themselves, -math.inf).log_softmax(1)
    got = (x @ expanded.T / _TEMPERATURE).masked_fill(themselves, -math.inf).log_softmax(1)
    return (wanted.exp() * (wanted - got).masked_fill(themselves, 0.0)).sum(1).mean()


OBJECTIVES: dict[str, Objective] = {"reconstruction": reconstruction, "neighbours": neighbours}
"""What a fit can aim at: the vectors themselves, or which of them are near one another."""


class Losses:
    """An objective, in shares of what PCA loses of it.

    Args:
        objective: The objective.
        shaped: Whether the vectors themselves count too, besides.
    """

    def __init__(self, objective: Objective, shaped: bool) -> None:
        self._objective, self._shaped = objective, shaped
        self._unit = self._shape_unit = 1.0

    def measure(self, model: Expander, sample: Tensor) -> None:
        """Take what a model loses of a sample as the unit."""
        expanded = model.expand(model.compress(sample))
        self._unit = _mean(self._objective, sample, expanded)
        self._shape_unit = float(reconstruction(sample, expanded))

    def matters(self, sample: Tensor) -> bool:
        """Return whether there is anything to win, beyond float32's rounding."""
        return self._unit > 0 and self._shape_unit > 1e-12 * float(sample.square().mean())

    def __call__(self, x: Tensor, expanded: Tensor) -> Tensor:
        loss = self._objective(x, expanded) / self._unit
        return loss + _SHAPE * reconstruction(x, expanded) / self._shape_unit if self._shaped else loss

    def of(self, model: Expander, x: Tensor) -> float:
        """Return the loss of vectors, expanded from what is stored of them."""
        return _mean(self, x, model.expand(model.compress(x)))


def _mean(objective: Objective, x: Tensor, expanded: Tensor) -> float:
    """Return the mean of an objective over chunks; alone, one vector has no neighbours."""
    chunks = [(a, b) for a, b in zip(x.split(_CHUNK), expanded.split(_CHUNK), strict=True) if len(a) > 1 or len(x) == 1]
    return sum(float(objective(a, b)) * len(a) for a, b in chunks) / sum(len(a) for a, _ in chunks)
