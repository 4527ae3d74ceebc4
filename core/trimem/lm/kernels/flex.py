"""PyTorch's flex attention, which knows softcap and any bias and hands out its log-sum-exp.

Compiled on CUDA. Elsewhere it runs as plain operations, which is slower than the reference and
serves to check it; so :func:`trimem.lm.kernels.choose` never picks it: ask for it by name.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import AuxRequest, flex_attention

from trimem.lm.kernels.masks import additive, sees_nothing


@functools.cache
def _flex(device_type: str) -> Callable[..., Any]:
    function = cast("Callable[..., Any]", flex_attention)
    return torch.compile(function, dynamic=True) if device_type == "cuda" else function


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
    """See :class:`trimem.lm.kernels.Kernel`."""
    batch, num_heads, query_length, _ = query.shape
    bias = None
    if mask is not None:
        bias = additive(mask, torch.float32).expand(batch, num_heads, query_length, key.shape[2])

    def score_mod(score: Tensor, b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
        if softcap is not None:
            score = softcap * torch.tanh(score / softcap)
        if bias is not None:
            score = score + bias[b, h, q_idx, kv_idx]
        if causal:
            score = torch.where(q_idx >= kv_idx, score, float("-inf"))
        return score

    with warnings.catch_warnings():
        # Uncompiled it warns that it is slow: known, and why it is never chosen there.
        warnings.filterwarnings("ignore", message="flex_attention called without torch.compile")
        output, aux = _flex(query.device.type)(
            query,
            key.expand(batch, -1, -1, -1),
            value.expand(batch, -1, -1, -1),
            score_mod=score_mod,
            scale=scaling,
            enable_gqa=key.shape[1] != num_heads,
            return_aux=AuxRequest(lse=True),
        )
    lse = aux.lse.float()
    if bias is not None:
        blind = sees_nothing(bias, (batch, num_heads, query_length))
        lse, output = lse.masked_fill(blind, float("-inf")), output.masked_fill(blind[..., None], 0.0)
    return output, lse
