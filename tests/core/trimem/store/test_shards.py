"""Many records a file: few files, and none with what is gone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from trimem.bench.numbered import compare, open_store, put, slot_id, tensors_of
from trimem.store import shards, upkeep
from trimem.store.integrity import verify
from trimem.store.metadata import Document, MetadataStore

A = ("a",)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MetadataStore]:
    store = open_store(tmp_path / "bank")
    yield store
    store.close()


def files(store: MetadataStore) -> int:
    return len(list(store.tensors.folder.iterdir()))


def test_slot_by_slot_makes_few_files(store: MetadataStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "FAN", 4)
    monkeypatch.setattr(shards, "SHARD_RECORDS", 16)
    slots = [slot_id(A, f"d{number}", number) for number in range(39)]
    for number in range(39):
        put(store, f"d{number}", number)
    assert files(store) == 2 + 1 + 3, "two of 16, one of 4, and three that wait for one more"
    for slot in slots:
        compare(store, slot, there=True)
    assert verify(store).ok
    report = upkeep.compact(store)
    assert (report.shards_before, report.shards_after, files(store)) == (6, 3, 3)
    assert report.bytes_after < report.bytes_before
    for slot in slots:
        compare(store, slot, there=True)
    assert verify(store).ok
    assert upkeep.compact(store).shards_after == 3, "there is nothing left to merge"


def test_what_is_forgotten_or_replaced_is_left_out_of_its_shard(store: MetadataStore) -> None:
    for number in range(16):
        put(store, f"d{number}", number)
    assert files(store) == 1
    put(store, "d3", 100)
    receipt = store.delete(A, ["d5", "d6"], None)
    assert (receipt.records, len(receipt.slots)) == (2, 2)
    data = b"".join(path.read_bytes() for path in store.tensors.folder.iterdir())
    there = [number for number in [*range(16), 100] if tensors_of(number)["key"].numpy().tobytes() in data]
    assert there == [number for number in [*range(16), 100] if number not in (3, 5, 6)]
    assert files(store) == 2
    assert verify(store).ok


def test_a_slot_that_is_gone_meanwhile_gets_no_tensors(store: MetadataStore) -> None:
    put(store, "d1", 1)
    put(store, "d2", 2)
    slots = [slot_id(A, "d1", 1), slot_id(A, "d2", 2)]
    with store.changing() as (_, change):
        change.leave(slots)
    staged = store.tensors.stage({slot: tensors_of(i + 1) for i, slot in enumerate(slots)}, {})
    store.delete(A, ["d1"], None)
    store.set_tensors([staged])
    assert list(store.places(slots)) == [slots[1]]
    compare(store, slots[1], there=True)
    again = store.tensors.stage({slots[1]: tensors_of(99)}, {})
    store.set_tensors([again])
    compare(store, slots[1], there=True)
    again.discard()
    assert verify(store).ok


def test_the_database_gives_back_what_is_free(store: MetadataStore) -> None:
    for number in range(20):
        put(store, f"d{number}", number)
    store.put(A, [(Document("long", "long " * 100_000, {}), [])])
    store.put(A, [(Document("long", "short", {}), [])])
    before = store.database_bytes()
    assert before > 500_000, "free pages stay in the file"
    assert upkeep.compact(store).bytes_before >= before
    assert store.database_bytes() < before / 2
    assert verify(store).ok


def test_forgetting_gives_back_what_it_frees(store: MetadataStore) -> None:
    store.put(A, [(Document("long", "long " * 100_000, {}), [])])
    put(store, "d1", 1)
    store.delete(A, ["d1"], None)
    before = store.database_bytes()
    put(store, "d2", 2)
    store.put(A, [(Document("long", "short", {}), [])])
    store.delete(A, ["d2"], None)
    assert store.database_bytes() < before / 2


def test_receipts_are_kept(tmp_path: Path, store: MetadataStore) -> None:
    put(store, "d1", 1, ("a", "b"))
    put(store, "d2", 2, ("ab",))
    one = store.delete(("a",), None, None)
    two = store.delete(("ab",), ["d2"], None)
    store.delete(("ab",), ["absent"], None)
    store.close()
    store = open_store(tmp_path / "bank")
    assert store.receipts(("a",)) == [one]
    assert store.receipts(("ab",)) == [two]
    assert store.receipts(("a", "b")) == []
    assert (one.slots, one.documents, one.records, one.reason) == ((slot_id(("a", "b"), "d1", 1),), 1, 1, "forgotten")
    assert one.tensor_bytes > 0
    store.close()
