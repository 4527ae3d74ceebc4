"""How much more or less each KV head should heed memory than it would heed the text, learned once a model.

One number a head is added to its attention logits at memory, and fitted by gradient to make the
answers to made-up questions likely that are read among other passages. Nothing of the model changes,
and neither do the records: the numbers are used when memory is read.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from trimem.errors import InvalidInputError
from trimem.explicit.calibrate import Fact, facts
from trimem.explicit.compiler import Compiler
from trimem.explicit.config import ExplicitConfig
from trimem.explicit.read import Placement
from trimem.explicit.record import Record
from trimem.lm.attach import attach
from trimem.lm.memory import LayerMemory, Memory
from trimem.lm.model import LanguageModel
from trimem.progress import track

BATCH = 4
RATE = 0.1
SHRINK = 0.002
"""How much a squared nat of bias costs: what does not help stays at 0."""

RANKS = (0, 0, 0, 1, 2)
"""Where the right passage stands among the hits; search is mostly right."""


def fit_head_bias(
    lm: LanguageModel,
    *,
    samples: int = 24,
    distractors: int = 3,
    epochs: int = 5,
    seed: int = 0,
    progress: bool | None = None,
) -> Tensor:
    """Learn a bias for each KV head; O(epochs * samples) forward and backward passes.

    Args:
        lm: The model.
        samples: How many facts.
        distractors: Passages about other facts that are read beside the right one, at least as many as
            make room for :data:`RANKS`.
        epochs: How often each fact is seen.
        seed: Of the facts and their ranks.
        progress: Whether to show a bar; None shows it where there is a terminal.

    Returns:
        (layers, num_kv_heads), in nats.

    Raises:
        InvalidInputError: A number is out of its range.
    """
    if samples < 1 or epochs < 1 or distractors < max(RANKS):
        raise InvalidInputError(
            f"samples and epochs must be at least 1 and distractors {max(RANKS)}, "
            f"got {samples}, {epochs} and {distractors}"
        )
    compiler = Compiler(lm, ExplicitConfig(reference_tokens=lm.context_length))  # every token is kept
    made = facts(samples + distractors, seed)
    with torch.no_grad():
        records = {i: record for batch in compiler.compile([[f.passage] for f in made]) for i, record in batch.items()}
    draw = random.Random(seed)  # noqa: S311 - a draw, no secret
    bias = torch.zeros(len(lm.layers), lm.layers[0].num_kv_heads, requires_grad=True)
    optimizer = torch.optim.Adam([bias], lr=RATE)
    with track("fitting heads' bias", samples * epochs, progress) as advance, _frozen(lm):
        for _ in range(epochs):
            for start in range(0, samples, BATCH):
                optimizer.zero_grad()
                batch = range(start, min(start + BATCH, samples))
                for i in batch:
                    placement = compiler.place(_among(records, i, distractors, draw.choice(RANKS)))
                    (_nll(lm, compiler, made[i], placement, bias) / len(batch)).backward()
                    advance(1)
                (SHRINK * bias.square().sum()).backward()
                optimizer.step()
    return bias.detach()


def _among(records: dict[int, Record], right: int, distractors: int, rank: int) -> list[Record]:
    """Return the right record among others, at that rank."""
    others = [records[(right + 1 + j) % len(records)] for j in range(distractors)]
    return [*others[:rank], records[right], *others[rank:]]


def _nll(lm: LanguageModel, compiler: Compiler, fact: Fact, placement: Placement, bias: Tensor) -> Tensor:
    """Return the mean negative log-likelihood of a fact's answer, differentiable in the bias."""
    memory: dict[int, LayerMemory] = {}
    for of_layer, layer in zip(bias.to(lm.device), lm.layers, strict=True):
        placed = placement.memory.layers[layer.layer_idx]
        referred = (placement.owner[layer.layer_idx] > 0).to(lm.device)  # the prefix is 0
        weighed = (referred * of_layer[:, None])[None]
        memory[layer.layer_idx] = LayerMemory(placed.key, placed.value, placed.position, weighed)
    answer = lm.tokenize(f" {fact.answer}")
    ids = [*compiler.question(fact.question), *lm.tokenize(fact.lead), *answer]
    tokens = torch.tensor([ids], device=lm.device)
    with attach(lm, Memory(memory)):
        output = lm.model(tokens, attention_mask=torch.ones_like(tokens), logits_to_keep=len(answer) + 1)
    wanted = torch.tensor(answer, device=lm.device)[:, None]
    said: Tensor = output.logits[0, :-1].float().log_softmax(-1).gather(1, wanted)
    return -said.mean()


@contextmanager
def _frozen(lm: LanguageModel) -> Iterator[None]:
    """Keep gradients from the model's own weights, and put their flags back."""
    trained = [parameter for parameter in lm.model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
