"""SQuAD's scores, on cases whose value is known."""

from __future__ import annotations

import pytest

from trimem.bench.squad import exact_match, f1


@pytest.mark.parametrize(
    ("said", "answers", "em", "overlap"),
    [
        ("The Eiffel Tower.", ["eiffel tower"], 1.0, 1.0),
        ("in Paris, France", ["Paris", "Paris France"], 0.0, 0.8),
        ("a cat", ["dog", "the cat"], 1.0, 1.0),
        ("blue", ["red"], 0.0, 0.0),
        ("", ["the"], 1.0, 1.0),
        ("", ["red"], 0.0, 0.0),
        ("red red green", ["red"], 0.0, 0.5),
    ],
)
def test_scores(said: str, answers: list[str], em: float, overlap: float) -> None:
    assert exact_match(said, answers) == em
    assert f1(said, answers) == pytest.approx(overlap)
