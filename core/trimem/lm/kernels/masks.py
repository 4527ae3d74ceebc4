"""The forms a mask takes on its way into a fused kernel."""

from __future__ import annotations

import torch
from torch import Tensor


def additive(mask: Tensor, dtype: torch.dtype, hidden: float = float("-inf")) -> Tensor:
    """Return ``mask`` as an additive bias: a boolean one becomes 0 where True, ``hidden`` where False."""
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, hidden)


def sees_nothing(bias: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Return, per query (batch, num_heads, query_length), whether the bias hides every key from it."""
    return (bias.amax(-1) == float("-inf")).expand(shape)
