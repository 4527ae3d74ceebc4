"""What is read and what is asked about it: the form that every source of questions is brought into."""

from __future__ import annotations

from dataclasses import dataclass

from trimem.errors import InvalidInputError
from trimem.types import Metadata


@dataclass(frozen=True, slots=True)
class Question:
    """A question with its answers and where they stand.

    Attributes:
        text: The question.
        answers: What counts as right; the first is the reference.
        passages: Indices of the passages that must be read to know; more than one where each tells
            only a part.
        category: What kind of question it is, where the source tells kinds apart.
        literal: Whether an answer stands in a passage word for word; if not, the passages are all that
            can be looked for.
    """

    text: str
    answers: tuple[str, ...]
    passages: tuple[int, ...]
    category: str | None = None
    literal: bool = True


@dataclass(frozen=True, slots=True)
class Corpus:
    """Passages that are searched together, and questions about them.

    Attributes:
        passages: What can be read.
        questions: What is asked.
        metadata: What is stored beside each passage; None is nothing.

    Raises:
        InvalidInputError: A question has no answer, or names no passage or one that is not there.
    """

    passages: list[str]
    questions: list[Question]
    metadata: list[Metadata] | None = None

    def __post_init__(self) -> None:
        for question in self.questions:
            if not question.answers or not question.passages:
                raise InvalidInputError(f"a question needs an answer and a passage that holds it, got {question!r}")
            if not all(0 <= passage < len(self.passages) for passage in question.passages):
                raise InvalidInputError(f"there are {len(self.passages)} passages, and not all that {question!r} names")
