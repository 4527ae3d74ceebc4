"""What was said before a question: searched for, read, and remembered turn by turn."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.contracts.bank import BOAT, CAKE, PUMP
from trimem import (
    ExplicitBank,
    InvalidInputError,
    ReadConfig,
    SlotNotFoundError,
    Turn,
)
from trimem.explicit.compiler import Compiler
from trimem.explicit.read import Placement
from trimem.explicit.record import Record
from trimem.explicit.rereading import question_likelihood

TALK = [{"role": "user", "content": "Where is the blue pump?"}, {"role": "assistant", "content": "In the cellar."}]


def test_a_question_is_followed_back_to_what_was_said(bank: ExplicitBank) -> None:
    bank.remember([PUMP, BOAT, CAKE], namespace="a")
    question = "When is that?"
    found = [
        bank.recall(question, 3, namespace="a")[0].text,
        bank.recall(question, 3, namespace="a", history=TALK)[0].text,
    ]
    assert found == [BOAT, PUMP]
    assert bank.recall(CAKE, 1, namespace="a", history=TALK)[0].text == CAKE, "what says what it means is found as ever"
    alone = bank.ask(question, namespace="a", k=1, max_new_tokens=8)
    answer = bank.ask(question, namespace="a", k=1, history=TALK, max_new_tokens=8)
    assert answer.hits[0].text == PUMP
    assert answer.prompt_tokens == len(bank.compiler.question(question, TALK)) > alone.prompt_tokens
    said = bank.model.tokenizer.decode(bank.compiler.question(question, TALK))
    assert all(message["content"] in said for message in TALK)
    stream = bank.ask(question, namespace="a", k=1, history=TALK, max_new_tokens=8, stream=True)
    assert stream.answer.text == answer.text
    for wrong in (["Where?"], [{"role": "system", "content": "x"}], [{"role": "user"}], [{"content": "x"}], "Where?"):
        with pytest.raises(InvalidInputError, match="history is a list of"):
            bank.ask(question, namespace="a", history=wrong)  # type: ignore[arg-type]


def test_what_is_reranked_is_followed_back_too(bank: ExplicitBank, monkeypatch: pytest.MonkeyPatch) -> None:
    bank.remember([PUMP, BOAT, CAKE], namespace="a")
    read: list[str] = []

    def likelihood(compiler: Compiler, records: Sequence[Record], question: str) -> list[float]:
        read.append(question)
        return question_likelihood(compiler, records, question)

    monkeypatch.setattr("trimem.explicit.bank.question_likelihood", likelihood)
    bank.recall("When is that?", 1, namespace="a", history=TALK, rerank=2)
    bank.recall("When is that?", 1, namespace="a", rerank=2)
    assert read == ["Where is the blue pump? When is that?", "When is that?"]


def test_a_conversation_read_in_pieces_searches_for_the_question_with_its_history(bank: ExplicitBank) -> None:
    bank.remember([PUMP, BOAT, CAKE], namespace="a")
    question = "When is that?"
    size = len(bank.compiler.question(question))
    assert size < len(bank.compiler.question(question, TALK))
    answer = bank.ask(question, namespace="a", k=1, history=TALK, max_new_tokens=2, read=ReadConfig(exchange=size))
    assert answer.citations[0].hit.text == PUMP
    assert answer.citations[0].share == pytest.approx(1)


def test_what_the_prompt_holds_as_text_is_not_read_twice(bank: ExplicitBank, monkeypatch: pytest.MonkeyPatch) -> None:
    bank.remember(BOAT, namespace="a")
    bank.remember(PUMP, namespace="a", compile=False)
    place, tried = bank._place, []

    def overtaken(*arguments: Any) -> Placement:
        tried.append(arguments[-1])
        if len(tried) == 1:
            raise SlotNotFoundError("replaced a moment ago")
        return place(*arguments)

    monkeypatch.setattr(bank, "_place", overtaken)
    answer = bank.ask("the pump and the boat", namespace="a", k=2, max_new_tokens=2, cold="text")
    assert sorted(hit.text for hit in answer.hits) == sorted([PUMP, BOAT])
    assert [[hit.text for hit in hits] for hits in tried] == [[BOAT], [BOAT]]


async def test_turns_and_history_off_the_event_loop(bank: ExplicitBank) -> None:
    await bank.aremember([Turn("Ada", None, PUMP), BOAT, CAKE], namespace="a", compile=False)
    (hit,) = await bank.arecall("When is that?", 1, namespace="a", history=TALK)
    assert hit.slot.metadata == {"speaker": "Ada"}


def test_turns_of_a_conversation_are_remembered_with_their_speakers(bank: ExplicitBank) -> None:
    noon = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
    turns = [
        Turn("Ada", noon, "I lost my red umbrella on the ferry."),
        Turn("Ben", noon + timedelta(minutes=1), "Yes."),
        Turn("Ben", noon + timedelta(days=1), "Yes."),
        Turn("Ada", None, "Nobody knows when I said this."),
    ]
    ids = bank.remember(turns, namespace="a", metadata={"source": "call 7", "speaker": "is told by the turn"})
    assert len(set(ids)) == 4, "one turn a slot, and the same words at another time are another turn"
    assert bank.remember(turns[0], namespace="a") == ids[:1], "and the same turn is the same"
    assert bank.remember([*turns, "A text among them."], namespace="a")[:4] == ids

    def said(**where: object) -> list[str]:
        return sorted(hit.text for hit in bank.recall("umbrella", 9, namespace="a", where=where))

    assert said(speaker="Ben") == ["Ben (1 May 2026): Yes.", "Ben (2 May 2026): Yes."]
    assert said(time={"$lt": noon + timedelta(hours=1)}) == [
        "Ada (1 May 2026): I lost my red umbrella on the ferry.",
        "Ben (1 May 2026): Yes.",
    ]
    assert said(time={"$gte": "2026-05-02"}, speaker="Ben") == ["Ben (2 May 2026): Yes."]
    assert said(time=None, speaker="Ada") == ["Ada: Nobody knows when I said this."]
    best = bank.recall("Who lost an umbrella?", 1, namespace="a")[0]
    assert (best.source, best.metadata) == (
        "call 7",
        {"source": "call 7", "speaker": "Ada", "time": "2026-05-01T12:00:00+00:00"},
    )
    with pytest.raises(InvalidInputError, match="speaker of a turn"):
        Turn("", noon, "x")
    with pytest.raises(InvalidInputError, match="text of a turn"):
        Turn("Ada", noon, " ")
    with pytest.raises(InvalidInputError, match="time of a turn"):
        Turn("Ada", "noon", "x")  # type: ignore[arg-type]


def test_a_history_that_is_none_is_refused(bank: ExplicitBank) -> None:
    for wrong in (None, 3, {"role": "user", "content": "pump?"}, [{"role": "user", "content": "\ud800"}]):
        with pytest.raises(InvalidInputError, match=r"history|surrogate"):
            bank.recall("pump", namespace="a", history=wrong)  # type: ignore[arg-type]


def test_what_the_application_says_is_read_and_not_searched_for(bank: ExplicitBank) -> None:
    bank.remember([PUMP, BOAT, CAKE], namespace="a")
    system = f"Speak as a pirate would. {CAKE}"
    for history in ([], TALK):
        alone = bank.ask("And the boat?", namespace="a", k=1, history=history, max_new_tokens=4)
        answer = bank.ask("And the boat?", namespace="a", k=1, history=history, system=system, max_new_tokens=4)
        assert answer.hits[0].text == alone.hits[0].text != CAKE
        said = bank.model.tokenizer.decode(bank.compiler.question("And the boat?", history, system))
        assert said.index(system) < said.index("Where is the blue pump?" if history else "And the boat?")
        assert answer.prompt_tokens == alone.prompt_tokens + len(bank.model.tokenize(f"{system}\n\n"))
    for text in ("And \ud800", " ", 5):
        with pytest.raises(InvalidInputError, match="a query"):
            bank.ask(text, namespace="a")  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="system holds an unpaired surrogate"):
        bank.ask("And the boat?", namespace="a", system="\ud800")
