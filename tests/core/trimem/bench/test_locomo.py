"""Conversations become corpora of turns, and only questions that turns answer are asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trimem import InvalidInputError, LanguageModel
from trimem.bench.corpus import Corpus, Question
from trimem.bench.explicit import run
from trimem.bench.locomo import load_locomo


def asked(question: str, answer: object, evidence: list[str], category: int) -> dict[str, Any]:
    return {"question": question, "answer": answer, "evidence": evidence, "category": category}


CONVERSATION: dict[str, Any] = {
    "speaker_a": "Ada",
    "speaker_b": "Ben",
    "session_1_date_time": "1:56 pm on 8 May, 2023",
    "session_1": [
        {"speaker": "Ada", "dia_id": "D1:1", "text": "I saw a heron yesterday."},
        {"speaker": "Ben", "dia_id": "D1:2", "text": "Look!", "blip_caption": "a photo of a boat", "img_url": ["x"]},
    ],
    "session_2_date_time": "10:04 am on 19 December, 2023",
    "session_2": [{"speaker": "Ben", "dia_id": "D2:1", "text": "I sold it."}],
    "session_3_date_time": "10:04 am on 20 December, 2023",
}
QUESTIONS = [
    asked("When did Ada see a heron?", "7 May 2023", ["D1:1"], 2),
    asked("What did Ben sell?", "a boat", ["D1:2; D2:1", "D1:2"], 1),
    asked("In which year?", 2023, ["D2:1"], 4),
    asked("Is Ben sad?", "Likely not", ["D1:2"], 3),
    {"question": "What did Ada sell?", "adversarial_answer": "a boat", "evidence": ["D2:1"], "category": 5},
    asked("Evidence that is not there", "x", ["D4:36"], 4),
    asked("Evidence that is misspelt", "x", ["D:1:2"], 4),
    asked("No evidence", "x", [], 4),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "locomo.json"


def test_a_conversation_is_a_corpus_of_turns(path: Path) -> None:
    path.write_text(json.dumps([{"conversation": CONVERSATION, "qa": QUESTIONS}]))
    assert load_locomo(path) == [
        Corpus(
            [
                "Ada (8 May 2023): I saw a heron yesterday.",
                "Ben (8 May 2023): Look! [a photo of a boat]",
                "Ben (19 December 2023): I sold it.",
            ],
            [
                Question("When did Ada see a heron?", ("7 May 2023",), (0,), "temporal", literal=False),
                Question("What did Ben sell?", ("a boat",), (1, 2), "multi_hop", literal=False),
                Question("In which year?", ("2023",), (2,), "single_hop", literal=False),
                Question("Is Ben sad?", ("Likely not",), (1,), "open_domain", literal=False),
            ],
            [
                {"speaker": "Ada", "time": "2023-05-08T13:56:00"},
                {"speaker": "Ben", "time": "2023-05-08T13:56:00"},
                {"speaker": "Ben", "time": "2023-12-19T10:04:00"},
            ],
        )
    ]


WRONG: list[Any] = [
    "no json",
    {},
    [[]],
    [{}],
    [{"conversation": CONVERSATION}],
    [{"conversation": {"session_1": [{"dia_id": "D1:1"}]}, "qa": []}],
    [{"conversation": {**CONVERSATION, "session_1_date_time": "yesterday"}, "qa": QUESTIONS}],
    [{"conversation": CONVERSATION, "qa": [{"question": "?"}]}],
    [{"conversation": CONVERSATION, "qa": QUESTIONS[4:]}],
    [],
]


@pytest.mark.parametrize("data", WRONG)
def test_what_is_no_conversation_is_refused(path: Path, data: object) -> None:
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    with pytest.raises(InvalidInputError, match=r"locomo\.json"):
        load_locomo(path)


def test_rows_by_category(path: Path, tiny_llama: LanguageModel) -> None:
    path.write_text(json.dumps([{"conversation": CONVERSATION, "qa": QUESTIONS}]))
    result = run(path, lm=tiny_llama, refs=2, format="locomo", names=["explicit_dense"], new_tokens=1, progress=False)
    assert (result["n"], result["paragraphs"]) == (4, 3)
    categories = {part["category"]: part for part in result["categories"]}
    assert {name: part["n"] for name, part in categories.items()} == dict.fromkeys(
        ("multi_hop", "open_domain", "single_hop", "temporal"), 1
    )
    for part in categories.values():
        assert [list(row) for row in part["rows"]] == [list(row) for row in result["rows"]]
        assert [row["system"] for row in part["rows"]] == [row["system"] for row in result["rows"]]
    for i, row in enumerate(result["rows"]):
        mean = sum(part["rows"][i]["answer_nll"] for part in categories.values()) / 4
        assert row["answer_nll"] == pytest.approx(mean)
    assert result["recall_at_k"] == sum(part["recall_at_k"] for part in categories.values()) / 4
