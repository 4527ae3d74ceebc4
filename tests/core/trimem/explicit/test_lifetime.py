"""What a bank of explicit memory holds by: uses counted, room made, caches let go."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from tests.contracts.bank import BOAT, CAKE, PUMP
from trimem import Capacity, ExplicitBank, InvalidInputError, LanguageModel
from trimem.banks.twins import LONGEST
from trimem.store.schema import SlotRow
from trimem.text.encoders import Encoder


class Clock:
    now = datetime(2026, 5, 6, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now


@pytest.fixture
def full(tmp_path: Path, tiny_llama: LanguageModel, encoder: Encoder) -> Iterator[ExplicitBank]:
    """A bank of two slots."""
    capacity = Capacity(slots=2, policy="lru")
    with ExplicitBank.open(
        tmp_path / "full", model=tiny_llama, encoder=encoder, capacity=capacity, clock=Clock()
    ) as bank:
        yield bank


def uses(bank: ExplicitBank) -> dict[str, int]:
    with bank._store.session() as session:
        return {text: reads for text, reads in session.execute(select(SlotRow.text, SlotRow.reads))}  # noqa: C416


def test_a_full_bank_keeps_what_is_asked_for(full: ExplicitBank) -> None:
    pump, boat = full.remember([PUMP, BOAT], namespace="a")
    answer = full.ask("the blue pump", namespace="a", k=1, max_new_tokens=1)
    assert [hit.id for hit in answer.hits] == [pump]
    assert full._records._memory._held
    full.remember(CAKE, namespace="a")
    assert {hit.text for hit in full.recall("pump boat cake", 9, namespace="a")} == {PUMP, CAKE}
    (receipt,) = full.receipts(namespace="a")
    assert (receipt.slots, receipt.reason, receipt.records) == ((boat,), "evicted", 1)
    full.recall("the almond cake", 1, namespace="a")
    full.recall("the almond cake", 1, namespace="a")
    full.remember(BOAT, namespace="a")
    assert set(uses(full)) == {CAKE, BOAT}
    assert pump not in full._records._memory._held, "what made room is held no longer"
    with pytest.raises(InvalidInputError, match="does not hold"), full.attach(hits=answer.hits):
        pass
    assert full.stats().slots == 2
    assert full.verify().ok


def test_a_call_may_give_more_than_there_is_room_for(full: ExplicitBank) -> None:
    texts = [f"{PUMP} Number {i}." for i in range(7)]
    ids = full.remember(texts, namespace="a")
    assert len(ids) == 7
    assert {hit.text for hit in full.recall("pump", 9, namespace="a")} == set(texts[-2:])


def test_uses_outlive_the_process_that_closes(tmp_path: Path, tiny_llama: LanguageModel, encoder: Encoder) -> None:
    with ExplicitBank.open(tmp_path / "bank", model=tiny_llama, encoder=encoder) as bank:
        bank.remember([PUMP, BOAT], namespace="a")
        bank.recall("the blue pump", 1, namespace="a")
        bank.ask("the blue pump", namespace="a", k=1, max_new_tokens=1)
        assert uses(bank) == {PUMP: 0, BOAT: 0}, "nobody who reads waits for them to be written"
    with ExplicitBank.open(tmp_path / "bank", model=tiny_llama, encoder=encoder) as bank:
        assert uses(bank) == {PUMP: 2, BOAT: 0}
    with ExplicitBank.open(
        tmp_path / "bank", model=tiny_llama, encoder=encoder, capacity=Capacity(slots=1, policy="lfu")
    ) as bank:
        assert [receipt.reason for receipt in bank.evict().receipts] == ["evicted"]
        assert set(uses(bank)) == {PUMP}
        assert bank.evict().receipts == ()


def test_tensors_that_are_made_later_make_room_too(tmp_path: Path, tiny_llama: LanguageModel, encoder: Encoder) -> None:
    with ExplicitBank.open(tmp_path / "bank", model=tiny_llama, encoder=encoder) as bank:
        bank.remember(PUMP, namespace="a")
        size = bank.stats().tensor_bytes
        bank.remember(BOAT, namespace="a", compile=False)
    capacity = Capacity(tensor_bytes=size * 3 // 2, policy="lru")
    with ExplicitBank.open(tmp_path / "bank", model=tiny_llama, encoder=encoder, capacity=capacity) as bank:
        bank.ask("the grey boat", namespace="a", k=1, max_new_tokens=1)
        assert set(uses(bank)) == {BOAT}


def test_long_texts_and_texts_of_other_lengths_are_no_near_duplicates(full: ExplicitBank) -> None:
    encoder = full._encoder
    long = " ".join([PUMP] * 30)
    assert len(long) > LONGEST
    (short,) = full.remember(PUMP, namespace="a")
    assert full.remember(f"{PUMP} {PUMP}", namespace="a", near_duplicates=0.001) != [short]
    with ExplicitBank.open(full.folder.parent / "large", model=full.model, encoder=encoder) as bank:
        first = bank.remember(long, namespace="a", ids="one")
        assert bank.remember(long, namespace="a", ids="two", near_duplicates=0.5) != first
        assert bank.stats().documents == 2
