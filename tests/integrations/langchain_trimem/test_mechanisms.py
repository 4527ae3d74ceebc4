"""Memories, retrievers and chat over every bank there is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from langchain_trimem import (
    BankMemory,
    BankRetriever,
    ChatTrimem,
    ExplicitMemory,
    ResonanceMemory,
    ResonanceRetriever,
    TransitMemory,
    TransitRetriever,
)
from tests import tools_template
from tests.contracts.bank import BOAT, CAKE, PUMP
from tests.contracts.tenants import TenantsContract
from tests.loop import loop_alive
from trimem import Bank, ResonanceBank, TransitBank
from trimem.text.encoders import Encoder
from trimem.text.quoting import HEADER

BANKS: dict[str, tuple[type[Bank], type[BankMemory], type[BankRetriever]]] = {
    "resonance": (ResonanceBank, ResonanceMemory, ResonanceRetriever),
    "transit": (TransitBank, TransitMemory, TransitRetriever),
}


class Mechanism:
    """A bank of one mechanism, and what LangChain makes of it."""

    name: str

    @pytest.fixture
    def bank(self, tmp_path: Path, encoder: Encoder) -> Iterator[Bank]:
        with BANKS[self.name][0].open(tmp_path / "bank", encoder=encoder) as bank:  # type: ignore[attr-defined]
            yield bank

    def memory(self, bank: Bank) -> BankMemory:
        return BANKS[self.name][1](bank=bank, namespace="acme")

    def retriever(self, bank: Bank) -> BankRetriever:
        return BANKS[self.name][2](bank=bank, namespace="acme")

    async def test_a_memory_recalls_and_forgets(self, bank: Bank, tmp_path: Path) -> None:
        memory = self.memory(bank)
        memory.save_context({"input": PUMP}, {"output": "I see."})
        async with loop_alive():
            await memory.asave_context({"input": BOAT}, {"output": "Oh."})
            recalled = await memory.aload_memory_variables({"input": "When does the boat leave?"})
        assert recalled == memory.load_memory_variables({"input": "When does the boat leave?"})
        assert recalled["history"].startswith(HEADER)
        assert BOAT in recalled["history"]
        memory.clear()
        assert memory.load_memory_variables({"input": "boat"}) == {"history": ""}
        assert not any(b"harbour" in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())

    async def test_a_retriever_finds_in_scope(self, bank: Bank) -> None:
        bank.remember([PUMP, BOAT], namespace="acme", metadata=[{"floor": 0}, {"floor": 1}])
        bank.remember(CAKE, namespace="other")
        retriever = self.retriever(bank)
        found = retriever.invoke("When does the boat leave?")
        assert [document.page_content for document in found] == [BOAT, PUMP]
        assert found[0].metadata["score"] >= found[1].metadata["score"]
        async with loop_alive():
            only = await retriever.ainvoke("the boat", k=1, filter={"floor": 0})
        assert [document.page_content for document in only] == [PUMP]
        assert [document.page_content for document in retriever.invoke("the boat", namespace="other")] == [CAKE]

    def test_a_chat_model_reads_it(self, bank: Bank) -> None:
        lm = tools_template.build()
        bank.remember([PUMP, BOAT], namespace="acme")
        saying = tools_template.saying(lm, "On Tuesday.")
        chat = ChatTrimem(model=lm, bank=bank, namespace="acme", k=1, model_kwargs=saying)
        said = chat.invoke([("system", "Be brief."), ("user", "When does the boat leave?")])
        assert said.content == "On Tuesday."
        (source,) = said.response_metadata["sources"]
        assert source["id"] == bank.recall("When does the boat leave?", 1, namespace="acme")[0].id
        alone = ChatTrimem(model=lm, model_kwargs=saying).invoke("When does the boat leave?")
        read, without = said.usage_metadata, alone.usage_metadata
        assert read is not None
        assert without is not None
        assert read["input_tokens"] > without["input_tokens"] + len(lm.tokenize(BOAT))
        attached = read["input_token_details"]["cache_read"] > 0
        assert attached == (source["attention"] is not None) == bank.attachable

    def test_a_bank_of_another_mechanism_is_refused(self, bank: Bank) -> None:
        with pytest.raises(ValidationError, match=r"takes a trimem.ExplicitBank, got"):
            ExplicitMemory(bank=bank, namespace="acme")


class TestResonance(Mechanism, TenantsContract):
    name = "resonance"

    def write(self, bank: Bank, tenant: str, text: str) -> None:
        ResonanceMemory(bank=bank, namespace=tenant).save_context({"in": text}, {"out": ""})

    def read(self, bank: Bank, tenant: str, query: str) -> str:
        found = [
            ResonanceMemory(bank=bank, namespace=tenant, by=by).load_memory_variables({"in": query})
            for by in ("auto", "sound", "meaning")
        ]
        return str(found)

    def test_what_was_misheard_is_found_by_sound(self, bank: Bank) -> None:
        memory = ResonanceMemory(bank=bank, namespace="acme", k=1, by="sound")
        memory.save_context({"in": "Ilse Marquardt heads finance."}, {"out": "I see."})
        memory.save_context({"in": BOAT}, {"out": "Oh."})
        assert "Marquardt" in memory.load_memory_variables({"in": "ilsa market"})["history"]
        found = ResonanceRetriever(bank=bank, namespace="acme", k=1, by="sound").invoke("the gray bode")
        assert BOAT in found[0].page_content


class TestTransit(Mechanism, TenantsContract):
    name = "transit"

    def write(self, bank: Bank, tenant: str, text: str) -> None:
        TransitMemory(bank=bank, namespace=tenant).save_context({"in": text}, {"out": ""})

    def read(self, bank: Bank, tenant: str, query: str) -> str:
        return str(TransitMemory(bank=bank, namespace=tenant).load_memory_variables({"in": query}))
