"""LlamaIndex's contract for retrievers, which has no official suite."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from threading import Barrier
from typing import Any

import llama_index.core.instrumentation as instrument
import numpy as np
import pytest
from llama_index.core import PromptTemplate
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.vector_stores import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters
from numpy.typing import NDArray

from llama_index_trimem import ExplicitRetriever
from tests.contracts.bank import BOAT, CAKE, PUMP
from trimem import ExplicitBank, InvalidInputError, InvalidNamespaceError
from trimem.text.encoders import Encoder


@pytest.fixture
def retriever(filled: ExplicitBank) -> ExplicitRetriever:
    return ExplicitRetriever(filled, "acme", similarity_top_k=2)


def test_it_is_a_retriever(retriever: ExplicitRetriever) -> None:
    assert isinstance(retriever, BaseRetriever)


def test_nodes_carry_id_offsets_score_and_metadata(retriever: ExplicitRetriever, filled: ExplicitBank) -> None:
    nodes = retriever.retrieve("When does the boat leave?")
    (hit,) = filled.recall("When does the boat leave?", 1, namespace="acme")
    assert len(nodes) == 2
    assert (nodes[0].node.get_content(), nodes[0].node.node_id, nodes[0].score) == (BOAT, hit.id, hit.score)
    assert nodes[0].node.metadata == {"source": "1.md", "floor": 1}
    assert (nodes[0].node.start_char_idx, nodes[0].node.end_char_idx) == (0, len(BOAT))  # type: ignore[attr-defined]


async def test_async_finds_the_same(retriever: ExplicitRetriever) -> None:
    assert await retriever.aretrieve("pump") == retriever.retrieve("pump")
    many = await asyncio.gather(*(retriever.aretrieve(q) for q in (PUMP, BOAT, CAKE)))
    assert [nodes[0].node.get_content() for nodes in many] == [PUMP, BOAT, CAKE]


async def test_async_searches_run_side_by_side_off_the_loop(
    filled: ExplicitBank, monkeypatch: pytest.MonkeyPatch
) -> None:
    everybody = Barrier(3)

    class Meeting:
        """An encoder that goes on when three are in it at once."""

        def __init__(self, encoder: Encoder) -> None:
            self.encoder = encoder
            self.fingerprint = encoder.fingerprint

        def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
            return self.encoder.encode_documents(texts)

        def encode_query(self, text: str) -> NDArray[np.float32]:
            everybody.wait(30)
            return self.encoder.encode_query(text)

    monkeypatch.setattr(filled, "_encoder", Meeting(filled._encoder))
    retriever = ExplicitRetriever(filled, "acme")
    found = await asyncio.gather(*(retriever.aretrieve("pump") for _ in range(3)))
    assert found[0] == found[1] == found[2]


def test_filters_and_tenants(filled: ExplicitBank) -> None:
    only = ExplicitRetriever(filled, ("acme",), where={"floor": [2]})
    assert [node.node.get_content() for node in only.retrieve("pump")] == [CAKE]
    other = ExplicitRetriever(filled, "other")
    assert [node.node.get_content() for node in other.retrieve("pump")] == ["The red pump belongs to somebody else."]


def test_llama_indexs_filters(bank: ExplicitBank) -> None:
    about = [{"n": i, "kind": "even" if i % 2 == 0 else "odd", "tags": ["a"] if i else []} for i in range(4)]
    texts = [f"{PUMP} Number {i}." for i in range(4)]
    bank.remember([*texts, CAKE], namespace="acme", metadata=[*about, {}], compile=False)

    def found(*filters: MetadataFilter | MetadataFilters, condition: str = "and") -> set[int]:
        how = MetadataFilters(filters=list(filters), condition=FilterCondition(condition))
        nodes = ExplicitRetriever(bank, "acme", 9, filters=how).retrieve("pump")
        return {[*texts, CAKE].index(node.node.get_content()) for node in nodes}

    def by(key: str, operator: str, value: Any) -> MetadataFilter:
        return MetadataFilter(key=key, value=value, operator=FilterOperator(operator))

    assert found(by("n", "==", 1)) == {1}
    assert found(by("n", "!=", 1)) == {0, 2, 3, 4}
    assert found(by("n", ">", 1)) == {2, 3}
    assert found(by("n", ">=", 1), by("n", "<", 3)) == {1, 2}
    assert found(by("n", "<=", 0)) == {0}
    assert found(by("kind", "in", ["odd", "?"])) == {1, 3}
    assert found(by("kind", "nin", ["odd"])) == {0, 2, 4}
    assert found(by("tags", "is_empty", None)) == {0, 4}
    assert found(by("n", "==", 1), by("kind", "==", "even"), condition="or") == {0, 1, 2}
    assert found(by("n", "==", 1), by("kind", "==", "even"), condition="not") == {3, 4}
    inner = MetadataFilters(filters=[by("n", "<", 2), by("n", "==", 3)], condition=FilterCondition.OR)
    assert found(inner, by("kind", "==", "odd")) == {1, 3}
    assert found() == {0, 1, 2, 3, 4}
    for operator in ("text_match", "text_match_insensitive", "contains", "any", "all"):
        with pytest.raises(InvalidInputError, match=operator):
            found(by("kind", operator, "e"))
    both = MetadataFilters(filters=[by("kind", "==", "odd")])
    assert len(ExplicitRetriever(bank, "acme", 9, where={"n": {"$gt": 1}}, filters=both).retrieve("pump")) == 1


def test_events_are_emitted(retriever: ExplicitRetriever) -> None:
    seen: list[str] = []

    class Handler(BaseEventHandler):
        def handle(self, event: BaseEvent, **_: Any) -> None:
            seen.append(event.class_name())

    dispatcher = instrument.get_dispatcher()  # type: ignore[attr-defined]
    handler = Handler()
    dispatcher.add_event_handler(handler)
    try:
        retriever.retrieve("pump")
    finally:
        dispatcher.event_handlers.remove(handler)
    assert seen == ["RetrievalStartEvent", "RetrievalEndEvent"]


def test_it_serves_a_query_engine(retriever: ExplicitRetriever) -> None:
    engine = RetrieverQueryEngine.from_args(
        retriever, llm=MockLLM(), text_qa_template=PromptTemplate("{context_str}|{query_str}")
    )
    response = engine.query("When does the boat leave?")
    assert BOAT in str(response)
    assert response.source_nodes[0].node.get_content() == BOAT


def test_wrong_arguments(filled: ExplicitBank) -> None:
    with pytest.raises(InvalidInputError, match="at least 1"):
        ExplicitRetriever(filled, "acme", similarity_top_k=0)
    with pytest.raises(InvalidNamespaceError):
        ExplicitRetriever(filled, "")
