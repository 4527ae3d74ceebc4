"""References to key-values: one forward pass each, many at once, after one shared prefix."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from trimem.errors import ContextLengthError, UnsupportedModelError
from trimem.explicit.config import ExplicitConfig
from trimem.explicit.read import place
from trimem.explicit.record import Record
from trimem.lm.attach import attach, capture
from trimem.lm.model import LanguageModel


def check_model(lm: LanguageModel) -> None:
    """Raise if the model cannot be compiled for.

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


def encode_prefix(lm: LanguageModel, prefix: Sequence[int]) -> Record:
    """Encode the prefix all references share, in the model's own precision."""
    return _encode(lm, [prefix], torch.arange(len(prefix), device=lm.device)[None], lm.dtype)[0]


def encode_references(
    lm: LanguageModel, prefix: Record, references: Sequence[Sequence[int]], config: ExplicitConfig
) -> list[Record]:
    """Encode references, each as if it alone followed the prefix (Memory³, section 3.1).

    One batched forward pass of the decoder, O(references * longest reference). The prefix is read as
    memory, so it is computed once for all.

    Args:
        lm: The model.
        prefix: What :func:`encode_prefix` made.
        references: Token ids of each, none empty.
        config: Says in which numbers to store.

    Raises:
        ContextLengthError: Prefix and longest reference do not fit the model's context.
        UnsupportedModelError: The numbers do not fit the dtype they are to be stored in.
    """
    longest = max(map(len, references))
    if prefix.tokens + longest > lm.context_length:
        raise ContextLengthError(
            f"the prefix of {prefix.tokens} tokens and a reference of {longest} exceed the {lm.context_length} "
            f"positions {lm.name} was made for: lower reference_tokens"
        )
    positions = torch.arange(longest, device=lm.device)[None]
    with attach(lm, place(lm, [prefix])):
        return _encode(lm, references, positions, getattr(torch, config.dtype))


def batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Group references of like length, so that little padding is computed.

    Args:
        lengths: Tokens of each reference.
        budget: Most tokens in a batch, padding included; a longer reference is a batch of its own.

    Yields:
        Indices into ``lengths``.
    """
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and (len(batch) + 1) * lengths[batch[0]] > budget:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def _encode(
    lm: LanguageModel, references: Sequence[Sequence[int]], positions: Tensor, dtype: torch.dtype
) -> list[Record]:
    """Run references, padded on the right, and cut what each layer computed into records."""
    lengths = [len(ids) for ids in references]
    width = positions.shape[1]
    padded = [[*ids, *[0] * (width - len(ids))] for ids in references]
    mask = [[1] * n + [0] * (width - n) for n in lengths]
    captured = capture(
        lm.model,
        torch.tensor(padded, device=lm.device),
        positions,
        torch.tensor(mask, device=lm.device),
    )
    keys = [layer.positions.undo(captured[layer.module].key, positions[0]) for layer in lm.layers]
    key = torch.stack(keys, 1).to(dtype)  # (references, layers, num_kv_heads, width, head_dim)
    value = torch.stack([captured[layer.module].value for layer in lm.layers], 1).to(dtype)
    records = [Record(key[i, :, :, :n], value[i, :, :, :n]) for i, n in enumerate(lengths)]
    if not all(bool(record.key.isfinite().all() and record.value.isfinite().all()) for record in records):
        raise UnsupportedModelError(
            f'key-values of {lm.name} do not fit {dtype}: create the bank with ExplicitConfig(dtype="bfloat16") '
            'or "float32"'
        )
    return records
