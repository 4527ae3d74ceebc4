"""References to key-values: one forward pass each, many at once, after one shared prefix."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from trimem.errors import ContextLengthError
from trimem.explicit import select
from trimem.explicit.read import place
from trimem.explicit.record import Record
from trimem.lm.attach import attach
from trimem.lm.attention import detached
from trimem.lm.memory import LayerMemory, Memory
from trimem.lm.model import LanguageModel
from trimem.lm.spans import Captures, position_free, run

REPEAT = "Repeat the previous context exactly.\n\n"
"""What the rule "repeat" says before a reference."""


def encode_prefix(lm: LanguageModel, prefix: Sequence[int]) -> Record:
    """Encode the prefix all references share: every token, in the model's own precision."""
    with detached():
        key, value, _ = position_free(lm, run(lm, [prefix]), len(prefix))
    shape = key.shape[1:4]
    order = torch.arange(shape[2], device=lm.device).expand(shape)
    return Record.of(key[0], value[0], order, torch.full(shape[:2], shape[2]))


def encode_references(
    lm: LanguageModel,
    before: Sequence[Record],
    references: Sequence[Sequence[int]],
    *,
    rule: str,
    most: Tensor,
    start: int = 0,
) -> list[Record]:
    """Encode references, each as if it alone followed what stands before (Memory³, section 3.1).

    One batched forward pass of the decoder, O(references * longest reference), and selection,
    O(references * longest reference ** 2) a head. What stands before is read as memory, so it is
    computed once for all.

    Args:
        lm: The model.
        before: What :func:`encode_prefix` made, and what else each reference follows.
        references: Token ids of each, none empty.
        rule: By which the tokens of a head are ranked, one of :data:`trimem.explicit.select.NAMES`.
        most: (layers, num_kv_heads), the most tokens each head keeps.
        start: Tokens of its document that the one reference follows.

    Raises:
        ContextLengthError: Prefix and longest reference do not fit the model's context.
    """
    lengths = [len(ids) for ids in references]
    longest = max(lengths)
    ahead = sum(record.tokens for record in before)
    if ahead + longest > lm.context_length:
        raise ContextLengthError(
            f"the prefix of {ahead} tokens and a reference of {longest} exceed the {lm.context_length} "
            f"positions {lm.name} was made for: lower reference_tokens"
        )
    mask = torch.arange(longest, device=lm.device) < torch.tensor(lengths, device=lm.device)[:, None]
    with detached(), attach(lm, place(lm, before).memory):
        captured = run(lm, references)
        key, value, query = position_free(lm, captured, longest)
        if rule == "repeat":
            scores = _repeat(lm, references, captured, mask)
        else:
            scores = [
                select.RULES[rule](query[:, i], key[:, i], value[:, i], mask, scaling=layer.scaling)
                for i, layer in enumerate(captured.values())
            ]
    order = select.rank(torch.stack(scores, 1))  # (references, layers, num_kv_heads, longest)
    return [
        Record.of(key[i, :, :, :n], value[i, :, :, :n], order[i, :, :, :n], most, start) for i, n in enumerate(lengths)
    ]


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


def _repeat(lm: LanguageModel, references: Sequence[Sequence[int]], captured: Captures, mask: Tensor) -> list[Tensor]:
    """Let the model repeat each reference with the reference as memory, and score it (KVzip, arXiv 2505.23416)."""
    width = mask.shape[1]
    bias = torch.zeros(mask.shape, device=lm.device).masked_fill(~mask, float("-inf"))[:, None]
    position = torch.arange(width, device=lm.device)[None, None]
    memory = Memory({c.layer_idx: LayerMemory(c.key, c.value, position, bias) for c in captured.values()})
    asked = lm.tokenize(REPEAT)
    with attach(lm, memory):
        spoken = run(lm, [[*asked, *ids] for ids in references], [len(ids) for ids in references])
    said = torch.nn.functional.pad(mask, (len(asked), 0), value=True)
    return [
        select.repeat(spoken[module].query, layer.key, mask, scaling=layer.scaling, query_mask=said)
        for module, layer in captured.items()
    ]
