"""Banks where LangChain's memories stood: in its old chains and in pipes, sync and async."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest
from langchain_classic.base_memory import BaseMemory
from langchain_classic.chains import ConversationChain
from langchain_core.documents import Document
from langchain_core.language_models import FakeListChatModel
from langchain_core.load import dumps
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder, PromptTemplate
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from pydantic import ValidationError

from langchain_trimem import BankMemory, ExplicitMemory, ExplicitRetriever
from tests.contracts.bank import BOAT, CAKE, PUMP
from tests.contracts.tenants import TenantsContract
from tests.loop import loop_alive
from trimem import Bank, ExplicitBank, InvalidInputError, InvalidNamespaceError
from trimem.text.quoting import HEADER

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


@pytest.fixture
def memory(bank: ExplicitBank) -> ExplicitMemory:
    return ExplicitMemory(bank=bank, namespace="acme", clock=lambda: NOON)


class TestTenants(TenantsContract):
    def write(self, bank: Bank, tenant: str, text: str) -> None:
        BankMemory(bank=bank, namespace="all", session_key="who").session(tenant).save_context(
            {"in": text}, {"out": "Yes."}
        )

    def read(self, bank: Bank, tenant: str, query: str) -> str:
        memory = BankMemory(bank=bank, namespace="all", session_key="who", k=9)
        return str(memory.load_memory_variables({"in": query, "who": tenant}))


def test_turns_are_recalled_in_their_order_as_quotations(memory: ExplicitMemory) -> None:
    assert isinstance(memory, BaseMemory)
    assert memory.memory_variables == ["history"]
    assert memory.load_memory_variables({"input": "Hello?"}) == {"history": ""}
    memory.save_context({"input": PUMP}, {"output": "I see."})
    memory.save_context({"input": CAKE}, {"output": "Eleven!\nSo many."})
    memory.k = 9
    said = memory.load_memory_variables({"input": "What about the pump?"})["history"]
    assert said == (
        f"{HEADER}\n\n> Human (1 May 2026): {PUMP}\n\n> AI (1 May 2026): I see."
        f"\n\n> Human (1 May 2026): {CAKE}\n\n> AI (1 May 2026): Eleven!\n> So many."
    )
    memory.k = 1
    assert PUMP in memory.load_memory_variables({"input": "What about the pump?"})["history"]
    assert memory.load_memory_variables({"input": " "}) == {"history": ""}


def test_it_may_return_messages_or_documents(memory: ExplicitMemory) -> None:
    messages = memory.model_copy(update={"return_messages": True})
    assert messages.load_memory_variables({"input": "pump"}) == {"history": []}
    memory.save_context({"input": HumanMessage(PUMP)}, {"output": AIMessage("")})
    assert memory.bank.stats().documents == 1, "an empty turn is none"
    (message,) = messages.load_memory_variables({"input": "pump"})["history"]
    assert isinstance(message, HumanMessage)
    assert message.content == memory.load_memory_variables({"input": "pump"})["history"]
    (document,) = memory.model_copy(update={"return_docs": True}).load_memory_variables({"input": "pump"})["history"]
    assert isinstance(document, Document)
    assert document.metadata["speaker"] == "Human"
    assert document.metadata["time"] == NOON.isoformat()


async def test_async_does_the_same_and_leaves_the_loop_alive(memory: ExplicitMemory) -> None:
    async with loop_alive():
        await memory.asave_context({"input": PUMP}, {"output": "I see."})
        found = await asyncio.gather(*(memory.aload_memory_variables({"input": "pump"}) for _ in range(3)))
    assert found == [memory.load_memory_variables({"input": "pump"})] * 3
    async with loop_alive():
        await memory.aclear()
    assert memory.load_memory_variables({"input": "pump"}) == {"history": ""}


def test_turns_may_fade_and_must_be_trusted(memory: ExplicitMemory) -> None:
    memory.bank.remember(CAKE, namespace="acme", trust=0.2)
    memory.min_trust, memory.ttl = 0.5, timedelta(days=1)
    memory.save_context({"input": PUMP}, {"output": "I see."})
    said = memory.load_memory_variables({"input": "The pump? The cake?"})["history"]
    assert PUMP in said
    assert CAKE not in said
    memory.ttl = timedelta(microseconds=1)
    memory.save_context({"input": BOAT}, {"output": "Oh."})
    assert BOAT not in memory.load_memory_variables({"input": "the boat"})["history"]


def test_clearing_leaves_no_bytes(memory: ExplicitMemory, tmp_path: Path) -> None:
    secret = "The secret word is xq742zz."
    memory.save_context({"input": secret}, {"output": secret.upper()})
    memory.bank.remember(BOAT, namespace="other")

    def left() -> int:
        files = [file.read_bytes().lower() for file in tmp_path.rglob("*") if file.is_file()]
        return sum(data.count(b"xq742zz") for data in files)

    assert left() > 1
    assert memory.clear() is None  # type: ignore[func-returns-value]
    assert left() == 0
    assert memory.bank.stats().namespaces == {("other",): 1}


def test_sessions_do_not_see_each_other(bank: ExplicitBank) -> None:
    memory = ExplicitMemory(bank=bank, namespace=("acme", "calls"), session_key="session", input_key="question")
    memory.save_context({"question": PUMP, "session": "one"}, {"answer": "I see."})
    memory.save_context({"question": BOAT, "session": "two"}, {"answer": "Oh."})
    assert PUMP not in memory.load_memory_variables({"question": "the pump", "session": "two"})["history"]
    assert PUMP in memory.load_memory_variables({"question": "the pump", "session": "one"})["history"]
    memory.session("one").clear()
    assert bank.stats().namespaces == {("acme", "calls", "two"): 2}
    memory.clear()
    assert bank.stats().slots == 0
    with pytest.raises(InvalidInputError, match=r"'session', which is missing"):
        memory.load_memory_variables({"question": "the pump"})
    with pytest.raises(InvalidNamespaceError):
        memory.save_context({"question": PUMP, "session": "one/two"}, {"answer": "No."})


def test_inputs_and_outputs_must_be_clear(memory: ExplicitMemory) -> None:
    with pytest.raises(InvalidInputError, match=r"input_key must say which of \['a', 'b'\]"):
        memory.load_memory_variables({"a": "x", "b": "y"})
    with pytest.raises(InvalidInputError, match="output_key must say"):
        memory.save_context({"a": "x"}, {"b": "y", "c": "z"})
    memory.input_key, memory.output_key = "b", "c"
    assert memory.load_memory_variables({"a": 1, "b": "y"}) == {"history": ""}
    with pytest.raises(InvalidInputError, match="'b' is missing"):
        memory.load_memory_variables({"a": "x"})
    with pytest.raises(InvalidInputError, match="must be a string or a message, got int"):
        memory.load_memory_variables({"b": 1})
    memory.save_context({"a": 1, "b": PUMP}, {"b": 2, "c": CAKE})
    assert memory.bank.stats().documents == 2


def test_a_bank_of_another_kind_is_refused(bank: ExplicitBank) -> None:
    with pytest.raises(ValidationError, match=r"takes a trimem.ExplicitBank, got dict"):
        ExplicitMemory(bank={}, namespace="acme")  # type: ignore[arg-type]
    with pytest.raises(ValidationError):
        ExplicitMemory(bank=bank)  # type: ignore[call-arg]


def test_nothing_of_the_memory_shows(memory: ExplicitMemory) -> None:
    memory.save_context({"input": PUMP}, {"output": "I see."})
    for shown in (repr(memory), str(memory), dumps(memory)):
        assert "pump" not in shown
        assert "Bank(" not in shown


PROMPT = "{history}\n\n{input}"


def heard(model: FakeListChatModel, seen: list[str]) -> RunnableLambda[Any, BaseMessage]:
    def listen(prompt: Any) -> BaseMessage:
        seen.append(prompt.to_string())
        return model.invoke(prompt)

    return RunnableLambda(listen)


def conversation(model: FakeListChatModel, memory: ExplicitMemory) -> ConversationChain:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the chain's own, told once a process
        return ConversationChain(llm=model, memory=memory, prompt=PromptTemplate.from_template(PROMPT))


def test_it_stands_in_a_conversation_chain(memory: ExplicitMemory) -> None:
    model = FakeListChatModel(responses=["It is blue.", "You asked that."])
    chain = conversation(model, memory)
    assert chain.invoke({"input": "What colour is the pump?"})["response"] == "It is blue."
    assert "It is blue." in chain.invoke({"input": "What colour did I ask about?"})["history"]
    assert memory.bank.stats(namespace="acme").documents == 4


async def test_it_stands_in_an_asynchronous_conversation_chain(memory: ExplicitMemory) -> None:
    model = FakeListChatModel(responses=["It is blue.", "You asked that."])
    chain = conversation(model, memory)
    async with loop_alive():
        await chain.ainvoke({"input": "What colour is the pump?"})
        assert "It is blue." in (await chain.ainvoke({"input": "What colour did I ask about?"}))["history"]


@pytest.mark.parametrize("messages", [False, True])
async def test_it_stands_in_a_pipe(memory: ExplicitMemory, messages: bool) -> None:
    memory.return_messages = messages
    prompt: Any = PromptTemplate.from_template(PROMPT)
    if messages:
        prompt = ChatPromptTemplate.from_messages([MessagesPlaceholder("history"), ("user", "{input}")])
    load: Callable[..., Any] = memory.load_memory_variables
    seen: list[str] = []
    recalled = RunnableLambda(load, memory.aload_memory_variables) | itemgetter("history")
    chain = RunnablePassthrough.assign(history=recalled) | prompt | heard(FakeListChatModel(responses=["Yes."]), seen)
    memory.save_context({"input": PUMP}, {"output": "I see."})
    chain.invoke({"input": "What runs at nine bar?"})
    await chain.ainvoke({"input": "What runs at nine bar?"})
    assert PUMP in seen[0]
    assert seen[0] == seen[1]


def test_it_shares_its_bank_with_a_retriever(memory: ExplicitMemory, bank: ExplicitBank) -> None:
    memory.save_context({"input": PUMP}, {"output": "I see."})
    assert PUMP in ExplicitRetriever(bank=bank, namespace="acme", k=1).invoke("pump")[0].page_content
