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


def load_squad(path: Path, *, paragraphs: int = 1) -> Corpus:
    """Read passages and answerable questions from a SQuAD file, version 1.1 or 2.0.

    Args:
        path: The file.
        paragraphs: Most paragraphs of an article that are one passage.

    Raises:
        InvalidInputError: The file is missing or not in SQuAD's format, or paragraphs is less than 1.
    """
    if paragraphs < 1:
        raise InvalidInputError(f"paragraphs must be at least 1, got {paragraphs}")
    try:
        articles = json.loads(path.read_text(encoding="utf-8"))["data"]
        passages: list[str] = []
        questions: list[Question] = []
        for article in articles:
            for first in range(0, len(article["paragraphs"]), paragraphs):
                joined = article["paragraphs"][first : first + paragraphs]
                for asked in (question for paragraph in joined for question in paragraph["qas"]):
                    answers = tuple(answer["text"] for answer in asked["answers"])
                    if answers:
                        questions.append(Question(asked["question"].strip(), answers, (len(passages),)))
                passages.append("\n\n".join(paragraph["context"] for paragraph in joined))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInputError(f"{path} cannot be read as a SQuAD file: {error!r}") from error
    if not questions:
        raise InvalidInputError(f"{path} holds no question that has an answer")
    return Corpus(passages, questions)


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
