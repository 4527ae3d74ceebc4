"""Which source an answer is from, by where the model looked while it spoke.

Most heads look at memory for reasons of their own; few copy from it. Heads are weighed by how much
they copy, as the model's calibration tells, all alike where it has none. Of each source a head counts
with the token it looks at most: what is copied is one token at a time, and a long source is no better
for being long.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from trimem.errors import CalibrationNotFoundError
from trimem.explicit.calibration import calibration_of
from trimem.explicit.reading import Passage
from trimem.lm.model import LanguageModel
from trimem.lm.prompt import SEPARATOR
from trimem.types import Answer, Citation, Hit, SlotId

_BORDER = re.compile(r"""[.!?]["')\]\u2019\u201d]*\s+|[\u3002\uff01\uff1f]["')\]\u2019\u201d]*|\n+""")


def sentences(text: str) -> list[tuple[int, int]]:
    """Return the offsets of the sentences of a text, white space around them left out; there is at least one."""
    borders = [0, *(border.end() for border in _BORDER.finditer(text)), len(text)]
    stretches = [(start, text[start:stop]) for start, stop in pairwise(borders)]
    spans = [
        (start + len(part) - len(part.lstrip()), start + len(part.rstrip()))
        for start, part in stretches
        if part.strip()
    ]
    return spans or [(0, len(text))]


def citations(lm: LanguageModel, passages: Sequence[Passage], new_tokens: int) -> tuple[Citation, ...]:
    """Return all sources that were read, the one most looked at first.

    O(generated tokens * memory tokens) a head, the price of the attention itself.

    Args:
        lm: The model that spoke.
        passages: What it read, with the attention paid.
        new_tokens: Tokens it said; beams look longer than the one that is said.
    """
    weights = head_weights(lm)
    hits: dict[SlotId, Hit] = {}
    by_token: dict[SlotId, list[float]] = {}
    looked: dict[SlotId, dict[int, float]] = defaultdict(lambda: defaultdict(float))
    spoken = 0
    for passage in passages:
        for hit in passage.hits:
            hits.setdefault(hit.id, hit)
            by_token.setdefault(hit.id, [])
        if not passage.spoken:
            continue
        shares, tokens = _looks(lm, passage, weights)
        for i, hit in enumerate(passage.hits):
            by_token[hit.id] += [0.0] * (spoken - len(by_token[hit.id]))
            by_token[hit.id] += shares[:, i].tolist()
            for token in tokens[i].nonzero().flatten().tolist():
                looked[hit.id][token] += float(tokens[i, token])
        spoken += len(shares)
    mass = {slot: sum(of_each) for slot, of_each in by_token.items()}
    total = max(sum(mass.values()), torch.finfo(torch.float32).tiny)
    made = []
    for slot, hit in hits.items():
        start, stop = _sentence(lm, hit, looked[slot])
        shares_said = (*by_token[slot], *[0.0] * new_tokens)[:new_tokens]
        made.append(Citation(hit, mass[slot] / total, hit.slot.start + start, hit.slot.start + stop, shares_said))
    return tuple(sorted(made, key=lambda citation: -citation.share))


def marked(answer: Answer) -> list[tuple[str, int | None]]:
    """Return the sentences of an answer, each with the number of its citation; None where nothing was read."""
    spoken = "".join(answer.pieces)
    ends = list(accumulate(map(len, answer.pieces)))
    shown = []
    for start, stop in sentences(spoken):
        tokens = [i for i, end in enumerate(ends) if start < end <= stop]
        looks = [sum(citation.by_token[i] for i in tokens) for citation in answer.citations]
        shown.append((spoken[start:stop], looks.index(max(looks)) if any(looks) else None))
    return shown


def head_weights(lm: LanguageModel) -> Tensor:
    """Return how much each head counts (layers, num_kv_heads): how much it copies."""
    try:
        return torch.tensor(calibration_of(lm).copy_score)
    except CalibrationNotFoundError:
        return torch.ones(len(lm.layers), lm.layers[0].num_kv_heads)


def _looks(lm: LanguageModel, passage: Passage, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return each hit's share at each token spoken (passes, hits), and the looks at its tokens (hits, tokens).

    The shares of one spoken token add up to 1.
    """
    hits = len(passage.hits)
    longest = passage.placement.span
    passes = max((len(looks) for looks in passage.shares.looks.values()), default=0)
    shares, tokens = torch.zeros(passes, hits), torch.zeros(hits, longest)
    received = passage.by_pass()
    for i, layer in enumerate(lm.layers):
        if layer.layer_idx not in received:
            continue
        mass = received[layer.layer_idx] * weights[i][:, None]  # (passes, num_kv_heads, tokens)
        position = passage.placement.memory.layers[layer.layer_idx].position
        assert position is not None  # place() tells it
        for hit in range(hits):
            record = hits - hit  # the best is nearest, the prefix is 0
            own = passage.placement.owner[layer.layer_idx] == record
            most, at = mass.masked_fill(~own, 0.0).max(-1)  # (passes, num_kv_heads)
            shares[:, hit] += most.sum(1)
            stands = position[0].cpu().expand_as(own).gather(1, at.T).T - passage.placement.starts[record]
            tokens[hit].index_add_(0, stands.clamp(0, longest - 1).flatten(), most.flatten())
    return shares / shares.sum(1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny), tokens


def _sentence(lm: LanguageModel, hit: Hit, looked: dict[int, float]) -> tuple[int, int]:
    """Return the offsets in a hit's text of the sentence that was looked at most."""
    offsets = lm.tokenizer(f"{hit.text}{SEPARATOR}", add_special_tokens=False, return_offsets_mapping=True)
    spans: list[tuple[int, int]] = offsets["offset_mapping"]

    def heed(sentence: tuple[int, int]) -> float:
        return sum(
            much for token, much in looked.items() if token < len(spans) and _inside(spans[token], sentence, hit.text)
        )

    return max(sentences(hit.text), key=heed)


def _inside(span: tuple[int, int], sentence: tuple[int, int], text: str) -> bool:
    """Tell whether a token belongs to a sentence; the blank before a word belongs to the word."""
    start, stop = span
    while start < stop - 1 and text[start : start + 1].isspace():
        start += 1
    return sentence[0] <= start < sentence[1]
