"""In which numbers codes are stored.

Eight bits hold a number of a code as it is. Fewer hold it coarsely, and then it is better to keep more numbers: at
equal bytes, 192 of two bits find far more neighbours than 48 of eight. Their levels lie at odd multiples of half a
step, since with so few of them none should be spent on 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

NUMBERS = {
    "int8": torch.int8,
    "int4": torch.uint8,
    "int2": torch.uint8,
    "float16": torch.float16,
    "float32": torch.float32,
}
"""What codes can be stored in, and what holds them; two of four bits share a byte, or four of two."""

COARSE = {"int4": 4, "int2": 2}
"""Those with several to a byte, and their bits."""

_LEVELS = 127
_WIDEST = 6.0
"""Standard deviations: what lies further out is not worth coarser steps for all."""

_STEP = {"int4": 0.3352, "int2": 0.9957}
"""In standard deviations, what loses least of normal numbers (Max, Quantizing for minimum distortion, 1960)."""


def scales(codes: Tensor, numbers: str) -> Tensor:
    """Return what a count is multiplied by for each dimension, (dim,), so that the codes of a sample fit.

    Args:
        codes: (n, dim) in float32.
        numbers: One of :data:`NUMBERS`.
    """
    tiny = torch.finfo(torch.float32).tiny * _LEVELS
    deviation = codes.square().mean(0).sqrt()
    if numbers in COARSE:
        return (0.5 * _STEP[numbers] * deviation).clamp_min(tiny)
    return torch.minimum(codes.abs().amax(0), _WIDEST * deviation).clamp_min(tiny) / _LEVELS


def counts(codes: Tensor, scale: Tensor, numbers: str) -> Tensor:
    """Return codes as whole numbers, or in floating point where they are stored so, (n, dim).

    What the numbers cannot hold goes to the nearest they can.

    Args:
        codes: (n, dim) in float32.
        scale: (dim,), what a count is multiplied by, if they are whole numbers.
        numbers: One of :data:`NUMBERS`.
    """
    if numbers in COARSE:
        most = (1 << COARSE[numbers]) - 1
        return (2 * (codes / (2 * scale)).floor() + 1).clamp(-most, most).to(torch.int8)
    dtype = NUMBERS[numbers]
    if dtype == torch.int8:
        return (codes / scale).round().clamp(-_LEVELS, _LEVELS).to(dtype)
    largest = torch.finfo(dtype).max
    return codes.clamp(-largest, largest).to(dtype)


def pack(counted: Tensor, numbers: str) -> Tensor:
    """Return what is stored, (n, bytes) in uint8 where several share a byte, of what :func:`counts` returned."""
    if numbers not in COARSE:
        return counted
    bits = COARSE[numbers]
    levels = ((counted.int() + (1 << bits) - 1) >> 1).to(torch.uint8).unflatten(1, (-1, 8 // bits))
    packed = torch.zeros(levels.shape[:2], dtype=torch.uint8, device=counted.device)
    for i in range(8 // bits):
        packed |= levels[:, :, i] << (bits * i)
    return packed


def unpack(stored: Tensor, numbers: str) -> Tensor:
    """Return what :func:`pack` was given."""
    if numbers not in COARSE:
        return stored
    bits = COARSE[numbers]
    levels = torch.stack([stored >> (bits * i) & ((1 << bits) - 1) for i in range(8 // bits)], 2).flatten(1)
    return (2 * levels.to(torch.int8) - ((1 << bits) - 1)).to(torch.int8)


def width(code_dim: int, numbers: str) -> int:
    """Return how many elements of :data:`NUMBERS` a code of ``code_dim`` numbers is stored in."""
    return code_dim * COARSE[numbers] // 8 if numbers in COARSE else code_dim


def nbytes(code_dim: int, numbers: str) -> int:
    """Return the bytes of a code of ``code_dim`` numbers."""
    return width(code_dim, numbers) * NUMBERS[numbers].itemsize
