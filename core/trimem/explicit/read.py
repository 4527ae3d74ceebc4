"""Records to memory: key-values brought to the positions right before the context."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from trimem.explicit.record import Record, rows
from trimem.lm.memory import LayerMemory, Memory
from trimem.lm.model import LanguageModel
from trimem.lm.positions import PositionScheme

Layout = Literal["sequential", "parallel", "original"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)


@dataclass(frozen=True, slots=True)
class Placement:
    """Records as a model reads them.

    Attributes:
        memory: What is attached.
        owner: By layer_idx: (num_kv_heads, tokens), the index of the record that a memory token came
            from; -1 where a head has none.
        span: Positions taken, from the first token to the context.
        starts: Position of each record's first token.
    """

    memory: Memory
    owner: dict[int, Tensor]
    span: int
    starts: tuple[int, ...]


def place(
    lm: LanguageModel,
    records: Sequence[Record],
    *,
    layout: Layout = "sequential",
    bias: Sequence[float] | None = None,
    temperature: float = 1.0,
    mass: float | None = None,
    head_bias: Tensor | None = None,
) -> Placement:
    """Bring records to the positions right before the context.

    The context keeps its positions 0, 1, ...; memory stands at negative ones. RoPE sees only
    differences, so this is where the text would stand if it were read before the context, and a
    single whole record reads exactly as its text does. O(rows).

    Args:
        lm: The model that made the records.
        records: The prefix, then the references in the order the text would have.
        layout: ``"sequential"`` lays one after the other, the last ending where the context begins;
            what is nearest to the question is read best. ``"parallel"`` lets all references begin at
            the same position after the prefix (Memory³, section 3.2), so that their order is lost.
            ``"original"`` leaves all where they were written, right after the prefix, with the context
            as far off as if they had been laid one after the other: key-values concatenated as they
            are.
        bias: Added to the attention logits of each reference's tokens; None is 0 for all.
        temperature: What the attention logits of the references are divided by. Where a model caps its
            logits, the cap is not.
        mass: How many tokens all references count for; None counts each as one.
        head_bias: (layers, num_kv_heads), added to the attention logits of each head.

    The last four leave the prefix as it is: it is the sink that all were written under.
    """
    starts = _starts(records, layout)
    counts = torch.stack([record.counts for record in records]).flatten(1)  # (records, heads)
    before = counts.cumsum(0) - counts
    held = counts.sum(0)
    heads, width = held.numel(), int(held.max())
    first = records[0]
    key = first.key.new_zeros(heads * width, first.key.shape[1], device=lm.device, dtype=lm.dtype)
    value = first.value.new_zeros(heads * width, first.value.shape[1], device=lm.device, dtype=lm.dtype)
    position = torch.zeros(heads * width, dtype=torch.long)
    owner = torch.full((heads * width,), -1)
    for i, record in enumerate(records):
        head, rank = rows(record.counts)
        at = head * width + before[i, head] + rank
        position[at] = starts[i] + record.token.long()
        owner[at] = i
        at = at.to(lm.device)
        key[at] = record.key.to(lm.device, lm.dtype) / (temperature if i else 1.0)
        value[at] = record.value.to(lm.device, lm.dtype)
    shape = len(lm.layers), heads // len(lm.layers), width
    key, value = key.view(*shape, -1), value.view(*shape, -1)
    position, owner = position.view(shape).to(lm.device), owner.view(shape)

    alike: dict[PositionScheme, list[int]] = defaultdict(list)
    for i, layer in enumerate(lm.layers):
        alike[layer.positions].append(i)
    for scheme, layers in alike.items():
        key[layers] = scheme.apply(key[layers], position[layers])
    logit_bias = _bias(owner, bias, mass, head_bias)
    memory, owners = {}, {}
    for i, layer in enumerate(lm.layers):
        if filled := int(held.view(shape[:2])[i].max()):
            memory[layer.layer_idx] = LayerMemory(
                key[i : i + 1, :, :filled],
                value[i : i + 1, :, :filled],
                position[i : i + 1, :, :filled],
                None if logit_bias is None else logit_bias[i : i + 1, :, :filled].to(lm.device),
            )
            owners[layer.layer_idx] = owner[i, :, :filled]
    return Placement(Memory(memory), owners, -min(starts), tuple(starts))


def moved(lm: LanguageModel, memory: Memory, by: int) -> Memory:
    """Return a memory of :func:`place` that stands ``by`` positions further on."""
    layers = {layer.layer_idx: layer for layer in lm.layers}
    shifted = {}
    for layer_idx, layer in memory.layers.items():
        assert layer.position is not None  # place() tells it
        key = layers[layer_idx].positions.apply(layer.key, torch.full_like(layer.position, by))
        shifted[layer_idx] = replace(layer, key=key, position=layer.position + by)
    return Memory(shifted)


def _starts(records: Sequence[Record], layout: Layout) -> list[int]:
    """Return the position of each record's first token; the first record is the prefix."""
    tokens = [record.tokens for record in records]
    if layout == "parallel":
        room = max(tokens[1:], default=0)
        return [-room - tokens[0], *[-room] * (len(tokens) - 1)]
    if layout == "original":
        room = max(sum(tokens[1:]), *(record.start + record.tokens for record in records[1:]), 0)
        return [-room - tokens[0], *(record.start - room for record in records[1:])]
    ends = torch.tensor(tokens).flip(0).cumsum(0).flip(0)
    return [-int(end) for end in ends]


def _bias(owner: Tensor, bias: Sequence[float] | None, mass: float | None, head_bias: Tensor | None) -> Tensor | None:
    """Return what is added to the logits, -inf where a head has no token, or None if it is 0 throughout.

    Args:
        owner: (layers, num_kv_heads, tokens), the record of each token: the prefix is 0, none is -1.
        bias: Of each reference.
        mass: Tokens all references count for.
        head_bias: Of each head.
    """
    if not bias and mass is None and head_bias is None and bool((owner >= 0).all()):
        return None
    each = torch.tensor([0.0, *(bias or [0.0] * max(0, int(owner.max()))), float("-inf")])
    logit_bias = each[owner]  # -1 is the last
    referred = owner > 0
    if head_bias is not None:
        logit_bias += referred * head_bias[..., None]
    if mass is not None:
        read = referred.sum(-1, keepdim=True).clamp(min=1)
        logit_bias += torch.where(referred, (mass / read).log(), 0.0)
    return logit_bias
