"""Questions about long conversations: LoCoMo's file format (Maharana et al., arXiv 2402.17753).

A passage is one turn, as a bank remembers it, with speaker and time beside it; what must be read for a
question is the turns that its authors name as evidence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from trimem.bench.corpus import Corpus, Question
from trimem.errors import InvalidInputError
from trimem.types import Turn

CATEGORIES = {1: "multi_hop", 2: "temporal", 3: "open_domain", 4: "single_hop"}
"""By LoCoMo's numbers; the fifth asks what no turn tells, so there is nothing to read for it."""

_TIME = "%I:%M %p on %d %B, %Y"
_EVIDENCE = re.compile(r"D\d+:\d+")


def load_locomo(path: Path) -> list[Corpus]:
    """Read conversations, each a corpus of its turns, with the questions that turns of it answer.

    Left out are questions without an answer, and those whose evidence names turns that are not there.

    Raises:
        InvalidInputError: The file is missing or not in LoCoMo's format, or holds no question.
    """
    try:
        corpora = [_corpus(sample) for sample in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInputError(f"{path} cannot be read as a LoCoMo file: {error!r}") from error
    if not any(corpus.questions for corpus in corpora):
        raise InvalidInputError(f"{path} holds no question that has an answer and evidence")
    return corpora


def _corpus(sample: Mapping[str, Any]) -> Corpus:
    conversation = sample["conversation"]
    turns: dict[str, Turn] = {}
    for name, session in conversation.items():
        if isinstance(session, list):
            time = datetime.strptime(conversation[f"{name}_date_time"], _TIME)
            turns.update((turn["dia_id"], Turn(turn["speaker"], time, _text(turn))) for turn in session)
    order = {name: i for i, name in enumerate(turns)}
    questions = []
    for asked in sample["qa"]:
        evidence = dict.fromkeys(_EVIDENCE.findall(" ".join(asked["evidence"])))
        if asked["category"] in CATEGORIES and evidence and all(name in order for name in evidence):
            passages = tuple(order[name] for name in evidence)
            category = CATEGORIES[asked["category"]]
            questions.append(Question(asked["question"], (str(asked["answer"]),), passages, category, literal=False))
    return Corpus([turn.said for turn in turns.values()], questions, [turn.metadata for turn in turns.values()])


def _text(turn: Mapping[str, Any]) -> str:
    """Return what is said, and what is on the picture that comes with it."""
    shown = turn.get("blip_caption")
    return turn["text"] if shown is None else f"{turn['text']} [{shown}]".strip()
