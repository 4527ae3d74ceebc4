"""Which tokens of a reference a KV head keeps: rules that score them before any question is known.

A memory is written before it is asked for, so a rule sees the reference alone: the queries, keys and
values of its own tokens as they were before RoPE, without causal mask, which gives every place an
equal chance (Memory³, section 3.3). The prefix and BOS are no part of it. All rules have one signature
(:class:`Rule`) and their names (:data:`RULES`).
"""
# ruff: noqa: ARG001 - a rule takes what all rules take, also where it does not look at it

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import avg_pool1d, max_pool1d

from trimem.errors import InvalidInputError
from trimem.lm.kernels.reference import logits

_NEIGHBOURS = 3
_RIDGE = 0.01
_BLEND = 0.35
_EPS = torch.finfo(torch.float32).eps
_TINY = torch.finfo(torch.float32).tiny


class Rule(Protocol):
    """How much each token of a reference is worth to each KV head.

    A row of the batch is scored by itself: neither the other rows nor its padding change its scores.

    Args:
        query: (batch, num_heads, tokens, head_dim), before RoPE.
        key: (batch, num_kv_heads, tokens, head_dim), before RoPE.
        value: (batch, num_kv_heads, tokens, value_dim).
        mask: (batch, tokens), True on tokens of the reference, False on padding.
        scaling: Factor on the dot products in the layer's softmax.

    Returns:
        (batch, num_kv_heads, tokens) in float32; the higher, the sooner kept. Padding gets -inf.
    """

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, *, scaling: float) -> Tensor: ...


def paper(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, *, scaling: float) -> Tensor:
    """Score by the attention received, summed over all queries of the group (Memory³, section 3.3).

    See :class:`Rule`. O(tokens²) a head, as all rules but ``key_norm`` and ``leverage``.
    """
    attention = _real_queries(_logits(query, key, mask, scaling).softmax(-1), mask)
    return _hide(attention.sum((2, 3)), mask)


def paper_exp(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, *, scaling: float) -> Tensor:
    """Score by the sum of ``exp(q.k)`` without the softmax's denominator (Memory³, section 3.3).

    What the paper's own code computed. The logarithm of the sum is returned: same order, no overflow.
    See :class:`Rule`.
    """
    scores = _logits(query, key, mask, scaling).masked_fill(~_queries(mask), float("-inf"))
    return _hide(scores.logsumexp((2, 3)), mask)


