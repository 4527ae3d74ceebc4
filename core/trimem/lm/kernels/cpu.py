"""PyTorch's fused flash attention for the CPU, which hands out its log-sum-exp."""

from __future__ import annotations

import torch
from torch import Tensor

from trimem.lm.kernels.masks import additive, sees_nothing


def supports(query: Tensor, value: Tensor, softcap: float | None) -> bool:
    """Tell whether this kernel computes such a call."""
    return query.device.type == "cpu" and softcap is None and query.shape[-1] == value.shape[-1]


def partial(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    scaling: float,
    mask: Tensor | None = None,
    causal: bool = False,
    softcap: float | None = None,  # noqa: ARG001 - part of the signature all kernels share
) -> tuple[Tensor, Tensor]:
    """See :class:`trimem.lm.kernels.Kernel`; ``softcap`` must be None."""
    batch, num_heads = query.shape[:2]
    bias = None if mask is None else additive(mask, query.dtype)
    output, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query,
        key.expand(batch, -1, -1, -1),
        value.expand(batch, -1, -1, -1),
        0.0,
        causal,
        attn_mask=bias,
        scale=scaling,
    )
    if bias is not None:
        # For a query that sees nothing the kernel says 0, which would weigh like a real key.
        lse = lse.masked_fill(sees_nothing(bias, (batch, num_heads, query.shape[2])), float("-inf"))
    return output, lse.float()
