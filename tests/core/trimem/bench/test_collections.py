"""Retrieval data of four formats come as texts and what is right for each query."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from trimem import InvalidInputError
from trimem.bench.collections import JUDGEMENTS, QUERIES, Query, load


def test_squad(tmp_path: Path) -> None:
    path = tmp_path / "squad.json"
    asked = [{"question": " Who? ", "answers": [{"text": "Ada"}]}, {"question": "Impossible?", "answers": []}]
    paragraphs = [{"context": "Nobody.", "qas": []}, {"context": "Ada did.", "qas": asked}]
    path.write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    (collection,) = load(path, "squad")["paragraph"]
    assert collection.texts == ["Nobody.", "Ada did."]
    assert collection.queries == [Query("Who?", frozenset({1}))]


def test_natural_questions_share_a_passage_that_is_the_same(tmp_path: Path) -> None:
    path = tmp_path / "nq.jsonl.gz"
    lines = [
        {"question": question, "ctxs": [{"title": "T", "text": text, "isgold": True}]}
        for question, text in (("one", "alike"), ("two", "other"), ("three", "alike"))
    ]
    path.write_bytes(gzip.compress("\n".join(json.dumps(line) for line in lines).encode()))
    (collection,) = load(path, "nq")["passage"]
    assert collection.texts == ["T\nalike", "T\nother"]
    assert [query.relevant for query in collection.queries] == [{0}, {1}, {0}]


def test_cranfields_judgements_count_queries_from_one(tmp_path: Path) -> None:
    path = tmp_path / "cran.xml"
    path.write_text(
        "<doc><docno>7</docno><title>a wing</title><text>the wing\nof a & b</text></doc>"
        "<doc><docno>9</docno><title>a title</title><text></text></doc>"
    )
    (tmp_path / QUERIES).write_text(
        "<xml><top><num>4</num><title>\nwhat wing\n</title></top>"
        "<top><num>8</num><title>which title</title></top></xml>"
    )
    (tmp_path / JUDGEMENTS).write_text("1 0 7 1\n1 0 9 -1\n2 0 9 2\n")
    (collection,) = load(path, "cranfield")["abstract"]
    assert collection.texts == ["the wing of a & b", "a title"]
    assert collection.queries == [Query("what wing", frozenset({0})), Query("which title", frozenset({1}))]


def test_dialogues_have_two_levels(tmp_path: Path) -> None:
    path = tmp_path / "locomo.json"
    said = [[("D1:1", "hello"), ("D1:2", "a pump")], [("D2:1", "a boat")]]
    talk: dict[str, object] = {"speaker_a": "Ann", "speaker_b": "Bob"}
    for i, turns in enumerate(said, start=1):
        talk[f"session_{i}_date_time"] = f"day {i}"
        talk[f"session_{i}"] = [{"speaker": "Ann", "dia_id": key, "text": text} for key, text in turns]
    talk["session_2"][0]["blip_caption"] = "a photo of a boat"  # type: ignore[index]
    qa = [
        {"question": "Which?", "category": 1, "evidence": ["D1:2; D2:1"]},
        {"question": "Nothing tells", "category": 1, "evidence": []},
        {"question": "Lost", "category": 1, "evidence": ["D9:9"]},
    ]
    path.write_text(json.dumps([{"qa": qa, "conversation": talk}]))
    levels = load(path, "locomo")
    assert levels["turn"][0].texts == ["Ann: hello", "Ann: a pump", "Ann: a boat [shares a photo of a boat]"]
    assert levels["session"][0].texts[1] == "day 2\nAnn: a boat [shares a photo of a boat]"
    assert levels["turn"][0].queries == [Query("Which?", frozenset({1, 2}))]
    assert levels["session"][0].queries == [Query("Which?", frozenset({0, 1}))]


@pytest.mark.parametrize("format", ["squad", "nq", "cranfield", "locomo"])
def test_what_is_in_another_format_is_refused(tmp_path: Path, format: str) -> None:
    (tmp_path / "x.json").write_text('{"data": 3}')
    with pytest.raises(InvalidInputError):
        load(tmp_path / "x.json", format)
    with pytest.raises(InvalidInputError):
        load(tmp_path / "absent", format)


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="squad, nq, cranfield, locomo"):
        load(tmp_path / "x", "csv")
