"""How a layer's keys carry their position, found by trying, and how to move them to another.

RoPE turns pairs of channels by an angle that grows with the position, so a key can be turned back
to where it has no position and on to any other (Su et al., arXiv 2104.09864). Which frequencies a
layer uses, which channels are paired and how many are turned at all differs by model; what a model
really does is read off its keys: the same tokens are run at two offsets, and the turn that leads
from one set of keys to the other is looked for among the frequencies the model holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor, nn

from trimem.errors import UnsupportedModelError


class Pairing(Enum):
    """Which channels RoPE turns together; ``rotary_dim`` is twice the number of frequencies."""

    HALVES = "halves"  # channel i with i + rotary_dim / 2 (Llama, GPT-NeoX, Phi)
    NEIGHBOURS = "neighbours"  # channel 2i with 2i + 1 (GPT-J, Cohere, GLM)


def rotate(x: Tensor, positions: Tensor, inv_freq: Tensor, pairing: Pairing) -> Tensor:
    """Turn the first ``rotary_dim`` channels of ``x`` by ``positions * inv_freq`` radians.

    ``rotate(rotate(x, p), -p)`` is ``x``. Angles are computed in float32, as transformers does.

    Args:
        x: (..., tokens, head_dim).
        positions: (tokens,) or broadcasting to (..., tokens); may be negative.
        inv_freq: (rotary_dim / 2,), radians a position.
        pairing: Which channels are turned together.
    """
    rotary_dim = 2 * inv_freq.numel()
    cos, sin = _cos_sin(positions.to(x.device), inv_freq.to(x.device, torch.float32))
    turned = x[..., :rotary_dim].float()
    out = torch.empty_like(x)
    if pairing is Pairing.HALVES:
        (a, b), (to_a, to_b) = turned.chunk(2, -1), out[..., :rotary_dim].chunk(2, -1)
    else:
        (a, b), (to_a, to_b) = ((t[..., 0::2], t[..., 1::2]) for t in (turned, out[..., :rotary_dim]))
    to_a.copy_((a * cos).addcmul_(b, sin, value=-1))
    to_b.copy_((b * cos).addcmul_(a, sin))
    out[..., rotary_dim:] = x[..., rotary_dim:]
    return out


def _cos_sin(positions: Tensor, inv_freq: Tensor) -> tuple[Tensor, Tensor]:
    """Return cosines and sines (*positions.shape, rotary_dim / 2) of the angles."""
    low, high = (int(end) for end in positions.aminmax()) if positions.numel() else (0, 0)
    if high - low >= positions.numel():
        angles = positions.float()[..., None] * inv_freq
        return angles.cos(), angles.sin()
    # Heads share their positions, and looking a cosine up is cheaper than computing it.
    angles = torch.arange(low, high + 1, device=positions.device).float()[:, None] * inv_freq
    at = positions.long() - low
    return angles.cos()[at], angles.sin()[at]


@dataclass(frozen=True, slots=True)
class NoPosition:
    """Keys that carry no position: they serve at every one."""

    def apply(self, key: Tensor, positions: Tensor) -> Tensor:
        return key

    def undo(self, key: Tensor, positions: Tensor) -> Tensor:
        return key


@dataclass(frozen=True, slots=True)
class Rope:
    """Keys turned by RoPE.

    The frequencies are read from the model each time, so that variants which change them with the
    length of the context (dynamic NTK, LongRoPE) are followed. What such a variant multiplies keys
    by stays in them.

    Attributes:
        owner: The module that holds the frequencies.
        buffer: Their name in it.
        pairing: Which channels are turned together.
    """

    owner: nn.Module
    buffer: str
    pairing: Pairing

    def apply(self, key: Tensor, positions: Tensor) -> Tensor:
        """Turn position-free keys (..., tokens, head_dim) to ``positions``."""
        return rotate(key, positions, getattr(self.owner, self.buffer), self.pairing)

    def undo(self, key: Tensor, positions: Tensor) -> Tensor:
        """Turn keys (..., tokens, head_dim) that stand at ``positions`` back to where they have none."""
        return rotate(key, -positions, getattr(self.owner, self.buffer), self.pairing)


@dataclass(frozen=True, slots=True)
class AbsolutePosition:
    """Keys into which the position is mixed for good: they serve only where they were made."""

    def apply(self, key: Tensor, positions: Tensor) -> Tensor:
        raise UnsupportedModelError(
            "this model has absolute positions, so its keys cannot be moved: attach them where they were "
            "made, or use a model with rotary positions (Llama, Qwen, Mistral, Gemma, Phi, GPT-NeoX ...)"
        )

    undo = apply


PositionScheme = NoPosition | Rope | AbsolutePosition

# Largest difference, relative to the largest key, that still counts as the same keys.
_TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 5e-2}


def identify(model: nn.Module, first: Tensor, second: Tensor, offset: int) -> PositionScheme:
    """Tell how one layer's keys carry positions.

    Args:
        model: Holds the frequencies in buffers whose name ends in ``inv_freq``.
        first: Keys (..., tokens, head_dim) of some tokens.
        second: Keys of the same tokens ``offset`` positions further on.
        offset: Not 0.
    """
    if first.shape != second.shape:
        return AbsolutePosition()
    shift = torch.full((first.shape[-2],), offset, device=first.device)
    schemes: list[NoPosition | Rope] = [NoPosition(), *_ropes(model, first.shape[-1])]
    errors = [(second.float() - scheme.apply(first, shift).float()).abs().max().item() for scheme in schemes]
    best = min(range(len(schemes)), key=errors.__getitem__)
    if errors[best] <= _TOLERANCE.get(first.dtype, 1e-3) * second.float().abs().max().item():
        return schemes[best]
    return AbsolutePosition()


def _ropes(model: nn.Module, head_dim: int) -> Iterator[Rope]:
    for owner in model.modules():
        for name, buffer in owner.named_buffers(recurse=False):
            if name.endswith("inv_freq") and "original" not in name and 2 * buffer.numel() <= head_dim:
                for pairing in Pairing:
                    yield Rope(owner, name, pairing)
