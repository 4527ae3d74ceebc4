"""The store of LangGraph: the same as its own stores do, but for what is told here."""

from __future__ import annotations

import asyncio
import random
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.embeddings import DeterministicFakeEmbedding
from langgraph.graph import START, StateGraph
from langgraph.store.base import (
    BaseStore,
    GetOp,
    InvalidNamespaceError,
    ListNamespacesOp,
    MatchCondition,
    PutOp,
    SearchOp,
)
from langgraph.store.memory import InMemoryStore
from langgraph.store.sqlite import SqliteStore

from langchain_trimem import TrimemStore
from tests.contracts.bank import BOAT, CAKE, PUMP
from tests.loop import loop_alive
from trimem import ExplicitBank, InvalidInputError
from trimem.text.encoders import Encoder

with warnings.catch_warnings():  # of what langmem imports
    warnings.simplefilter("ignore", DeprecationWarning)
    from langmem import (  # type: ignore[import-untyped]
        create_manage_memory_tool,
        create_search_memory_tool,
    )

ANN, BOB = ("users", "ann"), ("users", "bob")
NAMESPACES = [("a",), ("ab",), ("a", "b"), ("a", "b", "c"), ("b", "a"), ("A",), ("ü",)]
RUNS = count()


@pytest.fixture
def store(bank: ExplicitBank) -> TrimemStore:
    return TrimemStore(bank)


def found(store: BaseStore, prefix: tuple[str, ...] = (), **how: Any) -> list[str]:
    return [item.key for item in store.search(prefix, **{"limit": 99, **how})]


# Held against LangGraph's own

values = st.fixed_dictionaries(
    {
        "n": st.integers(-2, 2) | st.sampled_from([0.5, 1.5]),
        "word": st.sampled_from(["tea", "Tea", "boat'; DROP TABLE item; --", "élan", ""]),
        "flag": st.booleans() | st.none(),
    },
    optional={"list": st.lists(st.integers(0, 1), max_size=2), "deep": st.fixed_dictionaries({"x": st.integers(0, 1)})},
)
puts = st.builds(
    PutOp,
    st.sampled_from(NAMESPACES),
    st.sampled_from(["k", "K", "k%_", "key two", "é"]),
    values | st.none(),
    index=st.just(False),
    ttl=st.none(),
)
scripts = st.lists(st.lists(puts, min_size=1, max_size=4), max_size=6)
filters: st.SearchStrategy[dict[str, Any] | None] = st.sampled_from(
    [
        None,
        {"n": 1},
        {"n": {"$gt": 0}},
        {"n": {"$gte": 0, "$lt": 1.5}},
        {"n": {"$lte": -1}},
        {"n": {"$ne": 1}, "word": "tea"},
        {"word": {"$eq": "Tea"}},
        {"word": {"$ne": "tea"}},
        {"word": "boat'; DROP TABLE item; --"},
        {"flag": True},
        {"flag": {"$eq": None}},
        {"absent": {"$ne": 3}},
        {"absent": None},
        {"list": [0, 1]},
        {"list": {"$eq": []}},
        {"deep": {"x": 1}},
        {"deep": {"$eq": {"x": 0}}},
        {"deep": {"x": {"$gte": 0}}},
    ]
)
paths = st.lists(st.sampled_from(["a", "b", "ab", "A", "*", "c"]), min_size=1, max_size=3).map(tuple)
conditions = st.lists(st.builds(MatchCondition, st.sampled_from(["prefix", "suffix"]), paths), max_size=2).map(tuple)
listings = st.builds(ListNamespacesOp, conditions, st.none() | st.integers(1, 3), st.integers(0, 5), st.integers(0, 2))


def shown(items: Sequence[Any]) -> list[tuple[Any, ...]]:
    return sorted(((item.namespace, item.key, str(item.value)) for item in items), key=repr)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(script=scripts, wanted=st.lists(filters, min_size=3, max_size=6), listed=st.lists(listings, max_size=6))
