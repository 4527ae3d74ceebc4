"""The plain maths of one attention part: slow, exact, differentiable; the other kernels agree with it."""

from __future__ import annotations

import torch
from torch import Tensor


def logits(query: Tensor, key: Tensor, *, scaling: float, softcap: float | None, mask: Tensor | None) -> Tensor:
    """Return the attention logits (batch, num_heads, query_length, key_length) in float32.

    The query heads of one group share a key head without copying it.
    """
    batch, num_heads, query_length, head_dim = query.shape
    num_kv_heads = key.shape[1]
    grouped = query.reshape(batch, num_kv_heads, -1, head_dim).float()
    scores = (grouped @ key.float().transpose(-1, -2)) * scaling
    scores = scores.view(batch, num_heads, query_length, -1)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if mask is None:
        return scores
    if mask.dtype == torch.bool:
        return scores.masked_fill(~mask, float("-inf"))
    return scores + mask


def partial(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    scaling: float,
    mask: Tensor | None = None,
    causal: bool = False,
    softcap: float | None = None,
) -> tuple[Tensor, Tensor]:
    """See :class:`trimem.lm.kernels.Kernel`. Costs O(query_length * key_length) memory."""
    if causal:
        mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril()
    scores = logits(query, key, scaling=scaling, softcap=softcap, mask=mask)
    lse = scores.logsumexp(-1)
    weights = (scores - lse.nan_to_num(neginf=0.0)[..., None]).exp()
    batch, num_heads, query_length, key_length = weights.shape
    grouped = weights.view(batch, value.shape[1], -1, key_length) @ value.float()
    return grouped.view(batch, num_heads, query_length, -1).to(query.dtype), lse
