"""SQuAD's files, and its scores on cases whose value is known."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from trimem import InvalidInputError
from trimem.bench.corpus import Corpus, Question
from trimem.bench.squad import exact_match, f1, load_squad


def test_paragraphs_and_questions_that_have_an_answer(tmp_path: Path) -> None:
    asked = [
        [{"question": " Who? ", "answers": [{"text": "Ada"}, {"text": "ada"}]}],
        [{"question": "Why?", "answers": []}, {"question": "When?", "answers": [{"text": "1843"}]}],
    ]
    texts = ["Ada did.", "It was in 1843."]
    paragraphs = [{"context": text, "qas": qas} for text, qas in zip(texts, asked, strict=True)]
    path = tmp_path / "squad.json"
    path.write_text(json.dumps({"data": [{"paragraphs": [paragraph]} for paragraph in paragraphs]}))
    assert load_squad(path) == Corpus(
        texts, [Question("Who?", ("Ada", "ada"), (0,)), Question("When?", ("1843",), (1,))]
    )


def test_neighbouring_paragraphs_of_an_article_make_one_passage(tmp_path: Path) -> None:
    def paragraph(text: str) -> dict[str, object]:
        return {"context": text, "qas": [{"question": f"{text}?", "answers": [{"text": text}]}]}

    articles = [["one", "two", "three"], ["four"]]
    path = tmp_path / "squad.json"
    path.write_text(json.dumps({"data": [{"paragraphs": [paragraph(text) for text in texts]} for texts in articles]}))
    corpus = load_squad(path, paragraphs=2)
    assert corpus.passages == ["one\n\ntwo", "three", "four"]
    assert [question.passages for question in corpus.questions] == [(0,), (0,), (1,), (2,)]
    with pytest.raises(InvalidInputError, match="at least 1"):
        load_squad(path, paragraphs=0)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"data": []}', '{"data": [{"paragraphs": [{"qas": []}]}]}'])
def test_what_is_not_squad_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "squad.json"
    path.write_text(text)
    with pytest.raises(InvalidInputError, match=re.escape(str(path))):
        load_squad(path)


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