def test_it_does_what_langgraphs_own_stores_do(
    bank: ExplicitBank, script: list[list[PutOp]], wanted: list[Any], listed: list[ListNamespacesOp]
) -> None:
    """Items of any script, by key and by filter, and their namespaces, are those of the other stores.

    Meant to be otherwise: created_at outlives an overwrite, items come last written first (InMemoryStore: in the order
    of their keys' first writes), emptied namespaces are not listed (InMemoryStore lists them, and those that were only
    read), and what SqliteStore's filters take for a path, an operator's operand or a missing value.
    """
    ours, memory = TrimemStore(bank, namespace=f"run {next(RUNS)}"), InMemoryStore()
    with SqliteStore.from_conn_string(":memory:") as sqlite:
        sqlite.setup()
        for ops in script:
            for store in (ours, memory, sqlite):
                assert store.batch(ops) == [None] * len(ops)
        keys = {(op.namespace, op.key) for ops in script for op in ops} | {(("a",), "absent")}
        gets = [GetOp(*key) for key in keys]
        assert shown(list(filter(None, ours.batch(gets)))) == shown(list(filter(None, memory.batch(gets))))
        for prefix in ((), *NAMESPACES):
            for condition in wanted:
                search = SearchOp(prefix, condition, limit=99)
                (own,), (theirs,) = ours.batch([search]), memory.batch([search])
                assert shown(own) == shown(theirs), search  # type: ignore[arg-type]
        assert ours.batch(listed) == sqlite.batch(listed)
    ours.delete_namespace(())


def test_a_batch_reads_before_it_writes_and_keeps_its_order(store: TrimemStore) -> None:
    store.put(ANN, "k", {"n": 1})
    results = store.batch(
        [PutOp(ANN, "k", {"n": 2}), GetOp(ANN, "k"), PutOp(ANN, "k", {"n": 3}), GetOp(ANN, "z"), SearchOp(ANN)]
    )
    assert [type(result).__name__ for result in results] == ["NoneType", "Item", "NoneType", "NoneType", "list"]
    assert results[1].value == {"n": 1}  # type: ignore[union-attr]
    item = store.get(ANN, "k")
    assert item is not None
    assert item.value == {"n": 3}, "the last of one key counts"
    assert item.created_at <= item.updated_at
    with pytest.raises(InvalidInputError):
        store.batch([PutOp(ANN, "k", None), "other"])  # type: ignore[list-item]
    assert store.get(ANN, "k") is not None


def test_namespaces_are_checked_and_hold_what_langgraph_allows(store: TrimemStore) -> None:
    odd = ("a/b", "50 %", "new\nline", "日本", "half \ud800", "%2F")
    store.put(odd, "k", {"n": 1})
    (item,) = store.search(odd[:2])
    assert (item.namespace, item.key) == (odd, "k")
    assert store.list_namespaces(prefix=("a/b", "*"), max_depth=3) == [odd[:3]]
    assert store.search(("a",)) == []
    for wrong in (PutOp(("a.b",), "k", {}), GetOp(("",), "k"), SearchOp(("a.b",)), GetOp((1,), "k")):  # type: ignore[arg-type]
        with pytest.raises(InvalidNamespaceError):
            store.batch([PutOp(ANN, "k", {}), wrong])
    assert store.get(ANN, "k") is None
    with pytest.raises(InvalidNamespaceError):
        store.put((), "k", {})


def test_a_time_to_live_is_a_time(store: TrimemStore) -> None:
    for minutes in (0, -1, float("nan"), float("inf"), 1e12):
        with pytest.raises(InvalidInputError, match="time to live"):
            store.put(ANN, "k", {}, ttl=minutes)
    assert store.get(ANN, "k") is None


def test_pages_follow_one_another(store: TrimemStore) -> None:
    for i in range(7):
        store.put(ANN, f"k{i}", {"text": f"{PUMP} Number {i}."})
    for how in ({}, {"query": "pump"}):
        pages = [key for offset in range(0, 9, 3) for key in found(store, ANN, limit=3, offset=offset, **how)]
        assert len(pages) == 7
        assert pages == found(store, ANN, **how)


