"""Sources are told by where the model looked."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contracts.bank import BOAT, CAKE, PUMP
from trimem import Answer, ExplicitBank, LanguageModel, ReadConfig
from trimem.explicit.attribution import marked, sentences
from trimem.text.encoders import Encoder

NOTES = [
    "The mill was built in 1871. Its pump is painted blue and runs at nine bar. Nobody has ever repaired it.",
    "The ferry is called Orsola. It leaves for the island on Tuesday at half past six. Dogs travel free.",
    "The cake of the house needs eleven eggs. It is baked for two hours. Children may lick the spoon.",
]


def test_sentences_are_stretches_of_the_text() -> None:
    text = "It costs 2.5 marks. \u201cReally?\u201d  Yes!\nNew line\u3002\u597d"
    assert [text[start:stop] for start, stop in sentences(text)] == [
        "It costs 2.5 marks.",
        "\u201cReally?\u201d",
        "Yes!",
        "New line\u3002",
        "\u597d",
    ]
    assert sentences("") == [(0, 0)]


@pytest.mark.parametrize("heeded", [0, 1, 2])
def test_the_source_that_is_looked_at_is_cited(bank: ExplicitBank, heeded: int) -> None:
    bank.remember([PUMP, BOAT, CAKE], namespace="a")
    bias = [30.0 if rank == heeded else 0.0 for rank in range(3)]
    answer = bank.ask("pump?", namespace="a", k=3, read=ReadConfig(bias=bias), max_new_tokens=5)
    assert answer.citations[0].hit.id == answer.hits[heeded].id
    assert answer.citations[0].share > 0.99
    for i in range(answer.new_tokens):
        assert sum(citation.by_token[i] for citation in answer.citations) == pytest.approx(1, abs=1e-4)
    assert "".join(answer.pieces).strip() == answer.text
    assert {source for _, source in marked(answer)} <= {0}


def test_citations_go_on_over_an_exchange(bank: ExplicitBank) -> None:
    bank.remember([PUMP, BOAT, CAKE], namespace="a")
    read = ReadConfig(exchange=3)
    answer = bank.ask("pump?", namespace="a", k=1, read=read, max_new_tokens=8, min_new_tokens=8)
    assert all(len(citation.by_token) == 8 for citation in answer.citations)
    assert sum(citation.share for citation in answer.citations) == pytest.approx(1, abs=1e-4)


def test_beams_cite_too(bank: ExplicitBank) -> None:
    bank.remember([PUMP, BOAT], namespace="a")
    answer = bank.ask("pump?", namespace="a", k=2, max_new_tokens=5, num_beams=3)
    assert all(len(citation.by_token) == answer.new_tokens for citation in answer.citations)
    assert sum(citation.share for citation in answer.citations) == pytest.approx(1, abs=1e-4)


def test_nothing_read_is_nothing_cited(bank: ExplicitBank) -> None:
    bank.remember(PUMP, namespace="a")
    answer = bank.ask("pump?", namespace="b", max_new_tokens=3)
    assert answer.citations == ()
    assert all(source is None for _, source in marked(answer))


def asked(bank: ExplicitBank, question: str) -> Answer:
    return bank.ask(question, namespace="a", k=3, max_new_tokens=16, stop_strings=["."])


@pytest.mark.parametrize(
    ("question", "source", "sentence"),
    [
        ("When does the ferry leave for the island?", 1, "It leaves for the island on Tuesday at half past six."),
        ("How many eggs does the cake need?", 2, "The cake of the house needs eleven eggs."),
    ],
)
def test_a_real_model_cites_the_sentence_it_answers_from(
    tmp_path: Path, smollm: LanguageModel, encoder: Encoder, question: str, source: int, sentence: str
) -> None:
    with ExplicitBank.open(tmp_path / "bank", model=smollm, encoder=encoder) as bank:
        documents = [f"These are the notes of the house. {note}" for note in NOTES]
        bank.remember(documents, namespace="a")
        best = asked(bank, question).citations[0]
    assert best.text == sentence
    assert documents[source][best.start : best.stop] == sentence
