"""Rows are stored whole or not at all, and found only by those who may see them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from trimem.store.metadata import Document, MetadataStore, NewSlot
from trimem.store.scope import format_path, parse_path
from trimem.store.search import HybridSearch
from trimem.store.words import WordSearch, words
from trimem.types import Namespace

MOMENT = datetime(2026, 5, 6, 7, 8, 9, tzinfo=timezone(timedelta(hours=2)))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MetadataStore]:
    store = MetadataStore(tmp_path / "bank.sqlite", clock=lambda: MOMENT)
    store.create_bank(
        mechanism="explicit", model_name="m", model_fingerprint="f", encoder_fingerprint="e", config={"version": 1}
    )
    yield store
    store.close()


def document(key: str, *texts: str, **metadata: object) -> tuple[Document, list[NewSlot]]:
    """Return a document of one slot a text, with vectors that count letters."""
    slots = []
    for i, stretch in enumerate(texts):
        vector = np.array([stretch.count(letter) for letter in "aeiou"], np.float32) + 0.1
        slots.append(NewSlot(f"{key}-{i}", stretch, i, i + len(stretch), 1, 3, vector / np.linalg.norm(vector)))
    return Document(key, " ".join(texts), metadata), slots


def said(store: MetadataStore, query: str) -> list[str]:
    """Return the slots under ``a`` that words alone find, best first."""
    with store.reader.session() as session:
        rows = WordSearch().best(session, words(query), ("a",), None, 9, slots=10)
        by_row = {candidate.row: candidate.slot_id for candidate in store.reader.candidates(session, rows, ("a",))}
    return [by_row[row] for row in rows]


def test_a_slot_comes_back_as_it_went(store: MetadataStore) -> None:
    store.put(("a", "b"), [document("d", "one two", "three", source="x.md")])
    (slot,) = store.slots(["d-1"])
    assert (slot.namespace, slot.document, slot.text, slot.start, slot.stop) == (("a", "b"), "d", "three", 1, 6)
    assert (slot.line, slot.tokens, slot.metadata, slot.source) == (1, 3, {"source": "x.md"}, "x.md")
    assert slot.created_at == MOMENT
    assert slot.created_at.tzinfo == UTC
    assert [slot.id for slot in store.slots(["d-1", "absent", "d-0"])] == ["d-1", "d-0"]


def test_a_failed_put_leaves_nothing(store: MetadataStore) -> None:
    store.put(("a",), [document("d", "one")])
    broken = document("e", "two")
    broken[1].append(broken[1][0])  # the same slot id twice
    with pytest.raises(IntegrityError):
        store.put(("a",), [document("d", "changed"), broken])
    assert store.ids(("a",), None) == ["d-0"]
    assert store.slots(["d-0"])[0].text == "one"
    assert said(store, "changed") == []


def test_put_tells_which_slots_were_replaced(store: MetadataStore) -> None:
    store.put(("a",), [document("d", "one", "two")])
    shorter = document("d", "one")
    assert store.put(("a",), [shorter]) == ["d-1"]
    assert store.put(("b",), [document("e", "one")]) == []


def test_every_write_grows_the_revision(store: MetadataStore) -> None:
    seen = [store.revision()]
    store.put(("a",), [document("d", "one")])
    seen.append(store.revision())
    store.update(("a",), ["d"], {"d": {"x": 1}}, {})
    seen.append(store.revision())
    store.delete(("a",), None, None)
    seen.append(store.revision())
    assert seen == sorted(set(seen))


def test_foreign_keys_hold(store: MetadataStore) -> None:
    store.put(("a",), [document("d", "one")])
    with store._writing.connect() as connection, pytest.raises(IntegrityError):
        connection.execute(text("UPDATE slot SET document_id = 99"))


def test_words_match_in_their_other_forms(store: MetadataStore) -> None:
    store.put(("a",), [document("d", "The pumps were running", "A café in Zürich")])
    assert said(store, "pump runs") == ["d-0"]
    assert said(store, "cafe zurich") == ["d-1"]
    assert said(store, "?!") == []


def test_the_index_follows_every_change(store: MetadataStore) -> None:
    store.put(("a",), [document("d", "alpha"), document("e", "beta")])
    store.put(("a",), [document("d", "gamma")])
    store.delete(("a",), ["e"], None)
    found = {word: said(store, word) for word in ("alpha", "beta", "gamma")}
    assert found == {"alpha": [], "beta": [], "gamma": ["d-0"]}
    with store._writing.begin() as connection:  # raises if the index differs from the slots
        connection.exec_driver_sql("INSERT INTO slot_text(slot_text, rank) VALUES ('integrity-check', 1)")


def test_many_ids_at_once(store: MetadataStore) -> None:
    store.put(("a",), [document(f"d{i}", f"word{i}") for i in range(1200)])
    ids = [f"d{i}-0" for i in range(1200)]
    assert [slot.id for slot in store.slots(ids)] == ids
    assert len(store.documents(("a",), [f"d{i}" for i in range(1200)])) == 1200
    receipt = store.delete(("a",), ids, None)
    assert (receipt.documents, len(receipt.slots)) == (1200, 1200)


def test_search_weighs_words_and_vectors(store: MetadataStore) -> None:
    store.put(("a",), [document("d", "aaa alike"), document("e", "zzz pump"), document("f", "eee ooo")])
    search = HybridSearch(store.reader)
    vector = np.array([1, 0, 0, 0, 0], np.float32)
    by_vector = search("nothing in common", vector, 3, ("a",), None)
    assert by_vector[0].id == "d-0"
    assert by_vector[0].score < 0.7
    by_both = search("alike", vector, 3, ("a",), None)
    assert by_both[0].id == "d-0"
    assert 0.9 < by_both[0].score <= 1.0
    assert [hit.id for hit in search("pump", np.zeros(5, np.float32), 1, ("a",), None)] == ["e-0"]
    store.put(("a",), [document("g", "aaaa pump")])
    assert search("pump", vector, 1, ("a",), None)[0].id == "g-0", "the kept vectors are read again after a write"
    assert search("pump", vector, 9, ("nobody",), None) == []


NAMES = st.text(
    st.characters(codec="utf-8", exclude_categories=("C", "Z"), exclude_characters="/"), min_size=1, max_size=4
)
NAMESPACES = st.lists(st.one_of(st.sampled_from(["a", "ab", "A", "0", ".", "_", "%"]), NAMES), min_size=1, max_size=3)


@settings(max_examples=25, deadline=None)
@given(st.lists(NAMESPACES.map(tuple), min_size=1, max_size=8, unique=True))
def test_a_namespace_reads_itself_and_below_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, namespaces: list[Namespace]
) -> None:
    store = MetadataStore(tmp_path_factory.mktemp("scope") / "bank.sqlite")
    try:
        for i, namespace in enumerate(namespaces):
            store.put(namespace, [document(f"d{i}", f"word{i}")])
            assert parse_path(format_path(namespace)) == namespace
        for namespace in namespaces:
            wanted = [f"d{i}-0" for i, other in enumerate(namespaces) if other[: len(namespace)] == namespace]
            assert store.ids(namespace, None) == wanted
            assert store.stats(namespace).slots == len(wanted)
    finally:
        store.close()
