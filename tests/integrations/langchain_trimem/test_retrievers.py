"""The official LangChain suite, and what it does not ask."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.load import dumps
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import ConfigurableField, RunnableLambda
from langchain_tests.integration_tests import RetrieversIntegrationTests
from pydantic import ValidationError

from langchain_trimem import ExplicitRetriever
from tests.contracts.bank import BOAT, CAKE, PUMP
from trimem import ExplicitBank, InvalidNamespaceError


class TestStandard(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def _filled(self, filled: ExplicitBank) -> None:
        self.bank = filled

    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return ExplicitRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"bank": self.bank, "namespace": "acme", "k": 4}

    @property
    def retriever_query_example(self) -> str:
        return "Where is the pump?"


@pytest.fixture
def retriever(filled: ExplicitBank) -> ExplicitRetriever:
    return ExplicitRetriever(bank=filled, namespace="acme", k=2)


def test_documents_carry_id_source_score_and_metadata(retriever: ExplicitRetriever, filled: ExplicitBank) -> None:
    best = retriever.invoke("When does the boat leave?")[0]
    (hit,) = filled.recall("When does the boat leave?", 1, namespace="acme")
    assert (best.page_content, best.id) == (BOAT, hit.id)
    assert best.metadata == {"source": "1.md", "floor": 1, "score": hit.score}
    best.metadata["floor"] = 99
    assert retriever.invoke("When does the boat leave?")[0].metadata["floor"] == 1


async def test_async_finds_the_same(retriever: ExplicitRetriever) -> None:
    query = "Where is the pump?"
    assert await retriever.ainvoke(query) == retriever.invoke(query)
    assert len(await retriever.ainvoke(query, k=1)) == 1
    many = await asyncio.gather(*(retriever.ainvoke(q) for q in (PUMP, BOAT, CAKE)))
    assert [documents[0].page_content for documents in many] == [PUMP, BOAT, CAKE]


async def test_everything_may_be_said_anew_with_a_call(retriever: ExplicitRetriever) -> None:
    assert [d.page_content for d in retriever.invoke("pump", filter={"floor": [2]})] == [CAKE]
    assert [d.page_content for d in await retriever.ainvoke("pump", filter={"floor": [2]})] == [CAKE]
    assert "somebody else" in retriever.invoke("pump", namespace="other")[0].page_content
    assert "somebody else" in (await retriever.ainvoke("pump", namespace=("other",)))[0].page_content


async def test_its_fields_hold_where_a_call_says_nothing(filled: ExplicitBank) -> None:
    filled.remember("The pump is sold.", namespace="acme", trust=0.2)
    for fields in ({"min_trust": 0.5}, {"filter": {"floor": {"$gte": 0}}}):
        trusted = ExplicitRetriever(bank=filled, namespace="acme", k=9, **fields)
        assert {d.metadata["floor"] for d in trusted.invoke("pump")} == {0, 1, 2, 3}
        assert {d.metadata["floor"] for d in await trusted.ainvoke("pump")} == {0, 1, 2, 3}


def test_a_tenant_may_be_chosen_by_configuration(retriever: ExplicitRetriever) -> None:
    chain = retriever.configurable_fields(namespace=ConfigurableField(id="tenant"))
    found = chain.invoke("pump", {"configurable": {"tenant": "other"}})
    assert [document.page_content for document in found] == ["The red pump belongs to somebody else."]


def test_it_pipes(retriever: ExplicitRetriever) -> None:
    def sources(documents: list[Document]) -> list[str]:
        return [document.metadata["source"] for document in documents]

    chain = retriever | RunnableLambda(sources)
    assert chain.invoke("almond cake")[0] == "2.md"


def test_traces_name_the_store_and_hold_no_memory(retriever: ExplicitRetriever) -> None:
    assert retriever._get_ls_params()["ls_vector_store_provider"] == "trimem"
    for shown in (repr(retriever), dumps(retriever)):
        assert "ExplicitBank" not in shown
        assert "pump" not in shown


def test_wrong_arguments(filled: ExplicitBank, retriever: ExplicitRetriever) -> None:
    with pytest.raises(ValidationError):
        ExplicitRetriever(bank=filled, namespace="acme", k=0)
    with pytest.raises(ValidationError):
        ExplicitRetriever(bank=filled)  # type: ignore[call-arg]
    with pytest.raises(InvalidNamespaceError):
        retriever.invoke("pump", namespace="")
