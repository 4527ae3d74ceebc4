"""A bank that is full makes room: exactly what its policy says goes, and nothing that was just written."""

from __future__ import annotations

import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from tests.core.trimem.store.test_metadata import document
from trimem import Capacity, InvalidInputError
from trimem.bench.numbered import tensors_of
from trimem.store import exporting, uses
from trimem.store.exporting import export_bank
from trimem.store.importing import Export, import_bank
from trimem.store.integrity import verify
from trimem.store.items import ItemRows, NewItem
from trimem.store.metadata import MetadataStore
from trimem.store.schema import SlotRow
from trimem.store.uses import Uses

START = datetime(2026, 5, 6, tzinfo=UTC)


class Clock:
    """Goes on by a second whenever it is asked, unless it is set."""

    now = START

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def opened(folder: Path, clock: Callable[[], datetime]) -> MetadataStore:
    store = MetadataStore(folder / "bank.sqlite", clock)
    made_by = {"mechanism": "explicit", "model_name": "m", "model_fingerprint": "m", "encoder_fingerprint": "e"}
    store.create_bank(**made_by, config={"version": 1})
    return store


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[MetadataStore]:
    store = opened(tmp_path, clock)
    yield store
    store.close()


def put(
    store: MetadataStore,
    key: str,
    slots: int = 1,
    path: str = "a",
    tensors: bool = False,
    capacity: Capacity | None = None,
) -> list[str]:
    """Store a document, and return what is gone."""
    told = document(f"{path}{key}", *(f"secret{key}x{i}" for i in range(slots)))
    records = {slot.slot_id: tensors_of(i) for i, slot in enumerate(told[1])}
    staged = [store.tensors.stage(records, {})] if tensors else []
    try:
        return store.put((path,), [told], staged, capacity)
    finally:
        for shard in staged:
            shard.discard()


def read(store: MetadataStore, *keys: str, path: str = "a") -> None:
    counts = Uses(store, lambda: 4.0)
    counts.note(f"{path}{key}-0" for key in keys)
    assert counts.write()


def held(store: MetadataStore, path: str = "a") -> list[str]:
    return [slot.removeprefix(path).removesuffix("-0") for slot in store.ids((path,), None) if slot.endswith("-0")]


def test_what_was_used_least_lately_goes_first(store: MetadataStore) -> None:
    lru = Capacity(slots=3, policy="lru")
    for key in "123":
        assert put(store, key, capacity=lru) == []
    read(store, "1")
    assert put(store, "4", capacity=lru) == ["a2-0"]
    assert held(store) == ["1", "3", "4"]
    read(store, "3", "1")
    assert put(store, "5", capacity=lru) == ["a4-0"]
    assert put(store, "6", capacity=lru) == ["a1-0"], "of two that were read at once, the older row"
    assert put(store, "7", slots=2, capacity=lru) == ["a3-0", "a5-0"]
    assert held(store) == ["6", "7"]
    receipts = store.receipts(("a",))
    assert [receipt.slots for receipt in receipts] == [("a2-0",), ("a4-0",), ("a1-0",), ("a3-0", "a5-0")]
    assert {receipt.reason for receipt in receipts} == {"evicted"}
    files = b"".join(file.read_bytes() for file in store.path.parent.rglob("*") if file.is_file())
    assert (files.count(b"secret2x"), files.count(b"secret6x") > 0) == (0, True)
    assert verify(store).ok


def test_what_was_used_least_goes_first_and_old_uses_count_less(store: MetadataStore) -> None:
    aged, plain = Capacity(slots=3, policy="lfu_aged", half_life=4.0), Capacity(slots=3, policy="lfu")
    for key in "123":
        put(store, key, capacity=aged)
    for _ in range(3):
        read(store, "1")
    read(store, "2")
    assert put(store, "4", capacity=aged) == ["a3-0"]
    read(store, "4")
    assert put(store, "5", capacity=plain) == ["a2-0"], "of two that were read once, the older"
    assert held(store) == ["1", "4", "5"]
    for number in range(6, 11):
        put(store, str(number), capacity=aged)
    assert held(store) == ["1", "9", "10"], "what was read once counts less by now than what is new"
    for number in range(11, 17):
        put(store, str(number), capacity=aged)
    assert held(store) == ["14", "15", "16"], "and three uses are forgotten in the end"


def test_another_half_life_forgets_no_use(store: MetadataStore) -> None:
    for key in "123":
        put(store, key)
    read(store, "1")
    assert put(store, "4", capacity=Capacity(slots=3, policy="lfu_aged", half_life=4.0)) == ["a2-0"]


