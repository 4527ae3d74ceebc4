"""Which KV heads of a model fetch facts from memory, found once a model.

Few heads of a model copy what it reads far back ("retrieval heads", Wu et al., arXiv 2404.15574). Two
ways to find them, both on facts made up by a generator:

* **copy score**: the attention that the query which is about to say a token of the answer pays to that
  very token in memory (Memory³, Remark 4a);
* **ablation**: how much less likely the answer becomes when one head alone does not see the
  reference (Memory³, Remark 4b).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trimem.errors import InvalidInputError
from trimem.explicit.calibration import Calibration
from trimem.explicit.compiler import Compiler
from trimem.explicit.config import ExplicitConfig
from trimem.explicit.read import Placement
from trimem.lm.attach import attach, capture
from trimem.lm.kernels import reference
from trimem.lm.memory import LayerMemory, Memory
from trimem.lm.model import LanguageModel
from trimem.progress import track


@dataclass(frozen=True, slots=True)
class Fact:
    """A made-up fact in its passage, with the question it answers."""

    passage: str
    question: str
    lead: str
    answer: str


_OWNERS = [
    "Arden",
    "Bexley",
    "Corwen",
    "Dunmore",
    "Elstow",
    "Farrow",
    "Girton",
    "Hexham",
    "Ilkley",
    "Jarrow",
    "Kelso",
    "Lydney",
    "Morpeth",
    "Nairn",
]
_PLACES = ["Lodge", "Mill", "House", "Court", "Farm", "Hall", "Works", "Quay"]
_ANSWERS = {
    "access code": [str(code) for code in range(1013, 9999, 97)],
    "caretaker": ["Edda Pellow", "Ruben Garside", "Mairi Harker", "Tobias Brandt", "Ingrid Ormerod", "Silas Tansley"],
    "delivery day": ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"],
    "house colour": ["crimson", "turquoise", "mustard", "lavender", "charcoal", "ivory", "olive"],
}
_FILLER = (
    "The windows were painted in spring and the gutters cleared before the first frost. ",
    "Visitors leave their coats in the hall and their boots by the stove. ",
    "There is a bench under the elm where the post is sorted in summer. ",
    "The kettle is filled at four and nobody speaks of work until it has boiled. ",
    "Letters that come on a holiday wait in the blue tray until somebody asks for them. ",
    "The path to the river is steep, and after rain it is better to take the road. ",
)


def facts(samples: int, seed: int) -> list[Fact]:
    """Make up facts, each at a random place in a passage about other things."""
    draw = random.Random(seed)  # noqa: S311 - a draw, no secret
    made = []
    for _ in range(samples):
        owner = f"{draw.choice(_OWNERS)} {draw.choice(_PLACES)}"
        thing, answers = draw.choice(list(_ANSWERS.items()))
        answer = draw.choice(answers)
        sentences = draw.sample(_FILLER, 3)
        sentences.insert(draw.randint(0, 3), f"The {thing} of {owner} is {answer}. ")
        lead = f"The {thing} of {owner} is"
        made.append(Fact("".join(sentences).strip(), f"What is the {thing} of {owner}?", lead, answer))
    return made


@torch.no_grad()
def calibrate(
    lm: LanguageModel, *, samples: int = 12, distractors: int = 3, seed: int = 0, progress: bool | None = None
) -> Calibration:
    """Measure every KV head; O(samples * heads) short forward passes.

    Args:
        lm: The model.
        samples: How many facts.
        distractors: Passages about other facts that are read beside the right one.
        seed: Of the facts.
        progress: Whether to show a bar; None shows it where there is a terminal.
    """
    if samples < 1 or distractors < 0:
        raise InvalidInputError(f"samples must be at least 1 and distractors 0, got {samples} and {distractors}")
    compiler = Compiler(lm, ExplicitConfig(reference_tokens=lm.context_length))  # every token is kept
    made = facts(samples + distractors, seed)
    records = {
        i: record for batch in compiler.compile([[fact.passage] for fact in made]) for i, record in batch.items()
    }
    layers, heads = len(lm.layers), lm.layers[0].num_kv_heads
    copied, lost = torch.zeros(layers, heads), torch.zeros(layers, heads)
    with track("calibrating heads", samples, progress) as advance:
        for i in range(samples):
            fact = made[i]
            others = [records[(i + 1 + j) % len(made)] for j in range(distractors)]
            placement = compiler.place([records[i], *others])
            ids = compiler.question(fact.question) + lm.tokenize(fact.lead)
            answer = lm.tokenize(f" {fact.answer}")
            right = len(others) + 1  # the prefix is 0, the best is nearest
            copied += _copy_scores(compiler, placement, right, compiler.reference(fact.passage), ids, answer)
            lost += _ablation(lm, placement, right, ids, answer)
            advance(1)
    return Calibration(
        lm.name,
        lm.fingerprint,
        samples,
        seed,
        (copied / samples).tolist(),
        (lost / samples).tolist(),
    )


def _copy_scores(
    compiler: Compiler,
    placement: Placement,
    right: int,
    passage: Sequence[int],
    ids: Sequence[int],
    answer: Sequence[int],
) -> Tensor:
    """Return the attention paid to the token that is said next (layers, num_kv_heads)."""
    lm = compiler.lm
    tokens = torch.tensor([[*ids, *answer[:-1]]], device=lm.device)
    at = _find(passage, answer)
    with attach(lm, placement.memory):
        captured = capture(lm.model, tokens, torch.arange(tokens.shape[1], device=lm.device)[None])
    scores = []
    for layer in lm.layers:
        one, memory = captured[layer.module], placement.memory.layers[layer.layer_idx]
        asking = one.query[:, :, -len(answer) :]
        causal = torch.ones(tokens.shape[1], tokens.shape[1], dtype=torch.bool, device=lm.device).tril()
        seen = reference.logits(asking, one.key, scaling=one.scaling, softcap=None, mask=causal[-len(answer) :])
        remote = reference.logits(asking, memory.key, scaling=one.scaling, softcap=None, mask=None)
        weights = (remote - torch.logaddexp(seen.logsumexp(-1), remote.logsumexp(-1))[..., None]).exp()[0]
        weights = weights.unflatten(0, (layer.num_kv_heads, -1)).amax(1)  # (num_kv_heads, answer, tokens)
        # Every token of every head is kept, in order of rank: where did the answer's tokens end up?
        position = memory.position
        assert position is not None  # place() always says
        first = position[0].masked_fill((placement.owner[layer.layer_idx] != right).to(lm.device), 1 << 30).amin(-1)
        paid = [(weights[:, j] * (position[0] == first[:, None] + at + j)).sum(-1) for j in range(len(answer))]
        scores.append(torch.stack(paid).mean(0).cpu())
    return torch.stack(scores)


def _find(passage: Sequence[int], answer: Sequence[int]) -> int:
    """Return where the answer's tokens stand in the passage's."""
    for start in range(len(passage) - len(answer) + 1):
        if list(passage[start : start + len(answer)]) == list(answer):
            return start
    raise InvalidInputError("the tokenizer cuts the answer otherwise than in its passage")


def _ablation(lm: LanguageModel, placement: Placement, right: int, ids: Sequence[int], answer: Sequence[int]) -> Tensor:
    """Return what an answer token loses without each head alone, in nats (layers, num_kv_heads).

    All heads of one layer are rows of one batch, beside a row that misses none.
    """
    heads = lm.layers[0].num_kv_heads
    tokens = torch.tensor([[*ids, *answer]], device=lm.device).expand(heads + 1, -1)
    wanted = torch.tensor(answer, device=lm.device)
    lost = []
    for blind in lm.layers:
        memory: dict[int, LayerMemory] = {}
        for layer_idx, layer in placement.memory.layers.items():
            key, value = (tensor.expand(heads + 1, -1, -1, -1) for tensor in (layer.key, layer.value))
            bias = None
            if layer_idx == blind.layer_idx:
                owned = (placement.owner[layer_idx] == right).to(lm.device)
                hidden = torch.eye(heads + 1, heads, dtype=torch.bool, device=lm.device)[..., None] & owned
                bias = torch.zeros(hidden.shape, device=lm.device).masked_fill(hidden, float("-inf"))
            memory[layer_idx] = LayerMemory(key, value, layer.position, bias)
        with attach(lm, Memory(memory)):
            output = lm.model(tokens, attention_mask=torch.ones_like(tokens), logits_to_keep=len(answer) + 1)
        said = output.logits[:, :-1].float().log_softmax(-1).gather(2, wanted.expand(heads + 1, -1)[..., None])
        nll = -said.mean((1, 2))
        lost.append((nll[:-1] - nll[-1]).cpu())
    return torch.stack(lost)
