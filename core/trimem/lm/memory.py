"""Key-values that a model is lent, ready to be attended to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from trimem.errors import InvalidInputError


@dataclass(frozen=True, slots=True)
class LayerMemory:
    """The memory of one attention layer.

    Attributes:
        key: (rows, num_kv_heads, tokens, head_dim), already at their positions.
        value: (rows, num_kv_heads, tokens, head_dim).
        position: (rows, num_kv_heads, tokens), where each token stands on the same scale as the
            context's position ids; may be negative. Sliding-window layers need it to know what is
            within the window; other layers do not look at it.
        bias: (rows, num_kv_heads, tokens), added to the attention logits; -inf hides a token. None is
            all zeros.

    ``rows`` is 1 (one memory for every row of the batch) or the number of rows before generate()
    repeats them for beams and samples. In ``position`` and ``bias``, rows and num_kv_heads may be 1
    for all.
    """

    key: Tensor
    value: Tensor
    position: Tensor | None = None
    bias: Tensor | None = None

    def __post_init__(self) -> None:
        if self.key.ndim != 4 or self.value.shape[:3] != self.key.shape[:3]:
            raise InvalidInputError(
                "key and value of a layer's memory must both be (rows, num_kv_heads, tokens, head_dim), "
                f"got {tuple(self.key.shape)} and {tuple(self.value.shape)}"
            )
        rows, num_kv_heads, tokens, _ = self.key.shape
        for name, tensor, shape in (
            ("position", self.position, (rows, num_kv_heads, tokens)),
            ("bias", self.bias, (rows, num_kv_heads, tokens)),
        ):
            if tensor is not None and not (
                tensor.ndim == len(shape)
                and tensor.shape[-1] == tokens
                and all(have in (1, want) for have, want in zip(tensor.shape, shape, strict=True))
            ):
                raise InvalidInputError(f"the {name} of a layer's memory must be {shape}, got {tuple(tensor.shape)}")


@dataclass(frozen=True)
class Memory:
    """What a model is lent: a :class:`LayerMemory` for each attention layer that reads it.

    Attributes:
        layers: By layer_idx; a layer that is not named reads no memory.
    """

    layers: Mapping[int, LayerMemory]

    def __post_init__(self) -> None:
        rows = {layer.key.shape[0] for layer in self.layers.values()}
        tokens = {layer.key.shape[2] for layer in self.layers.values()}
        if len(rows) > 1:
            raise InvalidInputError(f"all layers of a memory must have the same rows, got {sorted(rows)}")
        if 0 in tokens:
            raise InvalidInputError("a layer's memory must hold at least one token; leave the layer out instead")

    @cached_property
    def rows(self) -> int:
        """Rows of the batch this memory tells apart; 1 if it serves all alike."""
        return next((layer.key.shape[0] for layer in self.layers.values()), 1)

    @cached_property
    def tokens(self) -> int:
        """Tokens in the layer that holds most."""
        return max((layer.key.shape[2] for layer in self.layers.values()), default=0)


def stack_rows(memories: list[Memory]) -> Memory:
    """Give each row of a batch its own memory: row i reads ``memories[i]`` and no other.

    Shorter memories are filled up with tokens hidden by a bias of -inf.

    Args:
        memories: One a row, each with ``rows`` = 1; an empty one for a row that reads nothing. All
            must come from the same model.
    """
    layers: dict[int, LayerMemory] = {}
    for layer_idx in sorted({layer_idx for memory in memories for layer_idx in memory.layers}):
        rows = [memory.layers.get(layer_idx) for memory in memories]
        some = next(row for row in rows if row is not None)
        _, num_kv_heads, _, head_dim = some.key.shape
        tokens = max(row.key.shape[2] for row in rows if row is not None)
        key = some.key.new_zeros(len(rows), num_kv_heads, tokens, head_dim)
        value = some.value.new_zeros(len(rows), num_kv_heads, tokens, some.value.shape[3])
        bias = torch.full((len(rows), num_kv_heads, tokens), float("-inf"), device=key.device)
        position = torch.zeros(len(rows), num_kv_heads, tokens, dtype=torch.long, device=key.device)
        for i, row in enumerate(rows):
            if row is None:
                continue
            if row.key.shape[0] != 1:
                raise InvalidInputError(f"stack_rows takes memories of one row each, got {row.key.shape[0]}")
            width = row.key.shape[2]
            key[i, :, :width], value[i, :, :width] = row.key[0], row.value[0]
            bias[i, :, :width] = 0.0 if row.bias is None else row.bias[0]
            if row.position is not None:
                position[i, :, :width] = row.position[0]
        known = all(row is None or row.position is not None for row in rows)
        layers[layer_idx] = LayerMemory(key, value, position if known else None, bias)
    return Memory(layers)
