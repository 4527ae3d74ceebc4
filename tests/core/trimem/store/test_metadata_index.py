"""Metadata that is indexed is found without reading all slots, and it is the same that is found."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select

from tests.core.trimem.store.test_metadata import document
from trimem import InvalidInputError
from trimem.store import search as searching
from trimem.store.metadata import MetadataStore
from trimem.store.schema import SlotRow
from trimem.store.scope import in_scope
from trimem.store.search import HybridSearch

KEY = "a key's: 100 %"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MetadataStore]:
    store = MetadataStore(tmp_path / "bank.sqlite")
    store.put(("a",), [document(f"d{i}", f"word{i % 5} pump", **{KEY: i % 7}) for i in range(60)])
    yield store
    store.close()


def plan(store: MetadataStore) -> str:
    statement = select(SlotRow.id).join(SlotRow.document).where(*in_scope(("a",), {KEY: 3}))
    with store.session() as session:
        connection = session.connection()
        told = statement.compile(connection, compile_kwargs={"literal_binds": True})
        return str(connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {told}".replace("IS ?", "IS 3")).all())


def test_an_index_finds_the_same_without_reading_all(store: MetadataStore) -> None:
    before = {i: store.ids(("a",), {KEY: i}) for i in range(8)}
    assert "ix_meta_" not in plan(store)
    store.index_metadata(KEY)
    store.index_metadata(KEY)
    assert "ix_meta_" in plan(store)
    assert {i: store.ids(("a",), {KEY: i}) for i in range(8)} == before
    assert store.ids(("a",), {KEY: [1, 3]}) == sorted(before[1] + before[3], key=lambda slot: int(slot[1:-2]))
    store.put(("a",), [document("d3", "word3 pump", **{KEY: 99})])
    assert store.ids(("a",), {KEY: 99}) == ["d3-0"]
    assert "d3-0" not in store.ids(("a",), {KEY: 3})
    for wrong in ("", 'a"b', "half \ud800"):
        with pytest.raises(InvalidInputError):
            store.index_metadata(wrong)


def test_few_slots_are_read_and_many_looked_up_and_both_find_the_words(
    store: MetadataStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    search, away = HybridSearch(store.reader), np.zeros(5, np.float32)
    monkeypatch.setattr(searching, "CANDIDATES", 1)

    def found(few: int) -> str:
        monkeypatch.setattr(searching, "FEW", few)
        return search("word2", away, 1, ("a",), {KEY: 3})[0].text

    assert found(2_000) == found(0) == "word2 pump"


def test_what_is_held_in_few_bits_is_compared_as_it_is(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    store = MetadataStore(tmp_path / "many.sqlite")
    try:
        documents = []
        for i in range(400):
            told = document(f"d{i}", f"word{i}")
            vector = rng.standard_normal(24).astype(np.float32)
            documents.append((told[0], [replace(told[1][0], vector=vector / np.linalg.norm(vector))]))
        store.put(("a",), documents)
        quick, exact = HybridSearch(store.reader, exact_slots=10), HybridSearch(store.reader)
        for _ in range(10):
            query = rng.standard_normal(24).astype(np.float32)
            query /= np.linalg.norm(query)
            assert [hit.id for hit in quick("none", query, 5, ("a",), None)] == [
                hit.id for hit in exact("none", query, 5, ("a",), None)
            ]
    finally:
        store.close()
