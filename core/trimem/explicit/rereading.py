"""Reranking by reading: what the model makes of a question that has slots in memory.

What a text tells makes questions about it likelier. Only the question's tokens go through the model,
once for each slot, in one batch in which each row reads its own memory.

Or else the question is read once, and its attention queries search the keys of all slots (Memory³, remark 2).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trimem.explicit.attribution import head_weights
from trimem.explicit.compiler import Compiler
from trimem.explicit.read_config import ReadConfig
from trimem.explicit.record import Record
from trimem.lm.attach import attach, capture
from trimem.lm.memory import stack_rows

BATCH = 16
"""Slots that are read in one forward pass."""


@torch.no_grad()
def question_likelihood(compiler: Compiler, records: Sequence[Record], question: str) -> list[float]:
    """Return the log-likelihood of a question given each record, in nats a token of the question.

    Args:
        compiler: Of the bank's model.
        records: What is read, each by itself after the bank's prefix.
        question: The question.

    O(records * (tokens of the question) * (weights of the model)).
    """
    lm = compiler.lm
    before = lm.tokenize(compiler.format.before_question)
    asked = lm.tokenize(question)
    ids = torch.tensor([[*before, *asked]], device=lm.device)
    likelihoods: list[float] = []
    for start in range(0, len(records), BATCH):
        some = records[start : start + BATCH]
        memory = stack_rows([compiler.place([record]).memory for record in some])
        with attach(lm, memory):
            rows = ids.expand(len(some), -1)
            output = lm.model(rows, attention_mask=torch.ones_like(rows), logits_to_keep=len(asked) + 1)
        log_probabilities = output.logits[:, :-1].float().log_softmax(-1)
        chosen: Tensor = log_probabilities.gather(2, ids[:, -len(asked) :, None].expand(len(some), -1, 1))
        likelihoods += chosen.mean((1, 2)).tolist()
    return likelihoods


@torch.no_grad()
def question_attention(compiler: Compiler, records: Sequence[Record], question: str) -> list[float]:
    """Return how much a question's queries find in each record, in no unit (Memory³, remark 2).

    The queries of a head search the keys of that head in all records, which stand at the same positions. Of a
    record counts the key that a query finds most, and of the heads how much they copy.

    Args:
        compiler: Of the bank's model.
        records: What is searched.
        question: The question.

    One forward pass of the question, and its attention to all records: O(tokens of the question * tokens of
    all records) a head.
    """
    lm = compiler.lm
    before = lm.tokenize(compiler.format.before_question)
    ids = torch.tensor([[*before, *lm.tokenize(question)]], device=lm.device)
    placement = compiler.place(records, ReadConfig(layout="parallel"))
    with attach(lm, compiler.place([]).memory):
        captured = capture(lm.model, ids, torch.arange(ids.shape[1], device=lm.device)[None])
    found = torch.zeros(len(records))
    for weights, layer in zip(head_weights(lm), lm.layers, strict=True):
        memory, seen = placement.memory.layers.get(layer.layer_idx), captured[layer.module]
        if memory is None:
            continue
        owner = placement.owner[layer.layer_idx].to(lm.device)
        query = seen.query[0, :, len(before) :].unflatten(0, (owner.shape[0], -1))  # (num_kv_heads, group, length, dim)
        logits = (query.float() @ memory.key[0].float().mT[:, None]) * seen.scaling
        shares = logits.masked_fill((owner <= 0)[:, None, None], float("-inf")).softmax(-1)
        for i in range(len(records)):
            of_record = (owner == len(records) - i)[:, None, None]
            most = shares.masked_fill(~of_record, 0.0).amax(-1).mean((1, 2)).nan_to_num().cpu()
            found[i] += most @ weights
    return found.tolist()
