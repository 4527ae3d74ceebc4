"""A corpus holds together."""

from __future__ import annotations

import pytest

from trimem import InvalidInputError
from trimem.bench.corpus import Corpus, Question


@pytest.mark.parametrize(
    "question",
    [
        Question("who?", (), (0,)),
        Question("who?", ("me",), ()),
        Question("who?", ("me",), (0, 2)),
        Question("who?", ("me",), (-1,)),
    ],
)
def test_questions_have_answers_in_passages(question: Question) -> None:
    with pytest.raises(InvalidInputError):
        Corpus(["me", "you"], [question])
