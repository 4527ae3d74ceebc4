"""Questions about long conversations: LoCoMo's file format (Maharana et al., arXiv 2402.17753).

A passage is one turn, as a bank remembers it, with speaker and time beside it; what must be read for a
question is the turns that its authors name as evidence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Said:
    """A turn of a dialogue.

    Attributes:
        speaker: Who.
        text: What; empty where there is but a picture.
        caption: What is on the picture that comes with it; empty where there is none.
        day: When its session was, in the words of the file.
    """

    speaker: str
    text: str
    caption: str
    day: str

    @property
    def turn(self) -> Turn:
        """As a bank remembers it: what is on the picture stands behind what was said."""
        text = f"{self.text} [{self.caption}]".strip() if self.caption else self.text
        return Turn(self.speaker, datetime.strptime(self.day, _TIME), text)


@dataclass(frozen=True, slots=True)
class Asked:
    """A question about a dialogue.

    Attributes:
        text: In words.
        answer: Its answer; None where no turn tells it.
        category: One of :data:`CATEGORIES`, or 5.
        evidence: Indices of the turns that tell the answer, those left out that are not there.
        complete: Whether none was left out.
    """

    text: str
    answer: str | None
    category: int
    evidence: tuple[int, ...]
    complete: bool


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A long conversation.

    Attributes:
        said: Its turns, session after session.
        asked: The questions that name evidence.
    """

    said: list[Said]
    asked: list[Asked]


def load_dialogues(path: Path) -> list[Dialogue]:
    """Read the dialogues of a file.

    Raises:
        OSError, ValueError, KeyError, TypeError, AttributeError: It cannot be read, or is not in LoCoMo's format.
    """
    return [_dialogue(sample) for sample in json.loads(path.read_text(encoding="utf-8"))]


def load_locomo(path: Path) -> list[Corpus]:
    """Read conversations, each a corpus of its turns, with the questions that turns of it answer.

    Left out are questions without an answer, and those whose evidence names turns that are not there.

    Raises:
        InvalidInputError: The file is missing or not in LoCoMo's format, or holds no question.
    """
    try:
        corpora = [_corpus(dialogue) for dialogue in load_dialogues(path)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInputError(f"{path} cannot be read as a LoCoMo file: {error!r}") from error
    if not any(corpus.questions for corpus in corpora):
        raise InvalidInputError(f"{path} holds no question that has an answer and evidence")
    return corpora


def _dialogue(sample: Mapping[str, Any]) -> Dialogue:
    talk = sample["conversation"]
    said: list[Said] = []
    order: dict[str, int] = {}
    for name, session in talk.items():
        if isinstance(session, list):
            for turn in session:
                order[turn["dia_id"]] = len(said)
                said.append(
                    Said(turn["speaker"], turn["text"], turn.get("blip_caption") or "", talk[f"{name}_date_time"])
                )
    asked = []
    for question in sample["qa"]:
        named = dict.fromkeys(_EVIDENCE.findall(" ".join(question["evidence"])))
        there = tuple(order[name] for name in named if name in order)
        if there:
            answer = str(question["answer"]) if "answer" in question else None
            asked.append(Asked(question["question"], answer, question["category"], there, len(there) == len(named)))
    return Dialogue(said, asked)


def _corpus(dialogue: Dialogue) -> Corpus:
    turns = [said.turn for said in dialogue.said]
    questions = [
        Question(asked.text, (asked.answer,), asked.evidence, CATEGORIES[asked.category], literal=False)
        for asked in dialogue.asked
        if asked.category in CATEGORIES and asked.complete and asked.answer is not None
    ]
    return Corpus([turn.said for turn in turns], questions, [turn.metadata for turn in turns])
