"""What has expired is not there, from the very moment, for anybody who reads; then it is erased."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select
from sqlalchemy.orm import aliased

from trimem.bench.numbered import tensors_of
from trimem.store.exporting import export_bank
from trimem.store.importing import Export
from trimem.store.integrity import verify
from trimem.store.items import ItemRows, NewItem
from trimem.store.metadata import Document, MetadataStore, NewSlot
from trimem.store.schema import DocumentRow, SlotRow
from trimem.store.search import HybridSearch

START = datetime(2026, 5, 6, tzinfo=UTC)
DAY = timedelta(days=1)
DIM = 8


class Clock:
    now = START

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[MetadataStore]:
    store = MetadataStore(tmp_path / "bank.sqlite", clock)
    made_by = {"mechanism": "explicit", "model_name": "m", "model_fingerprint": "m", "encoder_fingerprint": "e"}
    store.create_bank(**made_by, config={"version": 1})
    yield store
    store.close()


def put(store: MetadataStore, key: str, expires_at: datetime | None = None, trust: float = 1.0, path: str = "a") -> str:
    """Store a document of two slots with tensors, and return the id of the first."""
    texts = [f"secret{key}x pump", f"other{key}x boat"]
    slots = []
    for i, text in enumerate(texts):
        vector = np.zeros(DIM, np.float32)
        vector[int(key[1:]) % DIM] = 1.0
        slots.append(NewSlot(f"{path}{key}-{i}", text, 20 * i, 20 * i + len(text), 1, 2, vector))
    staged = store.tensors.stage({slot.slot_id: tensors_of(i) for i, slot in enumerate(slots)}, {})
    text = f"{texts[0]:<20}{texts[1]}"
    store.put((path,), [(Document(key, text, {"key": key}, expires_at, "web", trust), slots)], [staged])
    return slots[0].slot_id


def found(search: HybridSearch, query: str, key: str, k: int = 99, min_trust: float = 0.0) -> list[str]:
    vector = np.zeros(DIM, np.float32)
    vector[int(key[1:]) % DIM] = 1.0
    hits = search(query, vector, k, ("a",), None, min_trust)
    assert {hit.slot.metadata["key"] for hit in search(query, vector, 99, ("a",), {"key": key}, min_trust)} <= {key}
    return [hit.id for hit in hits]


def seen(store: MetadataStore, search: HybridSearch, key: str, slot: str) -> list[bool]:
    """Return what each way to read says of whether a document is there."""
    stats = store.stats(("a",))
    with store.session() as session:
        other = aliased(SlotRow)
        rows = session.scalars(select(SlotRow.slot_id)).all()
        joined = session.scalars(select(DocumentRow.key).join(other, other.document_id == DocumentRow.id)).all()
        loaded = {row.key: len(row.slots) for row in session.scalars(select(DocumentRow))}
    assert stats.slots == 2 * stats.documents == len(rows) == stats.compiled == sum(stats.namespaces.values())
    return [
        slot in found(search, "secret pump", key),
        slot in found(search, f"secret{key}x", key, 1),
        slot in [one.id for one in store.slots([slot])],
        slot in store.ids(("a",), None),
        key in store.documents(("a",), [key]),
        key in store.documents_under(("a",), "d"),
        key in store.keys(("a",), [key]),
        key in store.keys(("a",), [slot]),
        bool(store.whole([slot])),
        slot in store.places([slot]),
        store.read(slot) is not None,
        slot in rows,
        key in joined,
        key in loaded,
    ]


def test_what_has_expired_is_not_there_from_the_very_moment(store: MetadataStore, clock: Clock) -> None:
    slot = put(store, "d1", START + DAY)
    kept = put(store, "d2")
    search = HybridSearch(store.reader)
    for now, there in ((START + DAY - timedelta(microseconds=1), True), (START + DAY, False), (START + 9 * DAY, False)):
        clock.now = now
        assert set(seen(store, search, "d1", slot)) == {there}
        assert all(seen(store, search, "d2", kept))
        assert set(seen(store, HybridSearch(store.reader), "d1", slot)) == {there}, "a search that begins now"
    assert verify(store).ok
    assert verify(store).documents == 2, "what is not erased yet is looked at"


def test_what_has_expired_takes_no_place_among_the_best(store: MetadataStore, clock: Clock) -> None:
    """Filters run before the choice of the best, and so does time."""
    for i in range(0, 8 * 60, 8):
        put(store, f"d{i}", START + DAY)
    kept = put(store, "d9")
    search = HybridSearch(store.reader)
    assert kept not in found(search, "nothing in common", "d0", 40)
    clock.now = START + DAY
    assert kept in found(search, "nothing in common", "d0", 1)


def test_what_has_expired_is_erased_with_a_receipt_a_namespace(store: MetadataStore, clock: Clock) -> None:
    put(store, "d1", START + DAY)
    put(store, "d1", START + DAY, path="b")
    put(store, "d2", START + 2 * DAY)
    put(store, "d3")
    assert store.erase_expired() == []
    clock.now = START + DAY
    receipts = store.erase_expired()
    assert [(receipt.namespace, receipt.slots, receipt.documents) for receipt in receipts] == [
        (("a",), ("ad1-0", "ad1-1"), 1),
        (("b",), ("bd1-0", "bd1-1"), 1),
    ]
    assert {(receipt.reason, receipt.records, receipt.erased_at) for receipt in receipts} == {("expired", 2, clock.now)}
    assert store.receipts(("b",)) == receipts[1:]
    assert store.erase_expired() == [], "once"
    files = b"".join(file.read_bytes() for file in store.path.parent.rglob("*") if file.is_file())
    assert (files.count(b"secretd1x"), files.count(b"secretd2x") > 0) == (0, True)
    assert tensors_of(1)["key"].numpy().tobytes()[:64] in files, "that of those that stay"
    assert verify(store).ok


def test_a_clock_that_is_set_back_brings_nothing_back(store: MetadataStore, clock: Clock) -> None:
    slot, later = put(store, "d1", START + DAY), put(store, "d2", START + 3 * DAY)
    search = HybridSearch(store.reader)
    clock.now = START + 2 * DAY
    assert not any(seen(store, search, "d1", slot))
    clock.now = START - 9 * DAY
    assert not any(seen(store, search, "d1", slot))
    assert all(seen(store, search, "d2", later))
    put(store, "d3", store.now() + DAY)
    assert store.slots(["ad3-0"])[0].expires_at == START + 3 * DAY
    assert [receipt.slots for receipt in store.erase_expired()] == [("ad1-0", "ad1-1")]
    assert all(seen(store, search, "d3", "ad3-0"))


def test_another_process_that_opens_with_its_clock_behind_cannot_bring_back_what_is_erased(
    store: MetadataStore, clock: Clock
) -> None:
    slot = put(store, "d1", START + DAY)
    clock.now = START + DAY
    store.erase_expired()
    other = MetadataStore(store.path, lambda: START - DAY)
    try:
        assert not any(seen(other, HybridSearch(other.reader), "d1", slot))
    finally:
        other.close()


def test_terms_are_changed_and_the_row_stays_whole(store: MetadataStore, clock: Clock) -> None:
    slot = put(store, "d1", START + DAY)
    put(store, "d2", START + DAY)
    clock.now = START + DAY / 2
    assert store.update(("a",), ["d1", "none"], {}, {"expires_at": clock.now + DAY, "trust": 0.5}) == ["d1"]
    clock.now = START + DAY
    assert store.update(("a",), ["d1", "d2"], {}, {"expires_at": None}) == ["d1"], "what has expired stays so"
    clock.now = START + 99 * DAY
    (held,) = store.slots([slot])
    assert (held.expires_at, held.trust, held.provenance) == (None, 0.5, "web")
    assert verify(store).ok


def test_a_new_text_takes_the_place_of_an_expired_one(store: MetadataStore, clock: Clock) -> None:
    put(store, "d1", START + DAY)
    clock.now = START + DAY
    slot = put(store, "d1")
    assert all(seen(store, HybridSearch(store.reader), "d1", slot))
    assert store.erase_expired() == []


def test_trust_is_a_filter_before_the_choice_of_the_best(store: MetadataStore) -> None:
    for i in range(0, 8 * 60, 8):
        put(store, f"d{i}", trust=0.2)
    trusted = put(store, "d9", trust=0.7)
    search = HybridSearch(store.reader)
    for query in ("secret pump", "nothing in common"):
        assert trusted not in found(search, query, "d0", 40, 0.2)
        assert found(search, query, "d0", 2, 0.7) == [trusted, trusted.replace("-0", "-1")]
        assert found(search, query, "d0", 2, 0.71) == []


def put_item(store: MetadataStore, key: str, ttl: timedelta) -> None:
    """Store an item that is found by its key alone."""
    ItemRows(store).write([NewItem(("a",), Document(key, "", {"key": key}), [], ttl)], [])


def test_items_that_say_nothing_expire_for_everybody_who_reads(store: MetadataStore, clock: Clock) -> None:
    put_item(store, "i1", DAY)
    put_item(store, "i2", 2 * DAY)
    assert [one.key for one in store.texts(("a",), ["i1", "i2"])] == ["i1", "i2"]
    clock.now = START + DAY
    assert [one.key for one in store.texts(("a",), ["i1", "i2"])] == ["i2"]
    assert (store.stats(None).documents, store.documents(("a",), ["i1"])) == (1, {})
    export_bank(store, store.path.parent / "export.zip", None)
    with Export(store.path.parent / "export.zip") as export:
        assert [row.key for row, *_ in export.group(1, 0).documents] == ["i2"]
    assert verify(store).documents == 2, "until it is erased"


def test_a_new_time_is_that_of_the_item_too(store: MetadataStore, clock: Clock) -> None:
    vector = np.ones(DIM, np.float32) / DIM**0.5
    slot = NewSlot("i1-0", "pump", 0, 4, 1, 1, vector)
    ItemRows(store).write([NewItem(("a",), Document("i1", "pump", {"n": 1}), [slot], DAY)], [])
    assert store.update(("a",), ["i1"], {}, {"expires_at": START + 3 * DAY}) == ["i1"]
    clock.now = START + 2 * DAY
    assert [item.expires_at for item in ItemRows(store).newest(("a",), None, 9, 0)] == [START + 3 * DAY]
    clock.now = START + 3 * DAY
    assert ItemRows(store).newest(("a",), None, 9, 0) == []
    assert [receipt.documents for receipt in store.erase_expired()] == [1]
    assert verify(store).ok
