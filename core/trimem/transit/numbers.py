"""In which numbers codes are stored."""

from __future__ import annotations

import torch
from torch import Tensor

NUMBERS = {"int8": torch.int8, "float16": torch.float16, "float32": torch.float32}
"""What codes can be stored in."""

_LEVELS = 127
_WIDEST = 6.0
"""Standard deviations: what lies further out is not worth coarser steps for all."""


def scales(codes: Tensor) -> Tensor:
    """Return the step of int8 for each dimension, (dim,), so that the codes of a sample fit.

    Args:
        codes: (n, dim) in float32.
    """
    largest = codes.abs().amax(0)
    reach = torch.minimum(largest, _WIDEST * codes.square().mean(0).sqrt())
    return reach.clamp_min(torch.finfo(torch.float32).tiny * _LEVELS) / _LEVELS


def pack(codes: Tensor, scale: Tensor, numbers: str) -> Tensor:
    """Return codes as they are stored, (n, dim); what the numbers cannot hold goes to the nearest they can.

    Args:
        codes: (n, dim) in float32.
        scale: (dim,), the step of each dimension, if they are whole numbers.
        numbers: One of :data:`NUMBERS`.
    """
    dtype = NUMBERS[numbers]
    if dtype == torch.int8:
        return (codes / scale).round().clamp(-_LEVELS, _LEVELS).to(dtype)
    largest = torch.finfo(dtype).max
    return codes.clamp(-largest, largest).to(dtype)


def unpack(stored: Tensor, scale: Tensor) -> Tensor:
    """Return codes in float32 again, (n, dim).

    Args:
        stored: As :func:`pack` made them.
        scale: (dim,), as it was given there.
    """
    return stored * scale if stored.dtype == torch.int8 else stored.float()
