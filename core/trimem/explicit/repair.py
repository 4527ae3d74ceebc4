"""Giving references that were written apart a look at one another, at the cost of a few tokens each.

A reference's first tokens know least of what stands before it, and it is they that attend as if the
text began there. Computed anew with the references before in sight, they link the pieces up (EPIC,
arXiv 2410.15332; CacheBlend, arXiv 2405.16444, chooses the tokens otherwise).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from trimem.explicit.read import place
from trimem.explicit.record import Record, rows
from trimem.lm.attach import attach
from trimem.lm.attention import detached
from trimem.lm.memory import stack_rows
from trimem.lm.model import LanguageModel
from trimem.lm.spans import position_free, run


def repaired(lm: LanguageModel, records: Sequence[Record], heads: Sequence[Sequence[int]]) -> list[Record]:
    """Compute the heads of references anew, each with all records before it in sight.

    One batched forward pass of len(heads) - 1 rows; the heads do not see one another's repair.

    Args:
        lm: The model that made the records.
        records: The prefix, then the references in the order they are read.
        heads: The first token ids of each reference. The first reference needs no repair.

    Returns:
        The records, with the key-values of these tokens replaced where a KV head keeps them.
    """
    if len(records) < 3:
        return list(records)
    with detached():
        before = stack_rows([place(lm, records[: i + 1]).memory for i in range(1, len(records) - 1)])
        with attach(lm, before):
            key, value, _ = position_free(lm, run(lm, heads[1:]), max(map(len, heads[1:])))
    mended = [
        _with(record, key[i], value[i], len(head))
        for i, (record, head) in enumerate(zip(records[2:], heads[1:], strict=True))
    ]
    return [*records[:2], *mended]


def _with(record: Record, key: Tensor, value: Tensor, tokens: int) -> Record:
    """Replace the key-values of a record's first tokens by those of (layers, num_kv_heads, width, dim)."""
    head, _ = rows(record.counts)
    token = record.token.long()
    anew = token < tokens
    at = head[anew], token[anew]
    new_key, new_value = record.key.to(key, copy=True), record.value.to(value, copy=True)
    new_key[anew], new_value[anew] = key.flatten(0, 1)[at], value.flatten(0, 1)[at]
    return replace(record, key=new_key, value=new_value)
