"""ExplicitBank: the contract of all banks, and what only explicit memory promises."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread
from time import sleep
from typing import Any

import pytest
import torch
from langchain_core.embeddings import DeterministicFakeEmbedding
from safetensors.torch import load_file

from tests import tiny
from tests.contracts.bank import BOAT, CAKE, PUMP, BankContract
from trimem import (
    BankNotFoundError,
    ContextLengthError,
    CorruptTensorError,
    ExplicitBank,
    ExplicitConfig,
    FingerprintMismatch,
    Hit,
    InvalidInputError,
    LanguageModel,
    ReadConfig,
    Reading,
    SlotNotFoundError,
    Turn,
    UnsupportedModelError,
)
from trimem.bench.systems import ExplicitMemory, TextRag
from trimem.errors import CalibrationNotFoundError
from trimem.explicit.calibrate import calibrate
from trimem.explicit.calibration import own_calibration, save
from trimem.explicit.compiler import Compiler
from trimem.explicit.read import Placement, moved
from trimem.explicit.record import Record
from trimem.explicit.rereading import question_likelihood
from trimem.lm.attach import attach
from trimem.text.encoders import Encoder


class TestContract(BankContract):
    @pytest.fixture
    def folder(self, bank: ExplicitBank) -> Path:
        return bank.folder


def shard_of(bank: ExplicitBank, slot: str) -> Path:
    """Return the file that holds the tensors of a slot."""
    return bank._store.tensors.path(bank._store.places([slot])[slot].shard)


def write_record(bank: ExplicitBank, slot: str, tensors: dict[str, torch.Tensor]) -> None:
    """Give a slot other tensors, with the right checksums."""
    with bank._store.changing() as (_, change):
        change.leave([slot])
        change.enter(bank._store.tensors.stage({slot: tensors}, {}))


def prompt_logits(lm: LanguageModel, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        result: torch.Tensor = lm.model(torch.tensor([ids])).logits[0]
    return result


@pytest.fixture
def exact(tmp_path: Path, tiny_llama: LanguageModel, encoder: Encoder) -> Iterator[ExplicitBank]:
    """A bank that stores every bit."""
    config = ExplicitConfig(codec="float32")
    with ExplicitBank.open(tmp_path / "exact", model=tiny_llama, encoder=encoder, config=config) as bank:
        yield bank


@pytest.mark.parametrize("name", ["llama", "gemma3", "phi3", "cohere"])
def test_one_reference_reads_as_its_text_does(name: str, tmp_path: Path, encoder: Encoder) -> None:
    lm = tiny.build(name)
    config = ExplicitConfig(codec="float32")
    with ExplicitBank.open(tmp_path / "bank", model=lm, encoder=encoder, config=config) as bank:
        bank.remember([PUMP, BOAT], namespace="a")
        (hit,) = bank.recall("pump", 1, namespace="a")
        question = bank.compiler.question("Which pump?")
        before = [*bank.compiler.prefix_ids, *bank.compiler.reference(hit.text)]
        full = prompt_logits(lm, [*before, *question])[len(before) :]
        with bank.attach(lm, hits=[hit]):
            read = prompt_logits(lm, question)
    torch.testing.assert_close(read, full, atol=2e-4, rtol=0)


def test_one_reference_reads_as_its_text_does_in_a_real_model(
    tmp_path: Path, pretrained: LanguageModel, encoder: Encoder
) -> None:
    with ExplicitBank.open(tmp_path / "bank", model=pretrained, encoder=encoder) as bank:
        bank.remember([PUMP, BOAT, CAKE], namespace="a")
        hits = bank.recall("How many eggs does the cake need?", 1, namespace="a")
        arguments = ("How many eggs does the cake need?", hits, "eleven")
        from_text = TextRag(bank).answer_nll(*arguments, lead="The answer is")
        from_memory = ExplicitMemory(bank).answer_nll(*arguments, lead="The answer is")
    assert from_memory == pytest.approx(from_text, abs=0.01), "half precision on the disk is all that differs"


def test_a_real_model_answers_from_memory(tmp_path: Path, pretrained: LanguageModel, encoder: Encoder) -> None:
    with ExplicitBank.open(tmp_path / "bank", model=pretrained, encoder=encoder) as bank:
        bank.remember([PUMP, BOAT, CAKE], namespace="a")
        answer = bank.ask("On which day does the grey boat leave?", namespace="a", k=2, max_new_tokens=24)
        alone = bank.ask("On which day does the grey boat leave?", namespace="empty", max_new_tokens=24)
    assert "Tuesday" in answer.text
    assert "Tuesday" not in alone.text
    assert alone.hits == ()
    assert answer.hits[0].text == BOAT
    assert answer.hits[0].attention is not None
    assert 0 < answer.hits[0].attention < 1
    assert sum(hit.attention or 0.0 for hit in answer.hits) == pytest.approx(1.0, abs=1e-5)
    assert answer.prompt_tokens < answer.memory_tokens + 30
    assert 0 < answer.timings.search < answer.timings.first_token <= answer.timings.total
    assert answer.tokens_per_second > 0


def test_the_best_hit_stands_nearest_to_the_question(exact: ExplicitBank) -> None:
    exact.remember([PUMP, BOAT], namespace="a")
    hits = exact.recall("pump", 2, namespace="a")
    with exact.attach(hits=hits) as reading:
        prompt_logits(exact.model, exact.compiler.question("Which pump?"))
    compiler = exact.compiler
    lengths = [len(compiler.reference(hit.text)) for hit in hits]
    assert reading.tokens == compiler.prefix.tokens + sum(lengths)
    owner = reading.placement.owner[0][0]
    assert [int((owner == i).sum()) for i in range(3)] == [compiler.prefix.tokens, *reversed(lengths)]


@pytest.mark.parametrize("heeded", [0, 1, 2])
def test_attention_is_told_of_the_hit_that_got_it(bank: ExplicitBank, heeded: int) -> None:
    bank.remember([PUMP, BOAT, CAKE], namespace="a")
    bias = [30.0 if rank == heeded else 0.0 for rank in range(3)]
    answer = bank.ask("pump?", namespace="a", k=3, read=ReadConfig(bias=bias), max_new_tokens=3)
    shares = [hit.attention or 0.0 for hit in answer.hits]
    assert shares[heeded] > 0.99, shares


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


WAYS: dict[str, Callable[[ExplicitBank], Sequence[Hit]]] = {
    "ask": lambda bank: bank.ask("pump?", namespace="a", max_new_tokens=2).hits,
    "ask_many": lambda bank: bank.ask_many(["pump?"], namespaces=["a"], max_new_tokens=2)[0].hits,
    "pieces": lambda bank: (
        bank.ask("the pump, the blue pump?", namespace="a", max_new_tokens=2, read=ReadConfig(exchange=16)).hits
    ),
    "rerank": lambda bank: bank.recall("pump?", namespace="a", rerank=2),
}


@pytest.mark.parametrize("way", WAYS)
def test_what_is_replaced_before_it_is_read_is_found_again(
    bank: ExplicitBank, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    bank.remember(PUMP, namespace="a", ids="x")
    check_held = bank._store.check_held
    versions = iter((f"{PUMP} New.", f"{PUMP} Newer."))

    def overtaken(ids: Sequence[str]) -> None:
        for text in versions:
            bank.remember(text, namespace="a", ids="x")
            break
        check_held(ids)

    monkeypatch.setattr(bank._store, "check_held", overtaken)
    assert [hit.text for hit in WAYS[way](bank)] == [f"{PUMP} Newer."]


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


def test_with_history_one_reference_reads_as_its_text_does(exact: ExplicitBank) -> None:
    exact.remember(PUMP, namespace="a")
    hits = exact.recall("pump", 1, namespace="a")
    question = exact.compiler.question("Which one?", TALK)
    before = [*exact.compiler.prefix_ids, *exact.compiler.reference(PUMP)]
    full = prompt_logits(exact.model, [*before, *question])[len(before) :]
    with exact.attach(hits=hits):
        read = prompt_logits(exact.model, question)
    torch.testing.assert_close(read, full, atol=2e-4, rtol=0)


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


def test_memory_moves_along_with_the_context(bank: ExplicitBank) -> None:
    bank.remember(PUMP, namespace="a")
    hits = bank.recall("pump", 1, namespace="a")
    with bank.attach(hits=hits, read=ReadConfig(reanchor=16)) as reading:
        nearest = []
        for length in (15, 16, 20, 32):
            reading.follow(length)
            assert reading.attachment is not None
            layers = reading.attachment.memory.layers.values()
            nearest.append({int(layer.position.max()) for layer in layers if layer.position is not None})
    assert nearest == [{-1}, {15}, {15}, {31}]


def test_an_answer_takes_its_memory_along(bank: ExplicitBank, monkeypatch: pytest.MonkeyPatch) -> None:
    bank.remember(PUMP, namespace="a")
    followed: list[int] = []
    monkeypatch.setattr(Reading, "follow", lambda _, length: followed.append(length))
    answer = bank.ask("pump?", namespace="a", max_new_tokens=4)
    assert followed == [answer.prompt_tokens + new for new in range(1, answer.new_tokens + 1)]


def test_memories_are_exchanged_for_what_the_last_words_find(
    bank: ExplicitBank, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank.remember([PUMP, BOAT, CAKE], namespace="a")
    asked: list[str] = []
    found = {query: bank.recall(query, 1, namespace="a") for query in ("pump", "boat", "cake")}

    def recall(query: str, *_: object, **__: object) -> list[Hit]:
        asked.append(query)
        return found[("pump", "boat", "cake")[len(asked) - 1]]

    monkeypatch.setattr(bank, "recall", recall)
    answer = bank.ask("pump?", namespace="a", k=1, max_new_tokens=33, min_new_tokens=33, read=ReadConfig(exchange=16))
    assert [hit.text for hit in answer.hits] == [PUMP, BOAT, CAKE]
    assert sum(hit.attention or 0.0 for hit in answer.hits) == pytest.approx(1)
    ids = bank.model.tokenize(answer.text)
    assert len(asked) == 3
    assert asked[0] == "pump?"
    assert len(ids) >= 16, asked


def test_a_history_that_is_none_is_refused(bank: ExplicitBank) -> None:
    for wrong in (None, 3, {"role": "user", "content": "pump?"}, [{"role": "user", "content": "\ud800"}]):
        with pytest.raises(InvalidInputError, match=r"history|surrogate"):
            bank.recall("pump", namespace="a", history=wrong)  # type: ignore[arg-type]


def test_each_piece_of_a_long_question_reads_what_it_finds(bank: ExplicitBank) -> None:
    """What speaks reads what the last words find; what only earlier words found is told, and not cited."""
    bank.remember([PUMP, BOAT, CAKE], namespace="a")
    question = "where is the pump of the mill? never mind, when does the boat to the island leave?"
    assert len(bank.compiler.question(question)) in range(64, 128)
    answer = bank.ask(question, namespace="a", k=1, max_new_tokens=4, min_new_tokens=4, read=ReadConfig(exchange=64))
    assert [hit.text for hit in answer.hits] == [PUMP, BOAT]
    assert all((hit.attention or 0.0) > 0 for hit in answer.hits)
    assert sum(hit.attention or 0.0 for hit in answer.hits) == pytest.approx(1)
    assert [citation.hit.text for citation in answer.citations] == [BOAT, PUMP]
    assert [citation.share for citation in answer.citations] == pytest.approx([1, 0])
    assert answer.citations[0].by_token == pytest.approx([1] * 4)


def test_exchanged_memory_stands_right_before_what_follows(bank: ExplicitBank) -> None:
    """After an exchange the model speaks as if the new memory had been there, moved to where it stands now."""
    bank.remember([PUMP, BOAT], namespace="a")
    pump, boat = (bank.recall(query, 1, namespace="a") for query in ("pump", "boat"))
    lm, question = bank.model, bank.compiler.question("pump?")
    ids = torch.tensor([question])
    more = torch.tensor([lm.tokenize("cake")])
    with torch.no_grad():
        with bank.attach(hits=pump) as reading:
            cache = lm.model(ids, attention_mask=torch.ones_like(ids), use_cache=True).past_key_values
            reading.exchange(boat, len(question))
            mask = torch.ones(1, len(question) + more.shape[1])
            read = lm.model(more, attention_mask=mask, past_key_values=cache).logits
        with bank.attach(hits=pump):
            cache = lm.model(ids, attention_mask=torch.ones_like(ids), use_cache=True).past_key_values
        with bank.attach(hits=boat) as other:
            there = moved(lm, other.placement.memory, len(question))
        with attach(lm, there):
            wanted = lm.model(more, attention_mask=mask, past_key_values=cache).logits
    torch.testing.assert_close(read, wanted)
    assert [passage.hits for passage in reading.passages] == [tuple(pump), tuple(boat)]


def test_mixed_reads_by_the_calibrated_heads_alone(
    bank: ExplicitBank, tiny_llama: LanguageModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TRIMEM_CACHE", str(tmp_path / "cache"))
    bank.remember([PUMP, BOAT], namespace="a")
    hits = bank.recall("pump", 2, namespace="a")
    with pytest.raises(CalibrationNotFoundError, match="trimem calibrate"), bank.attach(hits=hits, read="mixed"):
        pass
    save(calibrate(tiny_llama, samples=1, progress=False), own_calibration(tiny_llama))
    with bank.attach(hits=hits, read="mixed") as reading:
        pass
    heads = len(tiny_llama.layers) * tiny_llama.layers[0].num_kv_heads
    reads = [bool((owner > 0).any()) for owners in reading.placement.owner.values() for owner in owners]
    assert sum(reads) == round(heads * 5 / 6)


def test_streaming_says_the_same(bank: ExplicitBank) -> None:
    bank.remember([PUMP, BOAT], namespace="a")
    whole = bank.ask("pump?", namespace="a", max_new_tokens=10)
    stream = bank.ask("pump?", namespace="a", max_new_tokens=10, stream=True)
    assert "".join(stream).strip() == whole.text
    assert stream.answer.text == whole.text
    assert stream.answer.hits == whole.hits


def test_a_stream_is_closed_while_another_thread_waits_for_it(bank: ExplicitBank) -> None:
    bank.remember(PUMP, namespace="a")
    stream = bank.ask(
        "pump?", namespace="a", max_new_tokens=400, stop_strings=["never said, but waited for" * 20], stream=True
    )
    read: list[str] = []
    reader = Thread(target=lambda: read.extend(stream))
    reader.start()  # what may begin a stop string is held back, so it waits until the end
    sleep(0.2)
    stream.close()
    reader.join()
    assert 0 < stream.answer.new_tokens < 400


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


def test_errors_of_a_stream_are_raised_to_its_reader(bank: ExplicitBank) -> None:
    bank.remember(PUMP, namespace="a")
    with pytest.raises(ContextLengthError, match="shorten the question"):
        list(bank.ask("pump?", namespace="a", max_new_tokens=511, stream=True))


async def test_asking_off_the_loop(bank: ExplicitBank) -> None:
    bank.remember([PUMP, BOAT], namespace="a")
    answer = await bank.aask("pump?", namespace="a", max_new_tokens=4)
    assert answer.text == bank.ask("pump?", namespace="a", max_new_tokens=4).text


def test_tenants_in_threads_read_their_own(bank: ExplicitBank) -> None:
    bank.remember(PUMP, namespace="a")
    bank.remember(BOAT, namespace="b")
    wanted = {name: bank.ask("what?", namespace=name, max_new_tokens=8).text for name in "ab"}
    assert wanted["a"] != wanted["b"]
    got: dict[str, list[str]] = {"a": [], "b": []}

    def tenant(name: str) -> None:
        for _ in range(5):
            got[name].append(bank.ask("what?", namespace=name, max_new_tokens=8).text)

    threads = [Thread(target=tenant, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(set(got[name]) == {wanted[name]} for name in "ab")


def test_a_long_text_becomes_several_slots(bank: ExplicitBank) -> None:
    text = "\n".join(f"Sentence number {i} says something about pumps." for i in range(12))
    ids = bank.remember(text, namespace="a", metadata={"source": "long.txt"})
    assert len(ids) > 3
    hits = bank.recall("pumps", 99, namespace="a")
    assert {hit.id for hit in hits} == set(ids)
    for hit in hits:
        assert text[hit.slot.start : hit.slot.stop] == hit.text
        assert hit.slot.tokens <= bank.config.reference_tokens
        assert text.splitlines()[hit.slot.line - 1].startswith(hit.text[:8])


def test_slots_can_be_compiled_when_they_are_first_read(bank: ExplicitBank, tiny_llama: LanguageModel) -> None:
    bank.remember([PUMP, BOAT], namespace="a", compile=False)
    assert bank.stats().compiled == 0
    assert bank.stats().tensor_bytes == 0
    hits = bank.recall("pump", 1, namespace="a")
    with bank.attach(tiny_llama, hits=hits):
        pass
    assert bank.stats().compiled == 1
    assert bank.stats().tensor_bytes > 0
    assert bank.compile(bank.recall("pump", 2, namespace="a")) == 1
    assert bank.stats().compiled == 2


def test_a_bank_opens_again_as_it_was(tmp_path: Path, tiny_llama: LanguageModel, encoder: Encoder) -> None:
    folder = tmp_path / "bank"
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    config = ExplicitConfig(reference_tokens=64)
    with ExplicitBank.open(folder, model=tiny_llama, encoder=encoder, config=config, clock=lambda: moment) as bank:
        ids = bank.remember(PUMP, namespace="a", metadata={"source": "x"})
        said = bank.ask("pump?", namespace="a", max_new_tokens=6).text
    with ExplicitBank.open(folder, model=tiny_llama, encoder=encoder) as bank:
        assert bank.config == config
        (hit,) = bank.recall("pump", namespace="a")
        assert (hit.id, hit.slot.created_at) == (ids[0], moment)
        assert bank.ask("pump?", namespace="a", max_new_tokens=6).text == said
        assert bank.remember(PUMP, namespace="a") == ids


def test_two_open_banks_see_each_others_writes(tmp_path: Path, tiny_llama: LanguageModel, encoder: Encoder) -> None:
    with (
        ExplicitBank.open(tmp_path, model=tiny_llama, encoder=encoder) as one,
        ExplicitBank.open(tmp_path, model=tiny_llama, encoder=encoder) as two,
    ):
        one.remember(PUMP, namespace="a")
        assert [hit.text for hit in two.recall("pump", namespace="a")] == [PUMP]
        two.remember(BOAT, namespace="a")
        assert len(one.recall("pump", namespace="a")) == 2
        one.forget(namespace="a")
        assert two.recall("pump", namespace="a") == []


def test_another_model_is_refused_with_both_names(tmp_path: Path, tiny_llama: LanguageModel, encoder: Encoder) -> None:
    with ExplicitBank.open(tmp_path, model=tiny_llama, encoder=encoder) as bank:
        bank.remember(PUMP, namespace="a")
        other = tiny.build("qwen3")
        with pytest.raises(FingerprintMismatch, match=r"llama .* qwen3"):
            ExplicitBank.open(tmp_path, model=other, encoder=encoder)
        with (
            pytest.raises(FingerprintMismatch, match="qwen3"),
            bank.attach(other, hits=bank.recall("pump", namespace="a")),
        ):
            pass
        assert bank.stats().slots == 1


def test_a_model_named_by_a_folder_is_checked_when_it_is_loaded(
    tmp_path: Path, tiny_llama: LanguageModel, encoder: Encoder
) -> None:
    folders = {}
    for name, lm in (("right", tiny_llama), ("wrong", tiny.build("llama", seed=1))):
        folders[name] = tmp_path / name
        lm.model.save_pretrained(folders[name])
        lm.tokenizer.save_pretrained(folders[name])
    with ExplicitBank.open(tmp_path / "bank", model=folders["right"], encoder=encoder) as bank:
        bank.remember(PUMP, namespace="a")
    with ExplicitBank.open(tmp_path / "bank", encoder=encoder) as bank:  # finds its model by itself
        assert bank.model.name == str(folders["right"])
    with ExplicitBank.open(tmp_path / "bank", model=folders["wrong"], encoder=encoder) as bank:
        assert len(bank.recall("pump", namespace="a")) == 1, "searching needs no model"
        for _ in range(2):
            with pytest.raises(FingerprintMismatch):
                bank.ask("pump?", namespace="a")


def test_another_encoder_is_refused(tmp_path: Path, tiny_llama: LanguageModel, encoder: Encoder) -> None:
    with ExplicitBank.open(tmp_path, model=tiny_llama, encoder=encoder) as bank:
        bank.remember(PUMP, namespace="a")
    with ExplicitBank.open(tmp_path, model=tiny_llama, encoder=DeterministicFakeEmbedding(size=16)) as bank:
        with pytest.raises(FingerprintMismatch, match="all-MiniLM-L6-v2"):
            bank.recall("pump", namespace="a")
        with pytest.raises(FingerprintMismatch, match="encoder"):
            bank.remember(BOAT, namespace="a")


def test_langchain_embeddings_find_slots(tmp_path: Path, tiny_llama: LanguageModel) -> None:
    with ExplicitBank.open(tmp_path, model=tiny_llama, encoder=DeterministicFakeEmbedding(size=16)) as bank:
        bank.remember([PUMP, BOAT], namespace="a")
        assert bank.recall(PUMP, 1, namespace="a")[0].text == PUMP


def test_absolute_positions_are_refused_before_anything_is_stored(tmp_path: Path, encoder: Encoder) -> None:
    with ExplicitBank.open(tmp_path, model=tiny.build("gpt2"), encoder=encoder) as bank:
        with pytest.raises(UnsupportedModelError, match="absolute positions"):
            bank.remember(PUMP, namespace="a")
        assert bank.stats().slots == 0


def test_what_is_no_bank_is_refused(tmp_path: Path, tiny_llama: LanguageModel) -> None:
    with pytest.raises(BankNotFoundError, match="no bank in"):
        ExplicitBank.open(tmp_path / "absent", model=tiny_llama, create=False)
    assert not (tmp_path / "absent").exists()
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(InvalidInputError, match="a bank is a folder"):
        ExplicitBank.open(file, model=tiny_llama)
    with pytest.raises(InvalidInputError, match="a bank is a folder"):
        ExplicitBank.open("postgresql://localhost/bank", model=tiny_llama)


def test_another_configuration_is_refused(tmp_path: Path, tiny_llama: LanguageModel, encoder: Encoder) -> None:
    with ExplicitBank.open(tmp_path, model=tiny_llama, encoder=encoder) as bank:
        bank.remember(PUMP, namespace="a")
    with pytest.raises(InvalidInputError, match="leave config out"):
        ExplicitBank.open(tmp_path, model=tiny_llama, encoder=encoder, config=ExplicitConfig(reference_tokens=64))


def test_a_corrupt_record_is_named_and_can_be_made_again(
    tmp_path: Path, tiny_llama: LanguageModel, encoder: Encoder
) -> None:
    with ExplicitBank.open(tmp_path / "bank", model=tiny_llama, encoder=encoder, cache_bytes=0) as bank:
        (pump,) = bank.remember(PUMP, namespace="a")
        (boat,) = bank.remember(BOAT, namespace="a")
        said = bank.ask("pump?", namespace="a", k=2, max_new_tokens=6).text
        path = shard_of(bank, pump)
        for damage in (b"", path.read_bytes()[:200], b"\xff" * 3000):
            path.write_bytes(damage)
            with pytest.raises(CorruptTensorError, match=f"slot {pump} .*trimem repair"):
                bank.ask("pump?", namespace="a", k=2)
        other = bank.recall("boat", 1, namespace="a")
        assert other[0].id == boat
        with bank.attach(bank.model, hits=other):
            pass  # the other slot is not touched by it
        path.unlink()
        assert bank.ask("pump?", namespace="a", k=2, max_new_tokens=6).text == said, "compiled again as it is read"


def test_what_is_held_outlives_damage_to_its_file(bank: ExplicitBank) -> None:
    (pump,) = bank.remember(PUMP, namespace="a")
    said = bank.ask("pump?", namespace="a", max_new_tokens=6).text
    path = shard_of(bank, pump)
    path.write_bytes(b"")  # truncated in place, under whoever has it mapped
    assert bank.ask("pump?", namespace="a", max_new_tokens=6).text == said


def test_a_record_of_other_tensors_is_corrupt(bank: ExplicitBank) -> None:
    (pump,) = bank.remember(PUMP, namespace="a")
    write_record(bank, pump, {"key": torch.zeros(2)})
    with pytest.raises(CorruptTensorError, match="not what a record of this bank holds: 'counts'"):
        bank.ask("pump?", namespace="a")


def test_pieces_of_a_document_know_what_stands_before_also_when_compiled_later(
    tmp_path: Path, tiny_llama: LanguageModel, encoder: Encoder
) -> None:
    text = " ".join(f"{PUMP} It is number {i} of the mill." for i in range(6))
    config = ExplicitConfig(context="document", reference_tokens=64)
    with (
        ExplicitBank.open(tmp_path / "a", model=tiny_llama, encoder=encoder, config=config) as warm,
        ExplicitBank.open(tmp_path / "b", model=tiny_llama, encoder=encoder, config=config) as cold,
    ):
        assert len(warm.remember(text, namespace="a")) > 2
        cold.remember(text, namespace="a", compile=False)
        last = max(cold.recall("number 5", 9, namespace="a"), key=lambda hit: hit.slot.start)
        with warm.attach(hits=[last]), cold.attach(hits=[last]):
            pass
    one, other = (
        {name: tensor for file in (tmp_path / bank).rglob("*.safetensors") for name, tensor in load_file(file).items()}
        for bank in "ab"
    )
    assert set(one) == set(other)
    for name, tensor in one.items():
        torch.testing.assert_close(other[name], tensor)


def test_product_quantisation_is_trained_once_and_kept(
    tmp_path: Path, tiny_llama: LanguageModel, encoder: Encoder
) -> None:
    pytest.importorskip("faiss", reason="the codec pq is an option")
    texts = [f"{PUMP} Number {i}." for i in range(6)]
    sizes = []
    for name in ("int4", "pq"):
        config = ExplicitConfig(codec=name)
        with ExplicitBank.open(tmp_path / name, model=tiny_llama, encoder=encoder, config=config) as bank:
            bank.remember(texts, namespace="a")
            sizes.append(bank.stats(namespace="a").tensor_bytes)
            files = sum(file.stat().st_size for file in (tmp_path / name).rglob("*.safetensors"))
            assert bank.stats().tensor_bytes == files, "the codebooks count, too"
    (codebook,) = (tmp_path / "pq").rglob("codebook-*.safetensors")
    trained = codebook.read_bytes()
    with ExplicitBank.open(tmp_path / "pq", model=tiny_llama, encoder=encoder) as bank:
        said = bank.ask("pump?", namespace="a", k=2, max_new_tokens=6)
        bank.remember(BOAT, namespace="a")
        assert bank.ask("pump?", namespace="a", k=2, max_new_tokens=6).text == said.text
    assert codebook.read_bytes() == trained
    assert sizes[1] < sizes[0]


@pytest.mark.parametrize("broken", ["counts", "span", "key"])
def test_a_record_of_other_sizes_is_corrupt(bank: ExplicitBank, broken: str) -> None:
    (pump,) = bank.remember(PUMP, namespace="a")
    tensors = bank._store.tensors.read(bank._store.places([pump])[pump], pump)
    tensors[broken] = tensors[broken].flatten()[:1].clone()
    write_record(bank, pump, tensors)
    with pytest.raises(CorruptTensorError, match="trimem repair"):
        bank.ask("pump?", namespace="a")


def test_an_older_configuration_says_what_to_do() -> None:
    for version, advice in ((1, "new bank"), (99, "upgrade trimem"), (None, "upgrade trimem")):
        with pytest.raises(InvalidInputError, match=advice):
            ExplicitConfig.from_json({"version": version, "dtype": "float16"})


def test_hits_that_were_forgotten_are_refused_and_stay_forgotten(bank: ExplicitBank) -> None:
    bank.remember(PUMP, namespace="a")
    hits = bank.recall("pump", namespace="a")
    bank.forget(namespace="a")
    with pytest.raises(InvalidInputError, match="does not hold"), bank.attach(bank.model, hits=hits):
        pass
    assert not list(bank.folder.rglob("*.safetensors"))


def test_an_interrupted_call_is_finished_by_the_next(bank: ExplicitBank, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"Fact {i} is about the number {i * 37}." for i in range(70)]
    put, calls = bank._store.put, []

    def fails_at_the_second_group(*args: object) -> list[str]:
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return put(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(bank._store, "put", fails_at_the_second_group)
    with pytest.raises(KeyboardInterrupt):
        bank.remember(texts, namespace="a")
    monkeypatch.undo()
    stored = bank.stats().slots
    assert 0 < stored < 70
    there = [name.split("/")[0] for file in bank.folder.rglob("*.safetensors") for name in load_file(file)]
    assert len(set(there)) == stored, "tensors of the failed group do not stay"
    assert not list(bank.folder.rglob("*.staged"))
    assert len(bank.remember(texts, namespace="a")) == 70
    assert bank.stats().slots == 70


def test_numbers_too_large_for_the_dtype_are_refused(tmp_path: Path, encoder: Encoder) -> None:
    lm = tiny.build("llama")
    with torch.no_grad():
        for layer in lm.model.model.layers:
            layer.self_attn.v_proj.weight *= 1e6
    with ExplicitBank.open(tmp_path / "half", model=lm, encoder=encoder) as bank:
        with pytest.raises(UnsupportedModelError, match="bfloat16"):
            bank.remember(PUMP, namespace="a")
        assert bank.stats().slots == 0
    config = ExplicitConfig(codec="bfloat16")
    with ExplicitBank.open(tmp_path / "brain", model=lm, encoder=encoder, config=config) as bank:
        assert bank.remember(PUMP, namespace="a")


def test_a_question_longer_than_the_context_is_refused(bank: ExplicitBank) -> None:
    bank.remember(PUMP, namespace="a")
    with pytest.raises(ContextLengthError, match="more than the 512 that llama was made for"):
        bank.ask("why? " * 200, namespace="a")


def test_more_hits_than_the_context_holds_are_refused(bank: ExplicitBank) -> None:
    bank.remember([f"{PUMP} Number {i}." for i in range(12)], namespace="a")
    hits = bank.recall("pump", 12, namespace="a")
    with pytest.raises(ContextLengthError, match=r"12 hits are .* attach fewer"), bank.attach(bank.model, hits=hits):
        pass


def test_a_bank_made_meanwhile_by_another_is_not_written_to(
    tmp_path: Path, tiny_llama: LanguageModel, encoder: Encoder
) -> None:
    late = ExplicitBank.open(tmp_path, model=tiny.build("qwen3"), encoder=encoder)
    later = ExplicitBank.open(tmp_path, model=tiny_llama, encoder=encoder, config=ExplicitConfig(codec="float32"))
    with ExplicitBank.open(tmp_path, model=tiny_llama, encoder=encoder) as bank, late, later:
        bank.remember(PUMP, namespace="a")
        with pytest.raises(FingerprintMismatch, match="qwen3"):
            late.remember(BOAT, namespace="a")
        with pytest.raises(InvalidInputError, match="leave config out"):
            later.remember(BOAT, namespace="a")
        assert bank.stats().slots == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"reference_tokens": 3}, "at least 8"),
        ({"codec": "int3"}, "float16, bfloat16, float32"),
        ({"selection": "best"}, "paper, paper_exp"),
        ({"heads": "some"}, "all, first_half"),
        ({"context": "book"}, "independent, document"),
        ({"tokens": 0}, "at least 1"),
        ({"heads_kept": "most"}, "above 0"),
        ({"bytes_per_ref": "1 MB"}, "whole number"),
        ({"instruction": " "}, "that is not empty"),
    ],
)
def test_wrong_configurations_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        ExplicitConfig(**values)  # type: ignore[arg-type]


def test_a_configuration_survives_json_and_unknown_keys_do_not() -> None:
    config = ExplicitConfig(reference_tokens=64, codec="float32")
    stored = json.loads(json.dumps(config.to_json()))
    assert ExplicitConfig.from_json(stored) == config
    for change in ({"version": 99}, {"new": 1}):
        with pytest.raises(InvalidInputError, match="upgrade trimem"):
            ExplicitConfig.from_json({**stored, **change})