def strongest(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, *, scaling: float) -> Tensor:
    """Score by the most attention that any other token pays; a token lends its score to its neighbours.

    The softmax leaves out the diagonal, so that no token recommends itself; the maximum finds what one
    query cannot do without, which a sum drowns; pooling over 3 neighbours keeps names and numbers of
    several tokens together. A token that stands alone looks at itself. See :class:`Rule`.
    """
    scores = _logits(query, key, mask, scaling)
    # Finite, so that it yields to every other token but not to padding: a lone token gives no NaN.
    diagonal = scores.diagonal(dim1=-2, dim2=-1)
    diagonal.copy_(torch.where(mask[:, None, None], torch.finfo(torch.float32).min, float("-inf")))
    peak = _hide(_real_queries(scores.softmax(-1), mask).amax((2, 3)), mask)
    return _hide(max_pool1d(peak, _NEIGHBOURS, stride=1, padding=_NEIGHBOURS // 2), mask)


def value_norm(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, *, scaling: float) -> Tensor:
    """Score by what a token moves: the attention of :func:`paper` times the length of its value.

    See :class:`Rule`.
    """
    received = paper(query, key, value, mask, scaling=scaling)
    return _hide(received * value.float().norm(dim=-1), mask)


def key_norm(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, *, scaling: float) -> Tensor:
    """Score by how short the key is: short keys tend to be attended to most (arXiv 2406.11430).

    See :class:`Rule`.
    """
    return _hide(-key.float().norm(dim=-1), mask)


def expected_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, *, scaling: float) -> Tensor:
    """Score by the attention expected of queries like the reference's own (Expected Attention, arXiv 2510.00636).

    If queries are normal with mean m and covariance S, then ``q.k * scaling`` is normal, too, and the mean
    of its exponential is ``exp(m.k * scaling + scaling² k'Sk / 2)``: the mean of the logits plus half their
    variance. Each query head has its own Gaussian and its weights sum to 1, the group is averaged, and
    the length of the value weighs it. Returned as a logarithm. See :class:`Rule`.
    """
    scores, real = _logits(query, key, None, scaling), _queries(mask)
    count = real.sum(3)
    mean = scores.masked_fill(~real, 0.0).sum(3) / count
    variance = (scores - mean[:, :, :, None]).square().masked_fill(~real, 0.0).sum(3) / count
    expected = (mean + variance / 2).masked_fill(~mask[:, None, None], float("-inf")).log_softmax(-1)
    return _hide(expected.logsumexp(2) + value.float().norm(dim=-1).clamp_min(_TINY).log(), mask)


def leverage(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, *, scaling: float) -> Tensor:
    """Score by how little the other tokens can stand in for a key (Compactor, arXiv 2507.08143).

    The ridge leverage ``diag(X (X'X + r)⁻¹ X')`` of the centred keys X, solved exactly: a reference is
    short, so the paper's random sketch is not needed. r is 1 % of the mean eigenvalue of ``X'X``, so that
    scores do not depend on how long keys are. O(tokens * head_dim² + head_dim³) a head. See :class:`Rule`.
    """
    real = mask[:, None, :, None]
    keys = key.float().masked_fill(~real, 0.0)
    centred = keys - keys.sum(2, keepdim=True) / real.sum(2, keepdim=True).clamp_min(1)
    centred = centred.masked_fill(~real, 0.0)
    # Where keys are all alike, what is left after centring is rounding: let the ridge drown it.
    energy = _RIDGE * centred.square().sum((2, 3)) + _EPS * keys.square().sum((2, 3))
    ridge = energy / key.shape[-1] + _TINY
    gram = centred.mT @ centred + ridge[..., None, None] * torch.eye(key.shape[-1], device=key.device)
    solved = torch.cholesky_solve(centred.mT, torch.linalg.cholesky_ex(gram).L)
    return _hide((centred * solved.mT).sum(-1), mask)


def combined(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, *, scaling: float) -> Tensor:
    """Score by leverage and attention together, each brought to mean 0 and deviation 1 (Compactor, arXiv 2507.08143).

    Attention is that of :func:`value_norm`, averaged over 3 neighbours; leverage weighs 0.35. See :class:`Rule`.
    """
    real = mask[:, None]
    received = value_norm(query, key, value, mask, scaling=scaling).masked_fill(~real, 0.0)
    neighbours = avg_pool1d(real.float(), _NEIGHBOURS, stride=1, padding=_NEIGHBOURS // 2)
    received = avg_pool1d(received, _NEIGHBOURS, stride=1, padding=_NEIGHBOURS // 2) / neighbours
    unlike = leverage(query, key, value, mask, scaling=scaling)
    return _hide(_standardise(received, mask) + _BLEND * _standardise(unlike, mask), mask)


def repeat(query: Tensor, key: Tensor, mask: Tensor, *, scaling: float, query_mask: Tensor | None = None) -> Tensor:
    """Score by the most attention that repeating the reference pays to a token (KVzip, arXiv 2505.23416).

    It needs a second forward pass, in which the model is made to repeat the reference, and so is no
    :class:`Rule`. The softmax is over the reference's tokens alone.

    Args:
        query: (batch, num_heads, queries, head_dim) of the repeated text, rotated.
        key: (batch, num_kv_heads, tokens, head_dim) of the reference, rotated.
        mask: (batch, tokens), True on tokens of the reference, False on padding.
        scaling: Factor on the dot products in the layer's softmax.
        query_mask: (batch, queries), False on padding of the repeated text; None if there is none.

    Returns:
        As a :class:`Rule` does.
    """
    attention = _logits(query, key, mask, scaling).softmax(-1)
    if query_mask is not None:
        attention = _real_queries(attention, query_mask)
    return _hide(attention.amax((2, 3)), mask)


RULES: dict[str, Rule] = {
    "paper": paper,
    "paper_exp": paper_exp,
    "max": strongest,
    "value_norm": value_norm,
    "key_norm": key_norm,
    "expected_attention": expected_attention,
    "leverage": leverage,
    "combined": combined,
}
DEFAULT = "value_norm"
NAMES = (*RULES, "repeat")
"""All that can be chosen; ``"repeat"`` is :func:`repeat`, which is called in another way."""


def window(
    rule: Rule,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor,
    spans: Sequence[tuple[int, int]],
    *,
    scaling: float,
) -> Tensor:
    """Score each window of a document that was encoded as one sequence, as if the rest were not there.

    Args:
        rule: Scores a window.
        query: As of :class:`Rule`, of the whole document; so are key, value, mask and scaling.
        key: See query.
        value: See query.
        mask: See query.
        spans: First token of each window and the one after its last, in order and apart.
        scaling: See query.

    Returns:
        As a :class:`Rule` does; tokens outside every window get -inf, as padding does.

    Raises:
        InvalidInputError: A window is empty, leaves the document, or overlaps the one before it.
    """
    tokens = mask.shape[1]
    scores = torch.full(key.shape[:3], float("-inf"), device=key.device)
    end = 0
    for start, stop in spans:
        if not end <= start < stop <= tokens:
            raise InvalidInputError(
                f"windows must be (start, stop) with start < stop within 0..{tokens}, in order and without overlap; "
                f"got {(start, stop)} after one that ends at {end}"
            )
        part = slice(start, stop)
        scores[:, :, part] = rule(query[:, :, part], key[:, :, part], value[:, :, part], mask[:, part], scaling=scaling)
        end = stop
    return scores


def rank(scores: Tensor) -> Tensor:
    """Return the tokens from the highest score to the lowest; of equals, the earlier comes first.

    Args:
        scores: (batch, num_kv_heads, tokens), what a :class:`Rule` returns.

    Returns:
        (batch, num_kv_heads, tokens) in int64: indices of tokens.
    """
    return scores.argsort(dim=-1, descending=True, stable=True)


def _logits(query: Tensor, key: Tensor, mask: Tensor | None, scaling: float) -> Tensor:
    """Return the logits (batch, num_kv_heads, group, queries, tokens) in float32; keys of padding get -inf."""
    scores = logits(query, key, scaling=scaling, softcap=None, mask=None)
    if mask is not None and not bool(mask.all()):
        scores.masked_fill_(~mask[:, None, None], float("-inf"))
    return scores.view(scores.shape[0], key.shape[1], -1, *scores.shape[2:])


def _queries(mask: Tensor) -> Tensor:
    """Return (batch, 1, 1, queries, 1): which queries of logits are real."""
    return mask[:, None, None, :, None]


def _real_queries(attention: Tensor, mask: Tensor) -> Tensor:
    """Let the queries of padding pay no attention (batch, num_kv_heads, group, queries, tokens), in place."""
    return attention if bool(mask.all()) else attention.masked_fill_(~_queries(mask), 0.0)


def _hide(scores: Tensor, mask: Tensor) -> Tensor:
    """Give padding -inf, whatever its scores are."""
    return scores.masked_fill(~mask[:, None], float("-inf"))


def _standardise(scores: Tensor, mask: Tensor) -> Tensor:
    """Bring the scores of each head to mean 0 and deviation 1, over real tokens; all alike become 0."""
    real = mask[:, None]
    count = real.sum(-1, keepdim=True)
    mean = scores.masked_fill(~real, 0.0).sum(-1, keepdim=True) / count
    centred = (scores - mean).masked_fill(~real, 0.0)
    deviation = (centred.square().sum(-1, keepdim=True) / count).sqrt()
    return centred / deviation.clamp_min(1e-3 * mean.abs() + _TINY)  # below that it is rounding
