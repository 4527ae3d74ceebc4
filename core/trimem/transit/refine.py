"""Codes moved to where what they expand to is nearest a vector.

A predictor makes of all that codes can expand to a curved surface through PCA's plane. The code that PCA gives is right
beneath the vector; the nearest point of the surface lies elsewhere, and a few steps downhill find it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_STEP = 0.3
"""Of the first step, in shares of the slope: on a plane half were right, a curved surface is steeper."""

_SHORTER = 0.3
"""Of a step after one that did not help."""


def refine(expand: Callable[[Tensor], Tensor], x: Tensor, code: Tensor, spread: Tensor, steps: int) -> Tensor:
    """Return codes that expand to what is at most as far from the vectors, (n, code_dim).

    Args:
        expand: From codes to vectors, differentiable.
        x: (n, dim).
        code: (n, code_dim), where to begin.
        spread: How much one unit of each number of a code is in units of the vectors, (code_dim,).
        steps: How many, each as long as expanding and going back through it.
    """
    if not steps or not len(x):
        return code
    code = code.detach()
    missed, slope = _missed(expand, x, code, sloping=True)
    size = torch.full_like(missed, _STEP)
    for step in range(1, steps + 1):
        there = code - size * slope / spread.square()
        missed_there, slope_there = _missed(expand, x, there, sloping=step < steps)
        better = missed_there < missed  # never true of NaN
        code, missed = torch.where(better, there, code), torch.where(better, missed_there, missed)
        slope, size = torch.where(better, slope_there, slope), torch.where(better, size, _SHORTER * size)
    return code


def _missed(expand: Callable[[Tensor], Tensor], x: Tensor, code: Tensor, *, sloping: bool) -> tuple[Tensor, Tensor]:
    """Return the squared distance of each vector, (n, 1), and how it slopes, (n, code_dim), or 0."""
    with torch.set_grad_enabled(sloping):
        at = code.detach().requires_grad_(sloping)
        missed = (expand(at) - x).square().sum(1, keepdim=True)
        slope = torch.autograd.grad(missed.sum(), at)[0] if sloping else torch.zeros_like(code)
    return missed.detach(), slope
