"""Search sees its scope and nothing else, all that was written and nothing that was forgotten."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from trimem.store import following, vectors, words
from trimem.store.metadata import Document, MetadataStore, NewSlot
from trimem.store.search import HybridSearch
from trimem.store.words import MOST, WordSearch
from trimem.types import Namespace

DIM = 8
VOCABULARY = ["pump", "boat", "cake", "engine", "harbour", "almond", "pressure", "tuesday"]


def vector_of(text: str) -> np.ndarray:
    """Return an encoding that knows how often each word of the vocabulary is said, and a little of the letters."""
    counts = np.array([text.count(word) for word in VOCABULARY], np.float32) + 0.01 * (1 + len(text) % 7)
    return counts / np.linalg.norm(counts)


def document(key: str, texts: Sequence[str], **metadata: object) -> tuple[Document, list[NewSlot]]:
    slots = [NewSlot(f"{key}-{i}", text, i, i + 1, 1, 1, vector_of(text), None) for i, text in enumerate(texts)]
    return Document(key, " ".join(texts), metadata), slots


def opened(folder: Path) -> MetadataStore:
    store = MetadataStore(folder / "bank.sqlite")
    store.create_bank(mechanism="e", model_name="m", model_fingerprint="f", encoder_fingerprint="e", config={})
    return store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MetadataStore]:
    store = opened(tmp_path)
    yield store
    store.close()


@pytest.fixture
def search(store: MetadataStore) -> Iterator[HybridSearch]:
    search = HybridSearch(store.reader)
    yield search
    search.close()


def found(
    search: HybridSearch, query: str, k: int, namespace: Namespace, where: dict[str, object] | None = None
) -> list[str]:
    return [hit.id for hit in search(query, vector_of(query), k, namespace, where)]


NAMESPACES: list[Namespace] = [("a",), ("a", "b"), ("ab",), ("a", "b", "c"), ("b",)]


class SearchKnowsItsScope(RuleBasedStateMachine):
    """Documents come, are replaced and forgotten in five namespaces; a dictionary tells what is true.

    A second store on the same database reads what the first one writes, as another process would.
    """

    exact_slots = 1000

    @initialize(folder=st.integers(0, 2**60))
    def begin(self, folder: int) -> None:
        import tempfile

        self.folder = tempfile.TemporaryDirectory(prefix="trimem-search-")
        self.store = opened(Path(self.folder.name))
        self.other = MetadataStore(Path(self.folder.name) / "bank.sqlite")
        self.searches = [HybridSearch(one.reader, exact_slots=self.exact_slots) for one in (self.store, self.other)]
        self.true: dict[tuple[Namespace, str], tuple[dict[str, object], list[str]]] = {}

    @rule(
        namespace=st.sampled_from(NAMESPACES),
        key=st.integers(0, 5),
        texts=st.lists(st.lists(st.sampled_from(VOCABULARY), min_size=1, max_size=4), min_size=1, max_size=3),
        color=st.sampled_from(["red", "blue"]),
    )
    def put(self, namespace: Namespace, key: int, texts: list[list[str]], color: str) -> None:
        name = f"{'-'.join(namespace)}-{key}"
        self.store.put(namespace, [document(name, [" ".join(text) for text in texts], color=color)])
        self.true[namespace, name] = {"color": color}, [f"{name}-{i}" for i in range(len(texts))]

    @rule(namespace=st.sampled_from(NAMESPACES), where=st.sampled_from([None, {"color": "red"}]))
    def forget(self, namespace: Namespace, where: dict[str, object] | None) -> None:
        self.store.delete(namespace, None, where)
        for of, name in list(self.true):
            if of[: len(namespace)] == namespace and (where is None or self.true[of, name][0] == where):
                del self.true[of, name]

    @rule(
        namespace=st.sampled_from(NAMESPACES),
        query=st.lists(st.sampled_from(VOCABULARY), min_size=1, max_size=3).map(" ".join),
        where=st.sampled_from([None, {"color": "red"}, {"color": ["red", "blue"]}, {"color": "green"}]),
        k=st.integers(1, 100),
        which=st.integers(0, 1),
    )
    def recall(self, namespace: Namespace, query: str, where: dict[str, object] | None, k: int, which: int) -> None:
        color = (where or {}).get("color")
        allowed = color if isinstance(color, list) else [color]
        may = {
            slot
            for (of, _), (about, slots) in self.true.items()
            for slot in slots
            if of[: len(namespace)] == namespace and (where is None or about["color"] in allowed)
        }
        hits = self.searches[which](query, vector_of(query), k, namespace, where)
        assert len(hits) == min(k, len(may))
        assert {hit.id for hit in hits} <= may
        scores = [hit.score for hit in hits]
        assert scores == sorted(scores, reverse=True)
        assert all(0 <= score <= 1.000001 for score in scores)

    def teardown(self) -> None:
        for search in getattr(self, "searches", ()):
            search.close()
        if hasattr(self, "store"):
            self.store.close()
            self.other.close()
            self.folder.cleanup()


class QuantizedSearchKnowsItsScope(SearchKnowsItsScope):
    """The same, with vectors in four bits a coordinate from the fourth slot on."""

    exact_slots = 3


TestSearch = SearchKnowsItsScope.TestCase
TestQuantizedSearch = QuantizedSearchKnowsItsScope.TestCase
for case in (TestSearch, TestQuantizedSearch):
    case.settings = settings(max_examples=12, stateful_step_count=15, deadline=None)


def test_a_filter_leaves_the_best_of_what_it_leaves(store: MetadataStore, search: HybridSearch) -> None:
    texts = [f"pump number {i}" for i in range(300)]
    store.put(("a",), [document(f"d{i}", [text], n=i % 100) for i, text in enumerate(texts)])
    assert set(found(search, "pump", 9, ("a",), {"n": 77})) == {"d77-0", "d177-0", "d277-0"}
    assert found(search, "pump number 177", 1, ("a",), {"n": 77}) == ["d177-0"]


def test_a_filter_that_compares_leaves_the_best_of_what_it_leaves(store: MetadataStore, search: HybridSearch) -> None:
    days = [f"2026-05-{1 + i % 28:02}" for i in range(280)]
    store.put(("a",), [document(f"d{i}", [f"pump number {i}"], n=i, time=day) for i, day in enumerate(days)])
    assert set(found(search, "pump", 9, ("a",), {"n": {"$gte": 277}})) == {"d277-0", "d278-0", "d279-0"}
    late = {"time": {"$gte": "2026-05-28T00:00+00:00"}, "n": {"$lt": 60}}
    assert set(found(search, "pump number 100", 9, ("a",), late)) == {"d27-0", "d55-0"}


@pytest.mark.parametrize("query", ["pump", "turbine"])
def test_a_search_that_is_overtaken_finds_each_document_once(
    store: MetadataStore, search: HybridSearch, monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    """Another thread writes, and moves the vectors along, between what a search reads of rows and of vectors."""
    store.put(("a",), [document("d", ["the old pump"])])
    assert found(search, query, 9, ("a",)) == ["d-0"]
    nearest = vectors.SlotVectors.nearest
    versions = iter(range(3))

    def overtaken(self: vectors.SlotVectors, *arguments: Any) -> Any:
        for version in versions:
            slots = [replace(slot, slot_id=f"new-{version}") for slot in document("d", ["the new pump"])[1]]
            store.put(("a",), [(document("d", ["the new pump"])[0], slots)])
            search.follow()
            break
        return nearest(self, *arguments)

    monkeypatch.setattr(vectors.SlotVectors, "nearest", overtaken)
    assert found(search, query, 9, ("a",)) == ["new-2"]


def test_a_tenants_rare_word_is_found_among_the_common_words_of_others(
    store: MetadataStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(words, "FUNCTION_WORDS", frozenset())
    store.put(("big",), [document(f"d{i}", [f"engine tuesday w{i}"]) for i in range(400)])
    store.put(("small",), [document("e", ["the engine of a boat"]), document("f", ["almond cake"])])
    tight = WordSearch(scored=10)
    with store.reader.session() as session:
        small = tight.best(session, ["tuesday", "engine"], ("small",), None, limit=5, slots=2)
        big = tight.best(session, ["engine", "w7"], ("big",), None, limit=5, slots=400)
        none = tight.best(session, ["w7"], ("small",), None, limit=5, slots=2)
        rows = {c.slot_id: c.row for c in store.reader.candidates(session, range(1, 500), ("small",))}
        texts = {c.row: c.text for c in store.reader.candidates(session, big, ("big",))}
    assert small == [rows["e-0"]]
    assert texts[big[0]] == "engine tuesday w7"
    assert none == []


def test_what_other_tenants_store_changes_no_hit_and_no_score(store: MetadataStore, search: HybridSearch) -> None:
    """Nor which words are looked for, nor which slots become candidates."""
    store.put(("a",), [document(f"d{i}", [f"pump engine w{i % 7} w{i}"]) for i in range(100)])
    store.put(("a", "b"), [document("e", ["the boat"])])
    queries = ("pump w3", "engine w50 boat", "boat", "w1 w2 w3 w4")

    def hits() -> list[list[tuple[str, float]]]:
        return [
            [(hit.id, hit.score) for hit in search(query, vector_of(query), 9, ("a",), where)]
            for query in queries
            for where in (None, {"n": 1}, {"n": {"$ne": 1}})
        ]

    before = hits()
    store.put(("ab",), [document(f"x{i}", [f"pump boat boat w3 {'w50 ' * 9}" * (1 + i % 3)]) for i in range(300)])
    assert hits() == before
    store.delete(("ab",), None, None)
    assert hits() == before


def test_who_asked_before_is_told_the_same_as_who_did_not(store: MetadataStore, search: HybridSearch) -> None:
    """How rare a word is, is as it is now, not as when it was first asked for."""

    def hits(one: HybridSearch) -> list[tuple[str, float]]:
        return [(hit.id, hit.score) for hit in one("pump boat", vector_of("pump boat"), 9, ("a",), None)]

    for i, text in enumerate(("the pump", "the boat", "a garden", "a cake", "the boat again", "one boat more")):
        store.put(("a",), [document(f"d{i}", [text])])
        late = HybridSearch(store.reader)
        assert hits(search) == hits(late)
        late.close()
    store.put(("a",), [document("d0", ["the boat, too"])])
    assert hits(search) == hits(HybridSearch(store.reader))


def test_of_a_book_the_first_words_are_looked_for() -> None:
    said = [f"word{i}" for i in range(50_000)]
    assert words.words(" ".join(said)) == said[:MOST]


def test_words_that_cost_too_much_are_left_out_while_others_find_enough(store: MetadataStore) -> None:
    store.put(("a",), [document(f"d{i}", [f"engine w{i % 10}"]) for i in range(200)])
    with store.reader.session() as session:
        found = WordSearch(scored=30).best(session, ["engine", "w3"], ("a",), None, 20, slots=200)
        texts = {c.row: c.text for c in store.reader.candidates(session, found, ("a",))}
    assert {texts[row] for row in found} == {"engine w3"}
    assert len(found) == 20


def test_parts_of_a_document_speak_together(store: MetadataStore, search: HybridSearch) -> None:
    store.put(("a",), [document("d", ["boat", "cake"]), document("e", ["almond"]), document("f", ["boat", "boat"])])
    scores = {hit.id: hit.score for hit in search("boat", vector_of("boat"), 9, ("a",), None)}
    assert scores["f-0"] > scores["d-0"], "what stands beside it is about boats too"


def test_a_reused_row_id_is_another_slot(store: MetadataStore, search: HybridSearch) -> None:
    store.put(("a",), [document("d", ["pump"])])
    assert found(search, "pump", 1, ("a",)) == ["d-0"]
    store.delete(("a",), None, None)
    store.put(("b",), [document("e", ["pump"])])  # SQLite gives it the row id that is free again
    assert found(search, "pump", 9, ("a",)) == []
    assert found(search, "pump", 9, ("b",)) == ["e-0"]


def test_who_was_away_while_changes_were_cleared_reads_all_again(
    store: MetadataStore, search: HybridSearch, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(("a",), [document("d", ["pump"])])
    assert found(search, "pump", 1, ("a",)) == ["d-0"]
    monkeypatch.setattr("trimem.store.database.CHANGES_KEPT", 2)
    for i in range(9):
        store.put(("a",), [document(f"e{i}", ["boat"])])
    store.delete(("a",), ["d"], None)
    assert len(found(search, "pump", 99, ("a",))) == 9


def test_searches_go_on_while_many_changes_are_read(store: MetadataStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put(("a",), [document("old", ["pump"])])
    search = HybridSearch(store.reader)
    search._vectors._at_once = 5
    assert found(search, "pump", 1, ("a",)) == ["old-0"]
    store.put(("a",), [document(f"d{i}", ["boat"]) for i in range(20)])
    begun, go_on = Event(), Event()
    take = following.FollowedVectors._take

    def slowly(self: following.FollowedVectors, ids: list[int]) -> None:
        begun.set()
        assert go_on.wait(10)
        take(self, ids)

    monkeypatch.setattr(following.FollowedVectors, "_take", slowly)
    assert "old-0" in found(search, "pump", 3, ("a",)), "answered while the rest is still being read"
    assert begun.wait(10)
    store.delete(("a",), ["old"], None)
    assert "old-0" not in found(search, "pump", 30, ("a",)), "never what was forgotten, however far behind"
    go_on.set()
    search.close()
    assert len(found(search, "boat", 99, ("a",))) == 20


def test_what_goes_wrong_behind_is_raised_to_the_next_search(
    store: MetadataStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(("a",), [document("old", ["pump"])])
    search = HybridSearch(store.reader)
    search._vectors._at_once = 1
    found(search, "pump", 1, ("a",))
    store.put(("a",), [document(f"d{i}", ["boat"]) for i in range(3)])

    def broken(self: following.FollowedVectors, ids: list[int]) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr(following.FollowedVectors, "_take", broken)
    found(search, "pump", 1, ("a",))
    search.close()
    with pytest.raises(OSError, match="the disk is gone"):
        found(search, "pump", 1, ("a",))


def test_threads_find_what_they_wrote_while_others_write(store: MetadataStore, search: HybridSearch) -> None:
    def work(tenant: int) -> None:
        namespace = (f"t{tenant}",)
        for i in range(12):
            store.put(namespace, [document(f"{tenant}-{i}", [f"pump {tenant} {i}"])])
            assert len(found(search, "pump", 99, namespace)) == i + 1
        store.delete(namespace, [f"{tenant}-3"], None)
        slots = found(search, "pump", 99, namespace)
        assert len(slots) == 11
        assert all(slot.startswith(f"{tenant}-") for slot in slots)
        assert f"{tenant}-3-0" not in slots

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(work, tenant) for tenant in range(4)]:
            done.result()
