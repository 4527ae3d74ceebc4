"""What is read is judged by all that is needed, and what is said by its first line."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tests.contracts.bank import BOAT, CAKE, PUMP
from trimem import ExplicitBank, Hit, Slot
from trimem.bench.corpus import Question
from trimem.bench.systems import ClosedBook, ExplicitMemory, Spoken, TextRag
from trimem.bench.trials import MAX_NEW_TOKENS, NAMESPACE, Trial, ask, found, remember, search
from trimem.bench.variants import read_from

WHEN = Question("When does the boat leave?", ("Tuesday",), (1,))


def hit(document: str, text: str) -> Hit:
    return Hit(Slot(text, (NAMESPACE,), document, text, 0, len(text), 1, 1, {}, datetime.now(UTC)), 1.0)


@pytest.mark.parametrize(
    ("passages", "hits", "expected"),
    [
        ((3,), [hit("3", "Ada did.")], True),
        ((3,), [hit("1", "Who?"), hit("3", "It was"), hit("3", "Ada.")], True),
        ((3,), [hit("3", "It was")], False),
        ((3,), [hit("1", "Ada did.")], False),
        ((3,), [], False),
        ((3, 1), [hit("3", "X is kept by Y."), hit("1", "Y is Ada.")], True),
        ((3, 1), [hit("1", "Y is Ada.")], False),
    ],
)
def test_every_passage_and_an_answer_are_needed(passages: tuple[int, ...], hits: list[Hit], expected: bool) -> None:
    assert found(Trial(Question("Who?", ("Ada", "Eve"), passages), hits)) is expected


def test_passages_are_enough_where_no_answer_stands_in_them() -> None:
    question = Question("When?", ("7 May 2023",), (3, 1), literal=False)
    hits = [hit("3", "I went yesterday."), hit("1", "It was fun.")]
    assert found(Trial(question, hits))
    assert not found(Trial(question, hits[:1]))
    assert not found(Trial(question, []))


def test_what_is_found_is_compiled_later(bank: ExplicitBank) -> None:
    remember(bank, [PUMP, BOAT, CAKE])
    trial = search(bank, WHEN, 2)
    assert (len(trial.hits), trial.hits[0].text, found(trial)) == (2, BOAT, True)
    assert trial.search_seconds > 0
    assert bank.stats().compiled == 0


def test_one_reference_is_as_likely_from_memory_as_from_text(bank: ExplicitBank) -> None:
    remember(bank, [PUMP, BOAT, CAKE])
    trial = search(bank, WHEN, 1)
    closed, text, memory = (ask(system, trial) for system in read_from(bank, ["explicit_dense"]))
    assert memory.nll == pytest.approx(text.nll, abs=1e-3)
    assert closed.nll != pytest.approx(text.nll, abs=1e-3)
    assert memory.said.prefill_tokens < closed.said.prefill_tokens < text.said.prefill_tokens


def test_search_counts_where_it_was_needed(bank: ExplicitBank) -> None:
    remember(bank, [PUMP, BOAT])
    slow = Trial(WHEN, search(bank, WHEN, 1).hits, search_seconds=1000.0)
    assert ask(ClosedBook(bank), slow).first_token < 1000
    for system in (TextRag(bank), ExplicitMemory(bank)):
        outcome = ask(system, slow)
        assert outcome.first_token == 1000 + outcome.said.first_token


def test_memory_and_text_count_what_lies_on_the_disk(bank: ExplicitBank) -> None:
    remember(bank, [PUMP, BOAT, CAKE])
    bank.compile(search(bank, WHEN, 2).hits)
    closed, text, memory = (system.bytes_per_ref([]) for system in read_from(bank, ["explicit_dense"]))
    stats = bank.stats()
    assert (closed, text) == (0, stats.database_bytes / 3)
    assert memory == pytest.approx(text + stats.tensor_bytes / 2)


def test_the_first_line_is_scored(bank: ExplicitBank, monkeypatch: pytest.MonkeyPatch) -> None:
    def say(*_: object, max_new_tokens: int, **__: object) -> Spoken:
        assert max_new_tokens == MAX_NEW_TOKENS
        return Spoken("on Tuesday.\nThe pump runs.", 0.1, 10.0, 5, ())

    monkeypatch.setattr(TextRag, "speak", say)
    remember(bank, [PUMP, BOAT])
    outcome = ask(TextRag(bank), search(bank, WHEN, 1))
    assert outcome.f1 == pytest.approx(2 / 3)
    assert outcome.em == 0
