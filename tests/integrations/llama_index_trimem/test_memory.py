"""LlamaIndex's contracts for memories, which have no official suite; what reads them is real."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.agent.workflow import ReActAgent
from llama_index.core.base.llms.types import (
    ChatMessage,
    CompletionResponse,
    CompletionResponseGen,
    LLMMetadata,
    MessageRole,
)
from llama_index.core.chat_engine import ContextChatEngine, SimpleChatEngine
from llama_index.core.llms import CustomLLM
from llama_index.core.memory import BaseMemory, BaseMemoryBlock, Memory
from llama_index.core.memory.memory import InsertMethod
from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from llama_index_trimem import ExplicitRetriever, TrimemLLM, TrimemMemory, TrimemMemoryBlock
from tests.contracts.bank import BOAT, CAKE, PUMP
from tests.contracts.tenants import TenantsContract
from tests.loop import loop_alive
from trimem import Bank, ExplicitBank, InvalidInputError, InvalidNamespaceError, LanguageModel
from trimem.text.encoders import Encoder
from trimem.text.quoting import HEADER


def user(text: str, **kwargs: Any) -> ChatMessage:
    return ChatMessage(role=MessageRole.USER, content=text, additional_kwargs=kwargs)


def assistant(text: str) -> ChatMessage:
    return ChatMessage(role=MessageRole.ASSISTANT, content=text)


def texts(messages: Sequence[ChatMessage]) -> list[str]:
    return [message.content or "" for message in messages]


# The block


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    """Where ``Memory`` keeps what it has not let go of; its own is never closed."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/chat.sqlite")
    yield engine
    await engine.dispose()


@pytest.fixture
def block(bank: ExplicitBank) -> TrimemMemoryBlock:
    return TrimemMemoryBlock(bank=bank, namespace="ann", k=2)


async def test_a_block_recalls_what_a_session_said(block: TrimemMemoryBlock, bank: ExplicitBank) -> None:
    assert isinstance(block, BaseMemoryBlock)
    said = [user(PUMP), assistant(BOAT), ChatMessage(role="tool", content="tool talk"), user("")]
    await block.aput(said, session_id="s1")
    assert bank.stats(namespace=("ann", "s1")).documents == 2
    notes = await block.aget([user("When does the boat leave?")], session_id="s1")
    assert notes.startswith(HEADER)
    assert f"> assistant: {BOAT}" in notes
    assert "tool talk" not in notes
    assert await block.aget([user("When does the boat leave?")], session_id="s2") == ""
    across = block.model_copy(update={"across_sessions": True})
    assert BOAT in await across.aget([user("When does the boat leave?")], session_id="s2")
    assert await block.aget([assistant("Hm.")], session_id="s1") == await block.aget(None, session_id="s1") == ""


async def test_what_the_model_reads_anyway_is_left_out(block: TrimemMemoryBlock) -> None:
    await block.aput([user(PUMP), user(BOAT)], session_id="s1")
    notes = await block.aget([user(BOAT), assistant("Yes."), user("Which boat?")], session_id="s1")
    assert BOAT not in notes
    assert PUMP in notes


async def test_sessions_must_be_named(block: TrimemMemoryBlock, bank: ExplicitBank) -> None:
    for wrong in (None, ""):
        with pytest.raises(InvalidInputError, match="session"):
            await block.aget([user("boat")], session_id=wrong)
    with pytest.raises(InvalidInputError, match="session"):
        await block.aput([user(PUMP, session_id="s1"), user(BOAT)])
    with pytest.raises(InvalidNamespaceError):
        await block.aput([user(PUMP)], session_id="a/b")
    assert bank.stats().slots == 0, "all or nothing"


async def test_a_block_is_cut_from_its_worst_end(block: TrimemMemoryBlock) -> None:
    await block.aput([user(PUMP), user("The boat is grey.\n\nIt leaks.")], session_id="s")
    content = await block.aget([user("Which boat leaks?")], session_id="s")
    assert content.count("> user") == 2
    tokens = len(block.tokenizer_fn(content))
    less = await block.atruncate(content, 3)
    assert less is not None
    assert "It leaks." in less
    assert PUMP not in less
    assert await block.atruncate(content, tokens - 3) is None


async def test_a_block_forgets_for_good(block: TrimemMemoryBlock, bank: ExplicitBank) -> None:
    await block.aput([user(PUMP)], session_id="s1")
    await block.aput([user(BOAT)], session_id="s2")
    bank.remember(CAKE, namespace="bob")
    assert (await block.aforget("s1")).documents == 1
    assert (await block.aforget()).documents == 1
    assert b"cellar" not in b"".join(file.read_bytes() for file in bank.folder.rglob("*") if file.is_file())
    assert bank.stats().documents == 1