# Searched by what items say


def test_it_finds_by_meaning_what_is_indexed(bank: ExplicitBank) -> None:
    store = TrimemStore(bank, index={"fields": ["text", "notes[*].said"]})
    store.put(ANN, "boat", {"text": BOAT, "title": "the almond cake"})
    store.put(ANN, "notes", {"notes": [{"said": PUMP}, {"said": CAKE}], "text": None})
    store.put(ANN, "secret", {"text": "The boat is a secret."}, index=False)
    store.put(ANN, "title", {"text": PUMP, "title": "When the ferry sails"}, index=["title"])
    best = store.search(ANN, query="When does the boat leave?")
    assert best[0].key == "boat"
    assert {item.key for item in best} == {"boat", "notes", "title"}
    assert best[0].score is not None
    assert found(store, ANN, query="almond cake", limit=1) == ["notes"]
    assert found(store, ANN, query="ferry", limit=1) == ["title"]
    assert set(found(store, ANN, query="boat", filter={"text": {"$ne": BOAT}})) == {"notes", "title"}
    assert store.search(ANN)[0].score is None
    assert set(found(store, ANN)) == {"boat", "notes", "secret", "title"}
    assert bank.recall("the boat", 1, namespace=("store", *ANN))[0].text == BOAT


def test_a_folder_is_enough(tmp_path: Path, encoder: Encoder) -> None:
    with TrimemStore(tmp_path, encoder=encoder) as store:
        store.put(ANN, "boat", {"text": BOAT})
        store.put(BOB, "cake", {"text": CAKE}, index=False)
        before = [item.dict() for item in store.search(())], store.list_namespaces()
    with TrimemStore(tmp_path, encoder=encoder) as store:
        assert ([item.dict() for item in store.search(())], store.list_namespaces()) == before
        assert found(store, query="ship") == ["boat"]
        assert "boat" not in repr(store)
    with TrimemStore(tmp_path, index=False) as store:
        assert set(found(store, query="ship")) == {"boat", "cake"}, "queries are ignored"
    with TrimemStore(tmp_path / "other", index={"dims": 8, "embed": DeterministicFakeEmbedding(size=8)}) as store:
        store.put(ANN, "boat", {"text": BOAT})
        assert found(store, query=BOAT) == ["boat"]


def test_an_open_bank_has_its_encoder(bank: ExplicitBank, encoder: Encoder) -> None:
    with pytest.raises(InvalidInputError, match="has its encoder"):
        TrimemStore(bank, encoder=encoder)


def test_a_namespace_is_erased_whole(store: TrimemStore, bank: ExplicitBank) -> None:
    store.put(ANN, "k", {"text": PUMP})
    store.put((*ANN, "x"), "k", {"text": PUMP}, index=False)
    store.put(BOB, "k", {"text": BOAT})
    assert store.delete_namespace(ANN).documents == 2
    assert store.list_namespaces() == [BOB]
    assert b"cellar" not in b"".join(file.read_bytes() for file in bank.folder.rglob("*") if file.is_file())


# Agents


async def test_langmem_uses_it(store: TrimemStore) -> None:
    manage = create_manage_memory_tool(("memories", "{user_id}"), store=store)
    search = create_search_memory_tool(("memories", "{user_id}"), store=store)

    def of(user: str) -> Any:
        return {"configurable": {"user_id": user}}

    await manage.ainvoke({"content": "Ann drinks oolong."}, of("ann"))
    manage.invoke({"content": "Bob drinks coffee."}, of("bob"))
    said = await search.ainvoke({"query": "what to drink"}, of("ann"))
    assert "oolong" in str(said)
    assert "coffee" not in str(said)
    (item,) = store.search(("memories", "ann"))
    manage.invoke({"content": "Ann drinks water.", "action": "update", "id": item.key}, of("ann"))
    assert "water" in str(search.invoke({"query": "what to drink"}, of("ann")))
    manage.invoke({"action": "delete", "id": item.key}, of("ann"))
    assert store.list_namespaces() == [("memories", "bob")]


