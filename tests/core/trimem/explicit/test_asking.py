"""What a model reads of a bank while it answers: as text would be read, at its place, of its tenant."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Thread
from time import sleep

import pytest
import torch

from tests import tiny
from tests.contracts.bank import BOAT, CAKE, PUMP
from trimem import (
    ContextLengthError,
    ExplicitBank,
    ExplicitConfig,
    Hit,
    LanguageModel,
    ReadConfig,
    Reading,
)
from trimem.bench.systems import ExplicitMemory, TextRag
from trimem.errors import CalibrationNotFoundError
from trimem.explicit.calibrate import calibrate
from trimem.explicit.calibration import own_calibration, save
from trimem.explicit.read import moved
from trimem.lm.attach import attach
from trimem.text.encoders import Encoder


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


def test_with_history_one_reference_reads_as_its_text_does(exact: ExplicitBank) -> None:
    exact.remember(PUMP, namespace="a")
    hits = exact.recall("pump", 1, namespace="a")
    question = exact.compiler.question("Which one?", TALK)
    before = [*exact.compiler.prefix_ids, *exact.compiler.reference(PUMP)]
    full = prompt_logits(exact.model, [*before, *question])[len(before) :]
    with exact.attach(hits=hits):
        read = prompt_logits(exact.model, question)
    torch.testing.assert_close(read, full, atol=2e-4, rtol=0)


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


def test_a_question_longer_than_the_context_is_refused(bank: ExplicitBank) -> None:
    bank.remember(PUMP, namespace="a")
    with pytest.raises(ContextLengthError, match="more than the 512 that llama was made for"):
        bank.ask("why? " * 200, namespace="a")


def test_more_hits_than_the_context_holds_are_refused(bank: ExplicitBank) -> None:
    bank.remember([f"{PUMP} Number {i}." for i in range(12)], namespace="a")
    hits = bank.recall("pump", 12, namespace="a")
    with pytest.raises(ContextLengthError, match=r"12 hits are .* attach fewer"), bank.attach(bank.model, hits=hits):
        pass
