"""SQuAD's file format and its two scores (Rajpurkar et al., arXiv 1606.05250)."""

from __future__ import annotations

import json
import re
import string
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from trimem.bench.corpus import Corpus, Question
from trimem.errors import InvalidInputError

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def load_squad(path: Path) -> Corpus:
    """Read paragraphs and answerable questions from a SQuAD file, version 1.1 or 2.0.

    Raises:
        InvalidInputError: The file is missing or not in SQuAD's format.
    """
    try:
        articles = json.loads(path.read_text(encoding="utf-8"))["data"]
        paragraphs: list[str] = []
        questions: list[Question] = []
        for article in articles:
            for paragraph in article["paragraphs"]:
                for asked in paragraph["qas"]:
                    answers = tuple(answer["text"] for answer in asked["answers"])
                    if answers:
                        questions.append(Question(asked["question"].strip(), answers, (len(paragraphs),)))
                paragraphs.append(paragraph["context"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInputError(f"{path} cannot be read as a SQuAD file: {error!r}") from error
    if not questions:
        raise InvalidInputError(f"{path} holds no question that has an answer")
    return Corpus(paragraphs, questions)


def exact_match(said: str, answers: Sequence[str]) -> float:
    """Return 1 if what was said is one of the answers, else 0."""
    return float(any(_normalize(said) == _normalize(answer) for answer in answers))


def f1(said: str, answers: Sequence[str]) -> float:
    """Return the best overlap of words with an answer: harmonic mean of precision and recall."""
    return max(_overlap(_normalize(said).split(), _normalize(answer).split()) for answer in answers)


def _overlap(said: list[str], wanted: list[str]) -> float:
    common = sum((Counter(said) & Counter(wanted)).values())
    if common == 0:
        return float(said == wanted)
    precision, recall = common / len(said), common / len(wanted)
    return 2 * precision * recall / (precision + recall)


def _normalize(text: str) -> str:
    """Lower case, without punctuation, articles and extra white space."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())