def test_a_document_is_used_when_one_of_its_slots_is_and_goes_whole(store: MetadataStore) -> None:
    lru = Capacity(slots=4, policy="lru")
    put(store, "1", slots=2, capacity=lru)
    put(store, "2", slots=2, capacity=lru)
    read(store, "1")
    assert put(store, "3", capacity=lru) == ["a2-0", "a2-1"]
    assert store.receipts(("a",))[0].documents == 1


def test_tensors_are_counted_in_bytes(store: MetadataStore) -> None:
    put(store, "1", tensors=True)
    size = store.stats(None).tensor_bytes
    most = Capacity(tensor_bytes=size * 5 // 2, policy="lru")
    assert put(store, "2", tensors=True, capacity=most) == []
    assert put(store, "3", tensors=True, capacity=most) == ["a1-0"]
    assert put(store, "4", capacity=most) == [], "it has none"
    store.set_tensors([store.tensors.stage({"a4-0": tensors_of(4)}, {})])
    assert [receipt.slots for receipt in store.erase_excess(most)] == [("a2-0",)]
    assert held(store) == ["3", "4"]
    assert store.stats(None).tensor_bytes == 2 * size
    assert verify(store).ok


def test_each_tenant_may_have_a_capacity_of_its_own(store: MetadataStore) -> None:
    def each(slots: int) -> Capacity:
        return Capacity(slots=slots, policy="lru", per="tenant")

    for key in "12":
        put(store, key, path="a", capacity=each(2))
        put(store, key, path="b", capacity=each(2))
    assert put(store, "3", path="b", capacity=each(2)) == ["b1-0"]
    assert (held(store, "a"), held(store, "b")) == (["1", "2"], ["2", "3"])
    assert [receipt.slots for receipt in store.receipts(("b",))] == [("b1-0",)]
    assert store.receipts(("a",)) == []
    assert [receipt.slots for receipt in store.erase_excess(each(1))] == [("a1-0",), ("b2-0",)]
    assert store.erase_excess(each(1)) == []
    assert [receipt.slots for receipt in store.erase_excess(Capacity(slots=1, policy="lru"))] == [("a2-0",)]


def test_a_text_that_is_more_than_all_is_refused(store: MetadataStore) -> None:
    put(store, "1")
    with pytest.raises(InvalidInputError, match="one text of 3 slots"):
        put(store, "2", slots=3, capacity=Capacity(slots=2))
    assert held(store) == ["1"]
    assert store.receipts(("a",)) == []
    with pytest.raises(InvalidInputError, match="bytes of tensors"):
        put(store, "2", tensors=True, capacity=Capacity(tensor_bytes=10))
    assert held(store) == ["1"]
    assert store.strays() == [], "nothing of it is left"
    assert not list(store.tensors.folder.iterdir())
    assert verify(store).ok


def test_what_fails_after_its_tensors_are_published_leaves_no_file(store: MetadataStore) -> None:
    put(store, "1", tensors=True)

    def fail() -> None:
        with store.changing() as (_, change):
            change.leave(["a1-0"])
            change.share(store.tensors.stage({"a2-0": tensors_of(2)}, {}))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert store.strays() == []
    assert store.read("a1-0"), "what was there is there"
    assert verify(store).ok


# Items and imports


def put_item(store: MetadataStore, key: str, slots: int = 1) -> None:
    told, cut = document(f"a{key}", *(f"item{key}x{i}" for i in range(slots)))
    ItemRows(store).write([NewItem(("a",), told, cut, None)], [])


def test_items_neither_count_nor_make_room(store: MetadataStore) -> None:
    most = Capacity(slots=2, policy="lru")
    put_item(store, "bare", slots=0)
    for key in "xyz":
        put_item(store, key)
    for key in "12":
        assert put(store, key, capacity=most) == [], "items are no texts"
    assert put(store, "3", capacity=most) == ["a1-0"]
    assert store.erase_excess(Capacity(slots=1, policy="lru"))[0].slots == ("a2-0",)
    assert held(store) == ["x", "y", "z", "3"], "and what was put under a key stays until somebody takes it away"
    assert len(ItemRows(store).newest(("a",), None, 9, 0)) == 4
    put(store, "x", slots=1, capacity=most)
    assert put(store, "4", capacity=most) == ["a3-0"], "what is remembered under an item's key is a text"


def test_tensors_of_items_do_not_count(store: MetadataStore) -> None:
    put(store, "1", tensors=True)
    size = store.stats(None).tensor_bytes
    put_item(store, "x")
    store.set_tensors([store.tensors.stage({"ax-0": tensors_of(4)}, {})])
    for per in ("bank", "tenant"):
        most = Capacity(tensor_bytes=size * 5 // 2, policy="lru", per=per)
        assert store.erase_excess(most) == []
    assert put(store, "2", tensors=True, capacity=most) == []
    assert put(store, "3", tensors=True, capacity=most) == ["a1-0"]


def import_into(store: MetadataStore, file: Path, capacity: Capacity | None) -> list[str]:
    with Export(file) as export:
        return import_bank(store, export, progress=False, capacity=capacity)[1]


def test_an_import_makes_room_at_once(store: MetadataStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "GROUP_SLOTS", 2)
    for key in "123":
        put(store, key, tensors=True)
    put_item(store, "x")
    export_bank(store, tmp_path / "three.zip", None)
    (tmp_path / "other").mkdir()
    other = opened(tmp_path / "other", Clock())
    try:
        most = Capacity(slots=3, policy="lru")
        for key in "45":
            put(other, key, tensors=True, capacity=most)
        gone = import_into(other, tmp_path / "three.zip", most)
        assert gone == ["a4-0", "a5-0"]
        assert sorted(held(other)) == ["1", "2", "3", "x"]
        receipts = other.receipts(("a",))
        assert [(one.reason, one.slots) for one in receipts] == [("evicted", ("a4-0",)), ("evicted", ("a5-0",))]
        files = b"".join(file.read_bytes() for file in other.path.parent.rglob("*") if file.is_file())
        assert (files.count(b"secret4x"), files.count(b"secret1x") > 0) == (0, True)
        smaller = Capacity(slots=1, policy="lru")
        assert import_into(other, tmp_path / "three.zip", smaller) == [], "which stores nothing new"
        other.delete(("a",), ["a1"], None)
        import_into(other, tmp_path / "three.zip", smaller)
        assert sorted(held(other)) == ["3", "x"], "the last that came in"
        assert verify(other).ok
    finally:
        other.close()


@pytest.mark.parametrize("older", [0, 40])
def test_what_was_used_elsewhere_counts_as_long_ago_as_it_was(store: MetadataStore, tmp_path: Path, older: int) -> None:
    aged = Capacity(slots=10, policy="lfu_aged", half_life=4.0)
    for number in range(older):  # so that the banks number their rows differently
        put(store, f"x{number}", capacity=aged)
    for key in "12345678":
        put(store, key, capacity=aged)
        if key == "2":
            read(store, "1", "1")  # twice, before six more
        if key == "8":
            read(store, "3")
    store.delete(("a",), [f"ax{number}" for number in range(older)], None)
    export_bank(store, tmp_path / "eight.zip", None)
    (tmp_path / "other").mkdir()
    other = opened(tmp_path / "other", Clock())
    try:
        for key in "abcde":
            put(other, key, capacity=aged)
        read(other, "a", "b")
        import_into(other, tmp_path / "eight.zip", aged)
        assert set(held(other)) == {"a", "b", *"12345678"}, "of those that nobody read, the oldest go"
        few = replace(aged, slots=4)
        other.erase_excess(few)
        assert held(other) == ["1", "3", "7", "8"]
        for key in "fgh":
            put(other, key, capacity=few)
        assert held(other) == ["3", "f", "g", "h"], "two uses that are old count less than what is new"
        for key in "ijk":
            assert "3" in held(other)
            put(other, key, capacity=few)
        assert held(other) == ["h", "i", "j", "k"], "and so does one that was later"
    finally:
        other.close()


def test_an_import_makes_room_in_each_tenant(store: MetadataStore, tmp_path: Path) -> None:
    for path in "ab":
        for key in "123":
            put(store, key, path=path)
    export_bank(store, tmp_path / "both.zip", None)
    (tmp_path / "other").mkdir()
    other = opened(tmp_path / "other", Clock())
    try:
        import_into(other, tmp_path / "both.zip", Capacity(slots=2, policy="lru", per="tenant"))
        assert (held(other, "a"), held(other, "b")) == (["2", "3"], ["2", "3"])
        assert [one.slots for path in "ab" for one in other.receipts((path,))] == [("a1-0",), ("b1-0",)]
    finally:
        other.close()


def test_a_text_that_is_more_than_all_is_not_imported(store: MetadataStore, tmp_path: Path) -> None:
    put(store, "1", slots=3, tensors=True)
    export_bank(store, tmp_path / "long.zip", None)
    (tmp_path / "other").mkdir()
    other = opened(tmp_path / "other", Clock())
    try:
        with pytest.raises(InvalidInputError, match="one text of 3 slots"):
            import_into(other, tmp_path / "long.zip", Capacity(slots=2))
        assert (held(other), other.strays()) == ([], [])
    finally:
        other.close()


def test_room_for_several_may_be_made_at_once(store: MetadataStore) -> None:
    most = Capacity(slots=8, policy="lru", spare=2)
    for key in range(8):
        put(store, str(key), capacity=most)
    assert put(store, "8", capacity=most) == ["a0-0", "a1-0", "a2-0"]
    assert put(store, "9", capacity=most) == put(store, "10", capacity=most) == []
    both = [document("anew", "one"), document("anewer", "two")]
    assert store.put(("a",), both, capacity=Capacity(slots=2, spare=9)) == [f"a{key}-0" for key in range(3, 11)]
    assert store.ids(("a",), None) == ["anew-0", "anewer-0"], (
        "there is room to spare, but not at the cost of what is new"
    )


@pytest.mark.parametrize(
    "wrong",
    [{}, {"slots": 0}, {"slots": True}, {"tensor_bytes": -1}, {"slots": 1, "policy": "x"}, {"slots": 1, "spare": -1}],
)
def test_what_is_no_capacity_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=r"a capacity is|policy must be|at least"):
        Capacity(**wrong)


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 9), st.integers(1, 3)), st.tuples(st.just("read"), st.integers(0, 9))
    ),
    max_size=25,
)


