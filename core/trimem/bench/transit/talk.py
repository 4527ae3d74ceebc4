"""What it saves to write only what surprises, and what it costs: dialogues, turn by turn, in few slots."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from trimem.bench.locomo import Dialogue, load_dialogues
from trimem.errors import InvalidInputError
from trimem.progress import track
from trimem.transit.bank import TransitBank

SURPRISES = (0.05, 0.1, 0.2, 0.3, 0.4)
"""Thresholds that are compared."""

_AT = (1, 5, 10)


def measure_talk(path: Path, *, n: int, seed: int) -> list[dict[str, Any]]:
    """Return, by threshold of surprise, how many slots dialogues take and how often a turn that answers is found.

    It is found where it is among the first in its own words: a slot that stands for it does not count. After each
    threshold comes the same number of slots without one, where the least used make room.

    Args:
        path: A file in LoCoMo's format; each dialogue has a namespace and slots of its own.
        n: Questions of all dialogues, drawn at random, at most as many as there are.
        seed: Of the draw.

    Raises:
        InvalidInputError: The file cannot be read, or is not in LoCoMo's format.
    """
    try:
        dialogues = load_dialogues(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInputError(f"{path} cannot be read as a LoCoMo file: {error!r}") from error
    asked = [(i, one) for i, dialogue in enumerate(dialogues) for one in dialogue.asked if one.evidence]
    drawn = random.Random(seed).sample(asked, min(n, len(asked)))  # noqa: S311 - no secret
    turns = sum(len(dialogue.said) for dialogue in dialogues)
    rows = []
    with track("talking", 1 + 2 * len(SURPRISES), None) as advance:

        def row(surprise: float | None, slots: Sequence[int]) -> list[int]:
            taken, ranks = [], []
            for i, (dialogue, most) in enumerate(zip(dialogues, slots, strict=True)):
                wanted = [[dialogue.said[at].turn.said for at in one.evidence] for j, one in drawn if i == j]
                queries = [one.text for j, one in drawn if i == j]
                held, found = _dialogue(dialogue, surprise, most, queries, wanted)
                taken.append(held)
                ranks += found
            rows.append(
                {
                    "surprise": surprise,
                    "turns": turns,
                    "slots": sum(taken),
                    **{f"recall_at_{k}": float((np.array(ranks) < k).mean()) for k in _AT},
                    "n": len(ranks),
                }
            )
            advance(1)
            return taken

        row(None, [len(dialogue.said) for dialogue in dialogues])
        for surprise in SURPRISES:
            taken = row(surprise, [len(dialogue.said) for dialogue in dialogues])
            row(None, taken)
    return rows


def _dialogue(
    dialogue: Dialogue, surprise: float | None, slots: int, queries: Sequence[str], wanted: Sequence[Sequence[str]]
) -> tuple[int, list[int]]:
    """Return how many slots a dialogue takes, and the rank of the first right turn of each query."""
    with (
        tempfile.TemporaryDirectory(prefix="trimem-bench-") as folder,
        TransitBank.open(folder, slots=slots, surprise=surprise) as bank,
    ):
        for _, session in groupby(dialogue.said, attrgetter("day")):
            bank.remember([said.turn for said in session], namespace="talk", progress=False)
        ranks = []
        for query, right in zip(queries, wanted, strict=True):
            hits = bank.recall(query, max(_AT), namespace="talk", touch=False)
            ranks.append(next((i for i, hit in enumerate(hits) if hit.text in right), max(_AT)))
        return bank.stats().slots, ranks
