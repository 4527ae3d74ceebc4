"""Reranking by reading: how likely a question is to the model that has a slot in memory.

What a text tells makes questions about it likelier. Only the question's tokens go through the model,
once for each slot, in one batch in which each row reads its own memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trimem.explicit.compiler import Compiler
from trimem.explicit.record import Record
from trimem.lm.attach import attach
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
