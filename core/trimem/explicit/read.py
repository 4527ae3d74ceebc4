"""Records to memory: key-values brought to the positions right before the context."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch

from trimem.explicit.record import Record
from trimem.lm.memory import LayerMemory, Memory
from trimem.lm.model import LanguageModel
from trimem.lm.positions import PositionScheme


def place(lm: LanguageModel, records: Sequence[Record]) -> Memory:
    """Lay records one after the other, the last one ending where the context begins.

    The context keeps its positions 0, 1, ...; memory of N tokens stands at -N ... -1. RoPE sees
    only differences, so this is where the text would stand if it were read before the context, and a
    single record reads exactly as its text does. O(tokens).

    Args:
        lm: The model that made the records.
        records: In the order the text would have; what is nearest to the question is read best, so
            the best match comes last.
    """
    key = torch.cat([record.key for record in records], 2).to(lm.device, lm.dtype)
    value = torch.cat([record.value for record in records], 2).to(lm.device, lm.dtype)
    positions = torch.arange(-key.shape[2], 0, device=lm.device)
    alike: dict[PositionScheme, list[int]] = defaultdict(list)
    for i, layer in enumerate(lm.layers):
        alike[layer.positions].append(i)
    for scheme, rows in alike.items():
        key[rows] = scheme.apply(key[rows], positions)
    return Memory(
        {
            layer.layer_idx: LayerMemory(key[i][None], value[i][None], positions[None])
            for i, layer in enumerate(lm.layers)
        }
    )
