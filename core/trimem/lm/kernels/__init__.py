"""Attention over one set of keys that also returns its log-sum-exp, and the merge of several such parts.

A softmax over ``concat(A, B)`` is the softmax over A and the softmax over B, weighted by the
exponential of their log-sum-exps. So the context and the memory are attended to apart, each by the
fastest kernel there is for it, and nothing is ever copied together:

    o_A, l_A = partial(q, A);  o_B, l_B = partial(q, B);  o, l = merge([(o_A, l_A), (o_B, l_B)])

Every kernel has one signature (:class:`Kernel`) and agrees with :func:`reference.partial`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from trimem.lm.kernels import cpu, cuda, flex, reference

__all__ = ["KERNELS", "Kernel", "choose", "merge"]


class Kernel(Protocol):
    """Attention over one set of keys.

    Args:
        query: (batch, num_heads, query_length, head_dim).
        key: (batch, num_kv_heads, key_length, head_dim), key_length at least 1.
        value: (batch, num_kv_heads, key_length, value_dim).
        scaling: Factor on the dot products.
        mask: Broadcasts to (batch, num_heads, query_length, key_length). Boolean, True where a
            query may look; or floating point, added to the scaled (and capped) dot products.
        causal: Query i sees keys 0..i only; needs query_length == key_length and no mask.
        softcap: Logits become ``softcap * tanh(logits / softcap)`` before the mask.

    Returns:
        The attention output (batch, num_heads, query_length, value_dim) and the natural-log
        log-sum-exp of the logits (batch, num_heads, query_length) in float32. A query that sees no
        key has output 0 and log-sum-exp -inf.
    """

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        scaling: float,
        mask: Tensor | None = None,
        causal: bool = False,
        softcap: float | None = None,
    ) -> tuple[Tensor, Tensor]: ...


KERNELS: dict[str, Kernel] = {
    "reference": reference.partial,
    "cpu_flash": cpu.partial,
    "cuda_flash": cuda.partial,
    "flex": flex.partial,
}


def choose(query: Tensor, value: Tensor, softcap: float | None, mask: Tensor | None = None) -> Kernel:
    """Return the fastest kernel that computes this call exactly.

    The fused kernels give no gradient through the log-sum-exp, so training uses the reference.
    """
    learned = any(tensor.requires_grad for tensor in (query, value, mask) if tensor is not None)
    if torch.is_grad_enabled() and learned:
        return reference.partial
    if cpu.supports(query, value, softcap):
        return cpu.partial
    if cuda.supports(query, value, softcap):
        return cuda.partial
    return reference.partial


def merge(partials: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Join attention over several sets of keys into attention over all of them.

    Args:
        partials: Output (..., head_dim) and log-sum-exp (...) of each part.

    Returns:
        Output and log-sum-exp of the whole, both in float32. Where no part saw a key the output is
        0 and the log-sum-exp -inf.
    """
    output, lse = partials[0][0].float(), partials[0][1].float()
    for part_output, part_lse in partials[1:]:
        # exp(b) / (exp(a) + exp(b)) without overflow; NaN only where both are -inf, that is, empty.
        weight = torch.sigmoid(part_lse.float() - lse).nan_to_num(0.0)
        output = torch.lerp(output, part_output.float(), weight[..., None])
        lse = torch.logaddexp(lse, part_lse.float())
    return output, lse
