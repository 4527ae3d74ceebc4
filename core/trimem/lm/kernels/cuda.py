"""PyTorch's fused kernels for CUDA that hand out their log-sum-exp.

Flash attention takes no mask, so it serves the causal prefill and the reading of memories without
bias or window; the memory-efficient kernel takes an additive bias and serves the rest.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from trimem.lm.kernels.masks import additive, sees_nothing

_FLASH_DTYPES = (torch.float16, torch.bfloat16)
_FLASH_HEAD_DIM = 256
_BIAS_ALIGNMENT = 16


def supports(query: Tensor, value: Tensor, softcap: float | None) -> bool:
    """Tell whether this kernel computes such a call."""
    return (
        query.device.type == "cuda"
        and softcap is None
        and query.dtype in (*_FLASH_DTYPES, torch.float32)
        and query.shape[-1] == value.shape[-1] <= _FLASH_HEAD_DIM
        and query.shape[-1] % 8 == 0
    )


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
    batch, num_heads, query_length, _ = query.shape
    group = num_heads // key.shape[1]
    key = key.expand(batch, -1, -1, -1).repeat_interleave(group, 1)
    value = value.expand(batch, -1, -1, -1).repeat_interleave(group, 1)
    if mask is None and query.dtype in _FLASH_DTYPES:
        output, lse = torch.ops.aten._scaled_dot_product_flash_attention(query, key, value, 0.0, causal, scale=scaling)[
            :2
        ]
        return output, lse[..., :query_length].float()
    bias = None
    if mask is not None:
        # The kernel reads the bias in aligned rows: pad the storage, then show it the true width.
        width = key.shape[2]
        full = additive(mask, query.dtype).expand(batch, num_heads, query_length, width)
        bias = pad(full, (0, -width % _BIAS_ALIGNMENT), value=float("-inf"))[..., :width]
    output, lse = torch.ops.aten._scaled_dot_product_efficient_attention(
        query, key, value, bias, True, 0.0, causal, scale=scaling
    )[:2]
    lse = lse[..., :query_length].float()
    if bias is not None:
        blind = sees_nothing(bias, (batch, num_heads, query_length))
        lse, output = lse.masked_fill(blind, float("-inf")), output.masked_fill(blind[..., None], 0.0)
    return output, lse