async def test_memory_fills_it_when_it_lets_go(
    block: TrimemMemoryBlock, bank: ExplicitBank, engine: AsyncEngine
) -> None:
    memory = Memory.from_defaults(
        session_id="s", token_limit=120, chat_history_token_ratio=0.4, token_flush_size=20, memory_blocks=[block],
        async_engine=engine,
        insert_method=InsertMethod.USER,
    )  # fmt: skip
    for i in range(6):
        await memory.aput(user(f"{PUMP} Number {i}."))
        await memory.aput(assistant("Noted."))
    assert bank.stats(namespace=("ann", "s")).documents > 2
    await memory.aput(user("What of pump number 0?"))
    read = await memory.aget()
    assert "Number 0." in texts(read)[-1]
    assert HEADER in texts(read)[-1]


async def test_an_eager_block_need_not_wait(bank: ExplicitBank, engine: AsyncEngine) -> None:
    block = TrimemMemoryBlock(bank=bank, namespace="ann", eager=True, across_sessions=True)
    first = Memory.from_defaults(session_id="one", memory_blocks=[block], async_engine=engine)
    await first.aput(user("I drink oolong tea."))
    await first.aget()
    await first.aget()
    assert bank.stats().documents == 1
    second = Memory.from_defaults(session_id="two", memory_blocks=[block], async_engine=engine)
    await second.aput(user("Which tea do I drink?"))
    assert "oolong" in texts(await second.aget())[0]
    reply = assistant("You drink oolong, from a blue cup.")
    await second.aput(reply)
    assert "blue cup" not in await block.aget([user("Which cup?")], session_id="three"), "not shown yet"
    await block.aput([reply], session_id="two")
    assert "blue cup" in await block.aget([user("Which cup?")], session_id="three")
    documents = bank.stats(namespace=("ann", "two")).documents
    await second.aget()
    assert bank.stats(namespace=("ann", "two")).documents == documents, "nothing twice"


# The memory


@pytest.fixture
def memory(bank: ExplicitBank) -> TrimemMemory:
    return TrimemMemory.from_defaults(bank=bank, namespace="ann", session_id="s1")


def test_a_memory_is_a_memory(memory: TrimemMemory, bank: ExplicitBank) -> None:
    assert isinstance(memory, BaseMemory)
    said = [user("Hi.", a=1), assistant("Hello."), ChatMessage(role="tool", content="7", additional_kwargs={"t": "x"})]
    for message in said:
        memory.put(message)
    assert memory.get_all() == said
    assert memory.get() == said
    assert TrimemMemory(bank=bank, namespace="ann", session_id="s1").get_all() == said, "it outlives the object"
    assert TrimemMemory(bank=bank, namespace="ann", session_id="s2").get_all() == []
    memory.set([user(PUMP)])
    assert memory.get_all() == [user(PUMP)]
    memory.reset()
    assert memory.get_all() == memory.get() == memory.get("pump") == []
    assert bank.stats().documents == 0
    assert "ExplicitBank" not in repr(memory)
    assert "bank" not in memory.to_dict()


def test_old_words_are_recalled_when_they_no_longer_fit(bank: ExplicitBank) -> None:
    memory = TrimemMemory.from_defaults(bank=bank, namespace="ann", session_id="s", token_limit=40, k=1)
    memory.put_messages([user(BOAT), assistant("Noted.")])
    for i in range(5):
        memory.put_messages([user(f"{PUMP} Number {i}."), assistant("Noted.")])
    memory.put(user("When does the boat leave?"))
    read = memory.get()
    assert len(read) < 6
    assert texts(read)[-1].startswith(HEADER)
    assert BOAT in texts(read)[-1]
    assert texts(read)[-1].endswith("When does the boat leave?")
    assert memory.get_all()[-1] == user("When does the boat leave?"), "notes are read, not kept"
    before = memory.get(input="the grey boat")
    assert BOAT in texts(before)[-1]
    assert memory.get() == read, "reading changes nothing"


async def test_async_is_the_same_and_leaves_the_loop_alive(memory: TrimemMemory) -> None:
    await memory.aput(user(PUMP))
    async with loop_alive():
        await memory.aput_messages([user(BOAT), assistant("Noted."), user("And the boat?")])
        read, every = await memory.aget(), await memory.aget_all()
    assert (read, every) == (memory.get(), memory.get_all())
    async with loop_alive():
        await memory.aset([user(CAKE)])
        await memory.areset()
    assert await memory.aget_all() == []


