"""Questions answered together: each as if it were alone."""

from __future__ import annotations

import pytest

from tests.contracts.bank import BOAT, CAKE, PUMP
from trimem import ContextLengthError, ExplicitBank, InvalidInputError, ReadConfig

QUESTIONS = ["pump?", "when does the boat leave for the island?", "cake?", "is anybody there?"]  # 13 to 48 tokens
NAMESPACES = ["mill", "harbour", ("mill", "kitchen"), "nobody"]


@pytest.fixture
def told(bank: ExplicitBank) -> ExplicitBank:
    bank.remember([PUMP, CAKE], namespace="mill")
    bank.remember(BOAT, namespace="harbour")
    bank.remember(CAKE, namespace=("mill", "kitchen"))
    return bank


@pytest.mark.parametrize(
    "read",
    [ReadConfig(), ReadConfig(exchange=3), ReadConfig(exchange=20), ReadConfig(reanchor=4)],
    ids=["plain", "exchange", "pieces", "reanchor"],
)
@pytest.mark.parametrize("beams", [1, 2])
def test_each_answers_as_if_alone(told: ExplicitBank, read: ReadConfig, beams: int) -> None:
    together = told.ask_many(
        QUESTIONS, namespaces=NAMESPACES, k=2, max_new_tokens=8, min_new_tokens=8, read=read, num_beams=beams
    )
    for question, namespace, answer in zip(QUESTIONS, NAMESPACES, together, strict=True):
        alone = told.ask(
            question, namespace=namespace, k=2, max_new_tokens=8, min_new_tokens=8, read=read, num_beams=beams
        )
        assert answer.text == alone.text
        assert [hit.id for hit in answer.hits] == [hit.id for hit in alone.hits]
        assert answer.pieces == alone.pieces
        assert (answer.prompt_tokens, answer.new_tokens) == (alone.prompt_tokens, alone.new_tokens)
        if beams == 1:  # of beams that are given up, a batch may look at more
            for one, other in zip(answer.hits, alone.hits, strict=True):
                assert one.attention == pytest.approx(other.attention, abs=1e-3)
            assert [c.text for c in answer.citations] == [c.text for c in alone.citations]
            for cited, known in zip(answer.citations, alone.citations, strict=True):
                assert cited.by_token == pytest.approx(known.by_token, abs=1e-3)


def test_a_row_never_reads_what_is_anothers(told: ExplicitBank) -> None:
    answers = told.ask_many(QUESTIONS, namespaces=NAMESPACES, k=5, max_new_tokens=2)
    for namespace, answer in zip(NAMESPACES, answers, strict=True):
        path = (namespace,) if isinstance(namespace, str) else tuple(namespace)
        assert all(hit.slot.namespace[: len(path)] == path for hit in answer.hits)
    assert answers[3].hits == ()


def test_wrong_batches_are_refused(told: ExplicitBank) -> None:
    with pytest.raises(InvalidInputError, match="one namespace for each"):
        told.ask_many(["pump?"], namespaces=["a", "b"])
    with pytest.raises(InvalidInputError, match="one namespace for each"):
        told.ask_many([], namespaces=[])
    with pytest.raises(InvalidInputError, match="not empty"):
        told.ask_many(["pump?", " "], namespaces=["mill", "mill"])
    with pytest.raises(ContextLengthError, match="shorten the question"):
        told.ask_many(["pump?", "boat?"], namespaces=["mill", "harbour"], max_new_tokens=511)