async def test_a_graph_hands_it_to_its_nodes(store: TrimemStore) -> None:
    async def node(state: dict[str, str], *, store: BaseStore) -> dict[str, str]:
        await store.aput(("users", state["user"]), "said", {"text": state["text"]})
        found = await store.asearch(("users", state["user"]), query="boat")
        return {"text": found[0].value["text"]}

    graph = StateGraph(dict).add_node("node", node).add_edge(START, "node").compile(store=store)  # type: ignore[type-var]
    assert await graph.ainvoke({"user": "ann", "text": BOAT}) == {"text": BOAT}


# Tenants, threads, the loop


def test_stores_of_two_namespaces_share_nothing(bank: ExplicitBank) -> None:
    one, other = TrimemStore(bank, namespace="one"), TrimemStore(bank, namespace=("other", "x"))
    one.put(ANN, "k", {"text": PUMP})
    assert (other.search(()), other.list_namespaces()) == ([], [])
    assert other.get(ANN, "k") is None
    other.delete(ANN, "k")
    other.delete_namespace(())
    assert found(one) == ["k"]
    bank.remember(BOAT, namespace=("one", *ANN))
    assert found(one, query="boat") == ["k"], "what is remembered is no item"


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    script=st.lists(
        st.tuples(st.sampled_from([ANN, BOB, ("users",)]), st.sampled_from("xy"), st.sampled_from([PUMP, BOAT, None])),
        max_size=6,
    )
)
def test_what_one_tenant_does_never_shows_in_another(bank: ExplicitBank, script: list[Any]) -> None:
    store = TrimemStore(bank, namespace=f"tenants {next(RUNS)}")

    def all_of(tenant: tuple[str, ...]) -> list[Any]:
        every = [
            *store.search(tenant, limit=99),
            *store.search(tenant, query="the pump and the boat", limit=99),
            *filter(None, (store.get(tenant, key) for key in "xy")),
        ]
        return [(item.namespace, item.key, item.value, item.updated_at, item.created_at) for item in every]

    for namespace, key, text in script:
        others = [tenant for tenant in (ANN, BOB) if tenant != namespace]
        before = [all_of(tenant) for tenant in others]
        store.batch([PutOp(namespace, key, None if text is None else {"text": text})])
        assert [all_of(tenant) for tenant in others] == before


def test_threads_lose_nothing(store: TrimemStore) -> None:
    def work(i: int) -> None:
        store.put(("t", str(i % 4)), str(i), {"n": i}, index=False)
        assert store.get(("t", str(i % 4)), str(i)) is not None

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(24)))
    assert sorted(item.value["n"] for item in store.search((), limit=99)) == list(range(24))


async def test_the_loop_is_never_held_up(store: TrimemStore) -> None:
    await store.aput(ANN, "first", {"text": CAKE})
    async with loop_alive():
        await asyncio.gather(*(store.aput(ANN, f"k{i}", {"text": f"{PUMP} Number {i}."}) for i in range(6)))
        items = await asyncio.gather(*(store.asearch(ANN, query=f"number {i}", limit=3) for i in range(6)))
        await asyncio.gather(store.alist_namespaces(), store.aget(ANN, "k1"), store.adelete(ANN, "k2"))
        await store.adelete_namespace(BOB)
        await store.asweep_ttl()
    assert all(len(some) == 3 for some in items)


async def test_a_cancelled_call_leaves_all_or_nothing(store: TrimemStore) -> None:
    for i in range(6):
        task = asyncio.create_task(
            store.abatch([PutOp(ANN, f"a{i}", {"text": PUMP}), PutOp(ANN, f"b{i}", {"text": BOAT})])
        )
        await asyncio.sleep(random.uniform(0, 0.02))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await asyncio.sleep(0.5)
    keys = set(found(store))
    assert all((f"a{i}" in keys) == (f"b{i}" in keys) for i in range(6))
