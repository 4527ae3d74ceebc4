"""Texts to key-values without positions, and such spans laid end to end before whatever is read next."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trimem.errors import ContextLengthError, UnsupportedModelError
from trimem.lm.attach import attach, capture
from trimem.lm.attention import AttentionShares, Captured, detached
from trimem.lm.memory import LayerMemory, Memory
from trimem.lm.model import LanguageModel

Captures = dict[nn.Module, Captured]


def run(lm: LanguageModel, references: Sequence[Sequence[int]], starts: Sequence[int] = (0,)) -> Captures:
    """Run token ids, padded on the right, each from its own position on, or all from one."""
    width = max(map(len, references))
    padded = [[*ids, *[0] * (width - len(ids))] for ids in references]
    mask = [[1] * len(ids) + [0] * (width - len(ids)) for ids in references]
    return capture(
        lm.model,
        torch.tensor(padded, device=lm.device),
        torch.tensor(starts, device=lm.device)[:, None] + torch.arange(width, device=lm.device),
        torch.tensor(mask, device=lm.device),
    )


def position_free(lm: LanguageModel, captured: Captures, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return keys, values and queries of what was run from position 0 on, without positions.

    Returns:
        Keys and values (references, layers, num_kv_heads, width, head_dim) and queries (references,
        layers, num_heads, width, head_dim).
    """
    positions = torch.arange(width, device=lm.device)
    layers = [(layer.positions, captured[layer.module]) for layer in lm.layers]
    key = torch.stack([scheme.undo(layer.key, positions) for scheme, layer in layers], 1)
    query = torch.stack([scheme.undo(layer.query, positions) for scheme, layer in layers], 1)
    return key, torch.stack([layer.value for _, layer in layers], 1), query


def check_movable(lm: LanguageModel) -> None:
    """Raise if what a model read cannot be brought to another place, or is not of one shape.

    Raises:
        UnsupportedModelError: Its keys cannot be moved, or its layers differ in shape.
    """
    if not lm.movable:
        raise UnsupportedModelError(
            f"{lm.name} has absolute positions: its keys cannot be moved next to a question, so documents cannot be "
            "compiled once and read anywhere. Use a model with rotary positions (Llama, Qwen, Mistral, Gemma, Phi ...)"
        )
    if len({(layer.num_kv_heads, layer.head_dim, layer.value_dim) for layer in lm.layers}) > 1:
        raise UnsupportedModelError(f"the attention layers of {lm.name} differ in shape, which a record cannot hold")


@dataclass(frozen=True, slots=True)
class Span:
    """The key-values of every token of a text, as if it stood nowhere.

    Attributes:
        key: (layers, num_kv_heads, tokens, head_dim).
        value: (layers, num_kv_heads, tokens, value_dim).
    """

    key: Tensor
    value: Tensor

    @property
    def tokens(self) -> int:
        return self.key.shape[2]


def read_spans(lm: LanguageModel, prefix: Sequence[int], texts: Sequence[Sequence[int]]) -> list[Span]:
    """Read a prefix, and texts as if each alone followed it; return the prefix and the texts.

    Two batched forward passes; nothing else that is attached is read.

    Args:
        lm: The model.
        prefix: Token ids, not empty.
        texts: Token ids of each, none empty.

    Raises:
        ContextLengthError: Prefix and longest text do not fit the model's context.
        UnsupportedModelError: The model's keys cannot be moved, or its layers differ in shape.
    """
    check_movable(lm)
    longest = max(map(len, texts), default=0)
    if len(prefix) + longest > lm.context_length:
        raise ContextLengthError(
            f"a prefix of {len(prefix)} tokens and a text of {longest} exceed the {lm.context_length} positions "
            f"{lm.name} was made for"
        )
    with detached():
        key, value, _ = position_free(lm, run(lm, [prefix]), len(prefix))
        before = Span(key[0], value[0])
        if not texts:
            return [before]
        with attach(lm, place_spans(lm, [before])):
            key, value, _ = position_free(lm, run(lm, texts), longest)
    return [before, *(Span(key[i, :, :, : len(ids)], value[i, :, :, : len(ids)]) for i, ids in enumerate(texts))]


def place_spans(lm: LanguageModel, spans: Sequence[Span], bias: Sequence[float] = ()) -> Memory:
    """Lay spans end to end, the last ending where the context begins.

    Args:
        lm: The model that read them.
        spans: In the order they are to stand.
        bias: Added to the attention logits of each span's tokens; empty is 0 for all.
    """
    key = torch.cat([span.key for span in spans], 2)
    value = torch.cat([span.value for span in spans], 2)
    tokens = key.shape[2]
    position = torch.arange(-tokens, 0, device=lm.device)
    alike = defaultdict(list)
    for i, layer in enumerate(lm.layers):
        alike[layer.positions].append(i)
    for scheme, layers in alike.items():
        key[layers] = scheme.apply(key[layers], position)
    added = None
    if any(bias):
        lengths = torch.tensor([span.tokens for span in spans], device=lm.device)
        added = torch.tensor(list(bias), device=lm.device).repeat_interleave(lengths)[None, None]
    return Memory(
        {
            layer.layer_idx: LayerMemory(key[i : i + 1], value[i : i + 1], position[None, None], added)
            for i, layer in enumerate(lm.layers)
        }
    )


def shares_of_spans(shares: AttentionShares, spans: Sequence[Span]) -> list[float]:
    """Return the attention mass on each span, summed over layers, heads and forward passes."""
    received = [mass[0].sum(0) for mass in shares.mass().values()]
    if not received:
        return [0.0] * len(spans)
    by_token = torch.stack([each.cpu() for each in received]).sum(0)
    return [float(part.sum()) for part in by_token.split([span.tokens for span in spans])]
