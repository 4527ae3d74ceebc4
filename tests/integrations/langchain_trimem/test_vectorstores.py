"""The official suite for vector stores, and what it does not ask."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.vectorstores import VectorStore
from langchain_tests.integration_tests import VectorStoreIntegrationTests

from langchain_trimem import TrimemVectorStore
from tests.contracts.bank import BOAT, CAKE, PUMP
from tests.contracts.tenants import TenantsContract
from tests.loop import loop_alive
from trimem import Bank, ExplicitBank, FingerprintMismatch, InvalidInputError, InvalidNamespaceError, LanguageModel


class TestStandard(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, tmp_path: Path, tiny_llama: LanguageModel) -> Iterator[VectorStore]:
        with ExplicitBank.open(tmp_path / "bank", model=tiny_llama, encoder=self.get_embeddings()) as bank:
            yield TrimemVectorStore(bank, "acme")


class TestTenants(TenantsContract):
    def write(self, bank: Bank, tenant: str, text: str) -> None:
        TrimemVectorStore(bank, tenant).add_texts([text], ids=["code"])

    def read(self, bank: Bank, tenant: str, query: str) -> str:
        store = TrimemVectorStore(bank, tenant)
        return str([store.similarity_search_with_score(query, 9), store.get_by_ids(["code"])])


@pytest.fixture
def store(bank: ExplicitBank) -> TrimemVectorStore:
    store = TrimemVectorStore(bank, "acme")
    metadatas: list[dict[str, Any]] = [{"floor": 0, "tags": ["a"]}, {"floor": 1}, {"floor": 2}]
    assert store.add_texts([PUMP, BOAT, CAKE], metadatas, ids=["pump", "boat", "cake"]) == ["pump", "boat", "cake"]
    return store


def test_scores_and_filters(store: TrimemVectorStore) -> None:
    ((best, score), *others) = store.similarity_search_with_score("When does the boat leave?", k=3)
    assert best == Document(id="boat", page_content=BOAT, metadata={"floor": 1})
    assert 1 >= score >= max(other for _, other in others) >= 0
    assert store.similarity_search("the boat", 3, filter={"floor": {"$gte": 2}})[0].id == "cake"
    assert store.similarity_search_with_relevance_scores("the boat", 3, score_threshold=0.5)[0][0] == best
    retriever = store.as_retriever(search_kwargs={"k": 1, "filter": {"floor": [0, 2]}})
    assert [document.id for document in retriever.invoke("boat or pump")] == ["pump"]


async def test_async_finds_the_same_and_leaves_the_loop_alive(store: TrimemVectorStore) -> None:
    async with loop_alive():
        (added,) = await store.aadd_documents([Document("The red barn burns.", metadata={"floor": 3})])
        found = await store.asimilarity_search_with_score("the barn", 2, filter={"floor": [1, 3]})
        scored = await store.asimilarity_search_with_relevance_scores("the barn", 1)
        (got,) = await store.aget_by_ids([added])
        await store.adelete([added])
        assert await store.aget_by_ids([added]) == []
    assert found[0][0] == scored[0][0] == got


def test_a_text_without_an_id_is_there_once(store: TrimemVectorStore, bank: ExplicitBank) -> None:
    first = store.add_texts(["The red barn burns."])
    assert store.add_documents([Document("The red barn burns."), Document(PUMP, id="pump")]) == [*first, "pump"]
    bank.remember("The red barn burns.", namespace="acme")
    assert bank.stats().documents == 4
    assert store.add_texts([]) == []


def test_a_long_text_is_found_in_pieces_and_got_whole(store: TrimemVectorStore) -> None:
    long = " ".join(f"The red barn number {i} burns." for i in range(40))
    store.add_texts([long], ids=["barns"])
    pieces = store.similarity_search("the red barn", 2)
    assert [piece.id for piece in pieces] == ["barns", "barns"]
    assert all(len(piece.page_content) < len(long) for piece in pieces)
    assert [document.page_content for document in store.get_by_ids(["barns"])] == [long]


def test_what_is_changed_outside_stays_outside(store: TrimemVectorStore) -> None:
    for found in (store.get_by_ids(["pump"]), store.similarity_search("pump", 1)):
        found[0].metadata["tags"].append("b")
    assert store.get_by_ids(["pump"])[0].metadata["tags"] == ["a"]


def test_deleting_all(store: TrimemVectorStore, bank: ExplicitBank) -> None:
    bank.remember(PUMP, namespace="other")
    assert store.delete([])
    assert bank.stats(namespace="acme").documents == 3
    assert store.delete()
    assert bank.stats().namespaces == {("other",): 1}


def test_from_texts(tmp_path: Path, tiny_llama: LanguageModel, bank: ExplicitBank) -> None:
    store = TrimemVectorStore.from_texts([PUMP, BOAT], None, [{"n": 1}, {"n": 2}], bank=bank, namespace="acme")
    assert store.similarity_search("boat", 1)[0].metadata == {"n": 2}
    embedding = DeterministicFakeEmbedding(size=6)
    documents = [Document(PUMP, id="pump")]
    path = tmp_path / "new"
    made = TrimemVectorStore.from_documents(documents, embedding, path=path, model=tiny_llama, namespace="acme")
    assert made.get_by_ids(["pump"]) == documents
    made.bank.close()
    with pytest.raises(FingerprintMismatch):
        TrimemVectorStore.from_texts([BOAT], None, path=path, model=tiny_llama, namespace="acme")
    for wrong in (
        {},
        {"bank": bank, "path": path},
        {"bank": bank, "embedding": embedding},
        {"bank": bank, "model": "x"},
    ):
        with pytest.raises(InvalidInputError):
            TrimemVectorStore.from_texts([PUMP], namespace="acme", **wrong)


def test_wrong_arguments(bank: ExplicitBank) -> None:
    with pytest.raises(InvalidNamespaceError):
        TrimemVectorStore(bank, "")
    with pytest.raises(InvalidInputError, match="one length"):
        TrimemVectorStore(bank, "acme").add_texts([PUMP], ids=["a", "b"])
    assert "Bank(" not in repr(TrimemVectorStore(bank, "acme"))