@settings(max_examples=12, deadline=None)
@given(OPERATIONS, st.integers(3, 7))
def test_the_capacity_is_never_exceeded_and_the_least_lately_used_goes(
    operations: list[tuple[str, int, *tuple[int, ...]]], most: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = opened(Path(folder), Clock())
        capacity = Capacity(slots=most, policy="lru")
        model: dict[str, int] = {}  # slots by key, the least lately used first
        try:
            for operation, number, *slots in operations:
                key = str(number)
                if operation == "put":
                    model.pop(key, None)
                    model[key] = slots[0]
                    while sum(model.values()) > most:
                        del model[next(iter(model))]
                    put(store, key, slots[0], capacity=capacity)
                elif key in model:
                    model[key] = model.pop(key)
                    read(store, key)
                assert sorted(held(store)) == sorted(model)
                assert len(store.ids(("a",), None)) == sum(model.values()) <= most
        finally:
            store.close()


# Counting reads


def counted(store: MetadataStore) -> dict[str, tuple[int, datetime | None]]:
    with store.session() as session:
        rows = session.execute(select(SlotRow.slot_id, SlotRow.reads, SlotRow.read_at))
        return {slot: (count, at) for slot, count, at in rows}


def test_reads_are_counted_and_rows_stay_whole(store: MetadataStore, clock: Clock) -> None:
    put(store, "1")
    put(store, "2")
    counts = Uses(store, lambda: 4.0)
    counts.note(["a1-0", "absent"])
    counts.note(["a1-0"])
    latest = clock.now
    assert counted(store)["a1-0"] == (0, None), "in memory until it is written"
    counts.close()
    assert counted(store) == {"a1-0": (2, latest), "a2-0": (0, None)}
    counts.note(["a1-0"])
    counts.close()
    assert counted(store)["a1-0"][0] == 3
    assert verify(store).ok
    revision = store.revision()
    counts.close()
    assert store.revision() == revision, "reading is no change"


def test_who_reads_does_not_wait_for_a_writer(store: MetadataStore) -> None:
    put(store, "1")
    counts = Uses(store, lambda: 4.0)
    counts.note(["a1-0"])
    writer = sqlite3.connect(store.path, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    start = time.perf_counter()
    assert not counts.write()
    assert time.perf_counter() - start < 5, "the writer of a bank waits for thirty seconds"
    counts.note(["a1-0"])
    writer.execute("ROLLBACK")
    writer.close()
    assert counts.write()
    assert counted(store)["a1-0"][0] == 2, "what could not be written is kept"


def test_what_is_read_while_counts_cannot_be_written_is_kept(
    store: MetadataStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, "1")
    counts = Uses(store, lambda: 4.0)

    def busy(_: object) -> None:
        counts.note(["a1-0"])
        raise sqlite3.OperationalError("database is locked")

    counts.note(["a1-0"])
    with monkeypatch.context() as held_up:
        held_up.setattr(counts, "_add", busy)
        assert not counts.write()
    assert counts.write()
    assert counted(store)["a1-0"][0] == 2


def test_a_clock_behind_does_not_make_a_slot_look_unused(store: MetadataStore) -> None:
    put(store, "1")
    read(store, "1")
    latest = counted(store)["a1-0"][1]
    other = MetadataStore(store.path, lambda: START - timedelta(days=1))
    try:
        read(other, "1")
    finally:
        other.close()
    assert counted(store)["a1-0"] == (2, latest)


def test_counts_are_written_every_so_often(store: MetadataStore, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uses, "EVERY", timedelta(minutes=1))
    put(store, "1")
    counts = Uses(store, lambda: 4.0)
    counts.note(["a1-0"])
    counts._background.submit(lambda: None).result()
    assert counted(store)["a1-0"][0] == 0
    clock.now += timedelta(minutes=2)
    counts.note(["a1-0"])
    counts._background.submit(lambda: None).result()
    assert counted(store)["a1-0"][0] == 2
    counts.close()