async def test_sessions_and_users_are_apart(bank: ExplicitBank) -> None:
    def of(namespace: str, session: str, **how: Any) -> TrimemMemory:
        return TrimemMemory.from_defaults(bank=bank, namespace=namespace, session_id=session, **how)

    one = of("ann", "one")
    await one.aput(user("I drink oolong tea."))
    other, wide, bob = of("ann", "two"), of("ann", "two", across_sessions=True), of("bob", "one", across_sessions=True)
    for each in (other, bob):
        assert each.get("Which tea do I drink?") == []
    assert "oolong" in texts(wide.get("Which tea do I drink?"))[0]
    other.reset()
    await bob.aforget()
    assert len(one.get_all()) == 1
    await wide.aforget()
    assert one.get_all() == []


def test_wrong_arguments(bank: ExplicitBank) -> None:
    with pytest.raises(ValidationError, match="session"):
        TrimemMemory(bank=bank, namespace="ann", session_id="")
    with pytest.raises(ValidationError, match="bank"):
        TrimemMemory(bank="bank", namespace="ann", session_id="s")  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="namespace"):
        TrimemMemory(bank=bank, namespace="", session_id="s")


# Engines and agents, with a model that really reads


@pytest.fixture(scope="module")
def bank_of_smollm(tmp_path_factory: pytest.TempPathFactory, smollm: LanguageModel, encoder: Encoder) -> Any:
    with ExplicitBank.open(tmp_path_factory.mktemp("bank"), model=smollm, encoder=encoder) as bank:
        yield bank


async def test_chat_engines_run_with_it(bank_of_smollm: ExplicitBank, smollm: LanguageModel) -> None:
    bank, llm = bank_of_smollm, TrimemLLM(model=smollm, max_tokens=24)
    old = TrimemMemory.from_defaults(bank=bank, namespace="ann", session_id="one")
    old.put_messages([user("My boat is called Gudrun."), assistant("What a name!")])
    memory = TrimemMemory.from_defaults(bank=bank, namespace="ann", session_id="two", across_sessions=True)
    engine = SimpleChatEngine.from_defaults(llm=llm, memory=memory)
    async with loop_alive(0.5):
        answer = await engine.achat("What is my boat called?")
    assert "Gudrun" in str(answer)
    stream = await engine.astream_chat("Is it a good name?")
    pieces = [piece async for piece in stream.async_response_gen()]
    assert len(pieces) > 1
    assert len(memory.get_all()) == 4
    bank.remember(BOAT, namespace="harbour", compile=False)
    context = ContextChatEngine.from_defaults(ExplicitRetriever(bank, "harbour"), llm=llm, memory=memory)
    assert "Tuesday" in str(context.chat("When does the grey boat leave the harbour?"))
    assert len(memory.get_all()) == 6


class Scripted(CustomLLM):
    """Says the same whatever it reads, and keeps what that was."""

    read: list[str] = []  # noqa: RUF012 - pydantic copies it

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata()

    def complete(self, prompt: str, formatted: bool = False, **_: Any) -> CompletionResponse:
        self.read.append(prompt)
        return CompletionResponse(text="Thought: I know.\nAnswer: Gudrun.")

    def stream_complete(self, prompt: str, formatted: bool = False, **_: Any) -> CompletionResponseGen:
        yield self.complete(prompt)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # LlamaIndex looks at fields as pydantic 1 had them
async def test_agents_run_with_it(bank: ExplicitBank) -> None:
    TrimemMemory(bank=bank, namespace="ann", session_id="one").put(user("My boat is called Gudrun."))
    memory = TrimemMemory(bank=bank, namespace="ann", session_id="two", across_sessions=True)
    llm = Scripted()
    handler = ReActAgent(llm=llm, tools=[], streaming=True).run("What is my boat called?", memory=memory)
    assert [event async for event in handler.stream_events()]
    assert "Gudrun" in str(await handler)
    assert "> user: My boat is called Gudrun." in llm.read[0]
    assert [message.role.value for message in memory.get_all()] == ["user", "assistant"]


class TestTenants(TenantsContract):
    def write(self, bank: Bank, tenant: str, text: str) -> None:
        TrimemMemory(bank=bank, namespace=tenant, session_id="s").put(user(text))  # type: ignore[arg-type]

    def read(self, bank: Bank, tenant: str, query: str) -> str:
        memory = TrimemMemory(bank=bank, namespace=tenant, session_id="t", across_sessions=True)  # type: ignore[arg-type]
        return "\n".join(texts([*memory.get(query), *memory.get_all()]))


class TestTenantsOfABlock(TenantsContract):
    def write(self, bank: Bank, tenant: str, text: str) -> None:
        asyncio.run(TrimemMemoryBlock(bank=bank, namespace="all").aput([user(text)], session_id=tenant))

    def read(self, bank: Bank, tenant: str, query: str) -> str:
        return asyncio.run(TrimemMemoryBlock(bank=bank, namespace="all").aget([user(query)], session_id=tenant))
