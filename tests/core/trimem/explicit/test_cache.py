"""Records held in memory: never more than the limit, never another record than the disk's."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.contracts.bank import BOAT, CAKE, PUMP
from trimem import DiskError, ExplicitBank, InvalidInputError, LanguageModel, ReadConfig
from trimem.explicit.cache import RecordCache
from trimem.explicit.record import Record
from trimem.text.encoders import Encoder


def record(tokens: int) -> Record:
    counts = torch.tensor([[tokens]])
    return Record(torch.zeros(tokens, 4), torch.zeros(tokens, 4), torch.arange(tokens), counts, tokens)


SIZE = record(10).nbytes

steps = st.lists(
    st.tuples(st.sampled_from("gpd"), st.sampled_from("abcde"), st.sampled_from([None, 3, 10])), max_size=60
)


@given(steps)
def test_it_holds_what_was_used_last(taken: list[tuple[str, str, int | None]]) -> None:
    """Against a list kept by hand: room for two whole records, the least recently used goes first."""
    cache = RecordCache(2 * SIZE)
    model: OrderedDict[str, int | None] = OrderedDict()
    for step, slot, most in taken:
        if step == "g":
            known = slot in model and (model[slot] is None or (most is not None and most <= (model[slot] or 0)))
            got = cache.get(slot, most)
            assert (got is not None) is known
            if got is not None:
                model.move_to_end(slot)
                assert got.counts.item() == (10 if most is None else min(most, 10))
        elif step == "p":
            cache.put(slot, most, record(10).first(10 if most is None else most))
            model.pop(slot, None)
            model[slot] = most
            while sum(record(10 if k is None else k).nbytes for k in model.values()) > 2 * SIZE:
                model.popitem(last=False)
        else:
            cache.drop([slot])
            model.pop(slot, None)
        stats = cache.stats()
        assert stats.records == len(model)
        assert stats.bytes == sum(record(10 if k is None else k).nbytes for k in model.values()) <= stats.limit


def test_what_is_larger_than_all_is_not_held() -> None:
    cache = RecordCache(SIZE - 1)
    cache.put("a", None, record(10))
    assert cache.stats().records == 0
    with pytest.raises(InvalidInputError, match="at least 0"):
        RecordCache(-1)


def test_a_bank_larger_than_its_cache_reads_the_same(
    tmp_path: Path, tiny_llama: LanguageModel, encoder: Encoder
) -> None:
    said = []
    for limit in (1 << 30, 0):
        with ExplicitBank.open(tmp_path / "bank", model=tiny_llama, encoder=encoder, cache_bytes=limit) as bank:
            bank.remember([PUMP, BOAT, CAKE], namespace="a")
            said.append([bank.ask(q, namespace="a", k=2, max_new_tokens=6).text for q in ("pump?", "boat?", "pump?")])
            stats = bank.stats().cache
            assert stats is not None
            assert stats.bytes <= limit
            assert (stats.hits > 0) is (limit > 0)
    assert said[0] == said[1]


def test_what_was_fetched_before_is_not_read_again(bank: ExplicitBank) -> None:
    bank.remember([PUMP, BOAT, CAKE], namespace="a", compile=False)
    assert bank.prefetch("pump", namespace="a", k=2).result() == 2
    held = bank.stats().cache
    assert bank.stats().compiled == 2
    assert held is not None
    answer = bank.ask("pump", namespace="a", k=2, max_new_tokens=1)
    after = bank.stats().cache
    assert after is not None
    assert len(answer.hits) == 2
    assert (after.hits - held.hits, after.misses - held.misses) == (2, 0)
    bank.close()
    assert bank.prefetch("pump", namespace="a", k=1).result() == 1, "a closed bank opens again when it is used"
    with pytest.raises(InvalidInputError, match="number of hits"):
        bank.prefetch("pump", namespace="a", k=0).result()


def test_text_serves_until_it_is_compiled(bank: ExplicitBank) -> None:
    """What is not compiled is read as text: the same words in the same order, so the same answer."""
    bank.remember([PUMP, BOAT, CAKE], namespace="a", compile=False)
    ask = partial(bank.ask, "the pump and the boat", namespace="a", k=2, max_new_tokens=8)
    first = ask(cold="text")
    assert (first.memory_tokens, first.citations) == (bank.compiler.prefix.tokens, ())
    assert [hit.attention for hit in first.hits] == [None, None]
    bank.prefetch("pump", namespace="a", k=1).result()  # comes after the compilation that the answer began
    assert bank.stats().compiled == 2
    second = ask(cold="text")
    assert second.prompt_tokens == first.prompt_tokens - sum(hit.slot.tokens for hit in first.hits)
    assert all(hit.attention for hit in second.hits)
    assert [hit.id for hit in second.hits] == [hit.id for hit in first.hits]
    mixed = bank.ask("the cake, the pump", namespace="a", k=3, max_new_tokens=8, cold="text", stream=True).answer
    assert {hit.text: hit.attention is None for hit in mixed.hits} == {PUMP: False, BOAT: False, CAKE: True}
    assert {citation.hit.text for citation in mixed.citations} == {PUMP, BOAT}
    with pytest.raises(InvalidInputError, match="cold must"):
        ask(cold="lukewarm")


def test_what_goes_wrong_in_the_background_is_logged(
    bank: ExplicitBank, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bank.remember(PUMP, namespace="a", compile=False)

    def full(*_: object, **__: object) -> None:
        raise DiskError("no room")

    monkeypatch.setattr(bank._records, "compile", full)
    bank.ask("pump?", namespace="a", k=1, max_new_tokens=1, cold="text")
    bank._background.submit(lambda: None).result()
    assert "no room" in caplog.text
    assert PUMP not in caplog.text


def test_an_exchange_leaves_out_what_is_read_as_text(bank: ExplicitBank) -> None:
    bank.remember(PUMP, namespace="a", compile=False)
    read = ReadConfig(exchange=100)
    answer = bank.ask("pump?", namespace="a", k=1, max_new_tokens=101, min_new_tokens=101, cold="text", read=read)
    assert [hit.attention for hit in answer.hits] == [None], "read once, as text"


def test_one_text_reads_as_its_memory(bank: ExplicitBank) -> None:
    """With one reference, text and memory are the same computation, so the same is said."""
    bank.remember(PUMP, namespace="a", compile=False)
    ask = partial(bank.ask, "which colour has the pump?", namespace="a", k=1, max_new_tokens=8, min_new_tokens=8)
    assert ask(cold="text").text == ask(cold="compile").text


def test_a_device_keeps_what_it_read(bank: ExplicitBank, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's device without storage stands for one of its own: what comes from it was not read again."""
    bank.remember([PUMP, BOAT], namespace="a")
    ids = [hit.id for hit in bank.recall("pump", 2, namespace="a")]
    compiler, records = bank.compiler, bank._records
    on_cpu = records.read(compiler, ids, [None, 2])
    monkeypatch.setattr(type(compiler.lm), "device", torch.device("meta"))
    for _ in range(2):
        read = records.read(compiler, ids, [None, 2])
        assert [record.key.shape for record in read] == [record.key.shape for record in on_cpu]
        assert all(record.key.device.type == "meta" for record in read)
    stats = bank.stats()
    assert stats.cache is not None
    assert stats.device_cache is not None
    assert (stats.cache.hits, stats.cache.misses) == (2, 2)
    assert (stats.device_cache.hits, stats.device_cache.misses, stats.device_cache.records) == (2, 2, 2)
    assert stats.device_cache.bytes == stats.cache.bytes
    bank.forget(namespace="a")
    left = bank.stats().device_cache
    assert left is not None
    assert left.records == 0


def test_what_was_forgotten_is_not_held(bank: ExplicitBank) -> None:
    bank.remember([PUMP, BOAT], namespace="a")
    bank.ask("pump?", namespace="a", k=2, max_new_tokens=1)
    held = bank.stats().cache
    assert held is not None
    assert held.records == 2
    bank.forget(namespace="a")
    left = bank.stats().cache
    assert left is not None
    assert (left.records, left.bytes) == (0, 0)
