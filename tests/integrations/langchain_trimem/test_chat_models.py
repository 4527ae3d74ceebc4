"""The official suites for chat models, and what they do not ask: memory, tools, tenants, the event loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.caches import InMemoryCache
from langchain_core.globals import set_llm_cache
from langchain_core.language_models import BaseChatModel
from langchain_core.load import dumps
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage, ToolMessage
from langchain_core.runnables import ConfigurableField
from langchain_core.tools import tool
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests
from pydantic import ValidationError

from langchain_trimem import ChatTrimem, memory_tools
from langchain_trimem.chat_models import as_messages
from tests import tools_template
from tests.contracts.bank import BOAT, PUMP
from tests.contracts.tenants import TENANTS, TenantsContract
from tests.loop import loop_alive
from trimem import (
    Bank,
    CalibrationNotFoundError,
    ContextLengthError,
    ExplicitBank,
    FingerprintMismatch,
    InvalidInputError,
    LanguageModel,
    UnfinishedCallError,
    UnsupportedModelError,
)
from trimem.text.encoders import Encoder


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return tools_template.build()


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory, lm: LanguageModel, encoder: Encoder) -> Iterator[ExplicitBank]:
    with ExplicitBank.open(tmp_path_factory.mktemp("bank"), model=lm, encoder=encoder) as bank:
        yield bank


@pytest.fixture
def chat(filled: ExplicitBank) -> ChatTrimem:
    return ChatTrimem(bank=filled, namespace="acme", k=2, max_tokens=8)


class Suite:
    """A model with a filled bank, for the official suites."""

    @pytest.fixture(autouse=True)
    def _filled(self, filled: ExplicitBank) -> None:
        self.bank = filled

    @pytest.fixture
    def benchmark(self) -> Callable[[Callable[[], None]], None]:
        return lambda function: function()  # the plugin that measures is not loaded

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatTrimem

    @property
    def chat_model_params(self) -> dict[str, Any]:
        bias = {"sequence_bias": self.to_the_point(self.bank)}
        return {"bank": self.bank, "namespace": "acme", "k": 2, "model_kwargs": bias}

    @staticmethod
    def to_the_point(bank: ExplicitBank) -> list[Any]:
        """A random model has nothing to say: made to call a tool, it counts to three and ends whatever may end."""
        wanted = {'"': 90.0, "}": 60.0, ",": 45.0, "3": 30.0}
        return [[bank.model.tokenize(text), bias] for text, bias in wanted.items()]

    @property
    def has_structured_output(self) -> bool:
        return True


class TestUnit(Suite, ChatModelUnitTests):
    pass


class TestIntegration(Suite, ChatModelIntegrationTests):
    @property
    def standard_chat_model_params(self) -> dict[str, Any]:
        return {**super().standard_chat_model_params, "max_tokens": 160}

    @pytest.mark.xfail(reason="a random model does not know what it is to say")
    def test_bind_runnables_as_tools(self, model: BaseChatModel) -> None:
        super().test_bind_runnables_as_tools(model)

    @pytest.mark.xfail(reason="a random model does not know what it is to say")
    def test_unicode_tool_call_integration(self, model: BaseChatModel, **options: Any) -> None:
        super().test_unicode_tool_call_integration(model, **options)

    @pytest.mark.xfail(reason="a random model calls nothing of its own accord")
    def test_agent_loop(self, model: BaseChatModel) -> None:
        super().test_agent_loop(model)


class TestTenants(TenantsContract):
    def write(self, bank: Bank, tenant: str, text: str) -> None:
        bank.remember(text, namespace=tenant)

    def read(self, bank: Bank, tenant: str, query: str) -> str:
        message = ChatTrimem(bank=bank, namespace=tenant, k=9, max_tokens=1).invoke(query)
        keys = [source["document"] for source in message.response_metadata["sources"]]
        return str([text.text for who in TENANTS for text in bank.get(keys, namespace=who)])


def test_it_reads_what_it_finds_and_names_its_sources(chat: ChatTrimem, filled: ExplicitBank) -> None:
    said = chat.invoke("When does the boat leave?")
    answer = filled.ask("When does the boat leave?", namespace="acme", k=2, max_new_tokens=8)
    assert said.content == answer.text
    sources = said.response_metadata["sources"]
    assert [source["id"] for source in sources] == [hit.id for hit in answer.hits]
    assert sources[0]["source"] == "1.md"
    assert sum(source["attention"] for source in sources) == pytest.approx(1)
    assert said.usage_metadata == {
        "input_tokens": answer.prompt_tokens + answer.memory_tokens,
        "output_tokens": 8,
        "total_tokens": answer.prompt_tokens + answer.memory_tokens + 8,
        "input_token_details": {"cache_read": answer.memory_tokens},
    }
    assert said.response_metadata["finish_reason"] == "length"
    assert BOAT not in str(said.response_metadata)


def test_a_conversation_is_understood(chat: ChatTrimem, filled: ExplicitBank) -> None:
    talk = [
        SystemMessage("Be brief."),
        HumanMessage("When does the boat leave?"),
        AIMessage("Tuesday."),
        HumanMessage("From?"),
    ]
    history = [{"role": "user", "content": talk[1].text}, {"role": "assistant", "content": "Tuesday."}]
    answer = filled.ask("From?", namespace="acme", k=2, history=history, system="Be brief.", max_new_tokens=8)
    said = chat.invoke(talk)
    assert said.content == answer.text
    assert [source["id"] for source in said.response_metadata["sources"]] == [hit.id for hit in answer.hits]


def test_it_speaks_without_a_bank(lm: LanguageModel) -> None:
    said = ChatTrimem(model=lm, max_tokens=4).invoke("Hello")
    assert said.usage_metadata is not None
    assert said.usage_metadata["output_tokens"] == 4
    assert said.response_metadata["sources"] == []


async def test_all_ways_to_speak_say_the_same_and_leave_the_loop_alive(chat: ChatTrimem, lm: LanguageModel) -> None:
    chat.model_kwargs, chat.max_tokens = tools_template.saying(lm, "It is in the cellar."), 40
    said = chat.invoke("Where is the pump?")
    streamed = list(chat.stream("Where is the pump?"))
    async with loop_alive():
        told = await chat.ainvoke("Where is the pump?")
        parts = [part async for part in chat.astream("Where is the pump?")]
    for pieces in (streamed, parts):
        assert len(pieces) > 3
        whole = pieces[0]
        for piece in pieces[1:]:
            whole = whole + piece
        assert isinstance(whole, AIMessageChunk)
        assert whole.chunk_position == "last"
        assert whole.text.strip() == said.text
        assert whole.usage_metadata == said.usage_metadata
        assert whole.response_metadata["sources"] == said.response_metadata["sources"]
    assert told.content == said.content


async def test_many_are_answered_at_once(chat: ChatTrimem) -> None:
    questions: list[Any] = ["Where is the pump?", "When does the boat leave?", "How many eggs?"]
    alone = [chat.invoke(question).content for question in questions]
    async with loop_alive():
        together = await chat.abatch(questions)
    assert [each.content for each in together] == alone


async def test_who_stops_listening_ends_the_generation(chat: ChatTrimem, lm: LanguageModel) -> None:
    chat.max_tokens, chat.model_kwargs = 2000, tools_template.saying(lm, "a b c d e " * 180)
    spoken = chat.astream("Where is the pump?")
    async with loop_alive():
        await anext(spoken)
        await spoken.aclose()  # type: ignore[attr-defined]  # LangChain calls a generator an iterator
    await silence()
    hearing = asyncio.create_task(chat.ainvoke("Where is the pump?"))
    await asyncio.sleep(0.3)
    hearing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hearing
    await silence()
    for _ in chat.stream("Where is the pump?"):
        break
    await silence()


async def silence() -> None:
    """Wait until nobody speaks, for less time than it takes to say all."""
    until = time.perf_counter() + 5
    while any("trimem-stream" in thread.name for thread in threading.enumerate()):
        assert time.perf_counter() < until, "somebody still speaks"
        await asyncio.sleep(0.01)


def test_words_that_stop(filled: ExplicitBank, lm: LanguageModel) -> None:
    saying = tools_template.saying(lm, "one, two; three. four")
    chat = ChatTrimem(bank=filled, namespace="acme", k=1, stop_sequences=["."], model_kwargs=saying)
    assert chat.invoke("Count.").content == "one, two; three"
    said = chat.invoke("Count.", stop=[","])
    assert (said.content, said.response_metadata["finish_reason"]) == ("one", "stop")


def test_everything_may_be_said_anew_with_a_call(chat: ChatTrimem) -> None:
    said = chat.bind(namespace="other", k=9, max_tokens=3).invoke("Whose is the red pump?")
    assert len(said.response_metadata["sources"]) == 1
    assert said.usage_metadata["output_tokens"] == 3  # type: ignore[index]
    only = chat.invoke("Where is the pump?", filter={"floor": 2})
    assert [source["source"] for source in only.response_metadata["sources"]] == ["2.md"]
    sampled = [chat.invoke("Hello", temperature=2.0, seed=seed).content for seed in (1, 1, 2)]
    assert sampled[0] == sampled[1] != sampled[2]


def test_its_fields_hold_where_a_call_says_nothing(filled: ExplicitBank) -> None:
    def read(**fields: Any) -> list[str]:
        chat = ChatTrimem(bank=filled, namespace="acme", max_tokens=2, **fields)
        return [source["source"] for source in chat.invoke("Where is the pump?").response_metadata["sources"]]

    filled.remember("The pump is sold.", namespace="acme", metadata={"source": "rumour.md"}, trust=0.2)
    assert "rumour.md" in read(k=9)
    assert "rumour.md" not in read(k=9, min_trust=0.5)
    filled.forget(namespace="acme", where={"source": "rumour.md"})
    assert read(filter={"floor": 2}) == ["2.md"]
    assert len(read(k=1)) == 1
    for chat in (mixed := ChatTrimem(bank=filled, namespace="acme", read="mixed"), mixed.bind_tools([add])):
        with pytest.raises(CalibrationNotFoundError):
            chat.invoke("Where is the pump?")


def test_how_it_speaks(lm: LanguageModel) -> None:
    def said(**fields: Any) -> AIMessage:
        return ChatTrimem(model=lm, max_tokens=24, **fields).invoke("Hello")

    greedy = said()
    assert said(temperature=0).content == said(temperature=1e-45).content == greedy.content
    warm = [said(temperature=2.0, model_kwargs={"seed": seed}).content for seed in (1, 1, 2)]
    assert warm[0] == warm[1] != warm[2]
    hurried = said(timeout=1e-6)
    assert hurried.usage_metadata is not None
    assert hurried.usage_metadata["output_tokens"] == 1


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call>'


@pytest.mark.parametrize("text", [f"Let me see.\n{CALL}", '{"name": "add", "parameters": {"a": 1, "b": 2}}'])
def test_tools_are_called(filled: ExplicitBank, lm: LanguageModel, text: str) -> None:
    spoken = "Let me see." if "see" in text else ""

    saying = tools_template.saying(lm, text)
    chat = ChatTrimem(bank=filled, namespace="acme", k=1, model_kwargs=saying).bind_tools([add])
    said = chat.invoke("What is one and two?")
    assert said.content == spoken
    ((name, args),) = [(call["name"], call["args"]) for call in said.tool_calls]
    assert (name, args) == ("add", {"a": 1, "b": 2})
    assert len(said.response_metadata["sources"]) == 1, "memory is read beside tools"
    whole: Any = None
    for piece in chat.stream("What is one and two?"):
        whole = piece if whole is None else whole + piece
    assert whole.text.strip() == spoken
    assert [(call["name"], call["args"]) for call in whole.tool_calls] == [(name, args)]


def test_the_result_of_a_tool_is_read(filled: ExplicitBank, lm: LanguageModel) -> None:
    chat = ChatTrimem(bank=filled, namespace="acme", k=1, model_kwargs=tools_template.saying(lm, "Three."))
    call = {"name": "add", "args": {"a": 1, "b": 2}, "id": "1", "type": "tool_call"}
    talk = [HumanMessage("Add."), AIMessage("", tool_calls=[call]), ToolMessage("3", tool_call_id="1")]
    said = chat.bind_tools([add]).invoke(talk)
    assert (said.content, said.tool_calls) == ("Three.", [])
    assert as_messages(talk)[1]["tool_calls"][0]["function"] == {"name": "add", "arguments": {"a": 1, "b": 2}}


async def test_it_drives_an_agent_that_remembers(bank: ExplicitBank, lm: LanguageModel) -> None:
    call = '<tool_call>{"name": "remember", "arguments": {"text": "Ann takes her tea with milk."}}</tool_call>'
    chat = ChatTrimem(bank=bank, namespace="agent", model_kwargs=tools_template.saying(lm, call, "Noted."))
    agent = create_agent(chat, memory_tools(bank, "agent"))
    said = await agent.ainvoke({"messages": [HumanMessage("I take my tea with milk. Remember that.")]})
    assert [type(message).__name__ for message in said["messages"]] == [
        "HumanMessage",
        "AIMessage",
        "ToolMessage",
        "AIMessage",
    ]
    assert said["messages"][-1].content == "Noted."
    assert "milk" in bank.recall("tea", 1, namespace="agent")[0].text


def test_a_tenant_may_be_chosen_by_configuration(chat: ChatTrimem) -> None:
    chosen = chat.configurable_fields(namespace=ConfigurableField(id="tenant"))
    said = chosen.invoke("Whose is the red pump?", {"configurable": {"tenant": "other"}})
    assert len(said.response_metadata["sources"]) == 1


def test_a_broken_call_is_reported(filled: ExplicitBank, lm: LanguageModel) -> None:
    saying = tools_template.saying(lm, '<tool_call>{"name": add}</tool_call>')
    said = ChatTrimem(bank=filled, namespace="acme", model_kwargs=saying).bind_tools([add]).invoke("Add.")
    assert said.tool_calls == []
    assert said.invalid_tool_calls[0]["args"] == '{"name": add}'


def test_tools_a_model_cannot_call_are_refused(tiny_llama: LanguageModel, lm: LanguageModel) -> None:
    with pytest.raises(UnsupportedModelError, match="calls no tools"):
        ChatTrimem(model=tiny_llama).bind_tools([add])
    with pytest.raises(InvalidInputError, match=r"tool, which are add, got 'subtract'"):
        ChatTrimem(model=lm).bind_tools([add], tool_choice="subtract")
    assert ChatTrimem(model=lm, max_tokens=1).bind_tools([add], tool_choice="none").invoke("Add.").tool_calls == []


@tool
def subtract(a: int, b: int) -> int:
    """Subtract a number from another."""
    return a - b


CHOICES: list[tuple[Any, set[str]]] = [
    ("any", {"add", "subtract"}),
    ("required", {"add", "subtract"}),
    (True, {"add", "subtract"}),
    ("subtract", {"subtract"}),
    ({"type": "function", "function": {"name": "add"}}, {"add"}),
]


@pytest.mark.parametrize(("choice", "names"), CHOICES)
def test_a_tool_is_called_where_one_must_be(filled: ExplicitBank, choice: Any, names: set[str]) -> None:
    bias = {"sequence_bias": Suite.to_the_point(filled)}
    chat = ChatTrimem(bank=filled, namespace="acme", k=1, max_tokens=120, model_kwargs=bias)
    said = chat.bind_tools([add, subtract], tool_choice=choice).invoke("Where is the pump?")
    ((name, args),) = [(call["name"], call["args"]) for call in said.tool_calls]
    assert name in names
    assert args == {"a": 3, "b": 3}
    assert len(said.response_metadata["sources"]) == 1, "memory is read all the same"
    assert said.content == ""


def test_a_call_that_is_cut_off_is_no_answer(filled: ExplicitBank) -> None:
    chat = ChatTrimem(bank=filled, namespace="acme", k=1, max_tokens=9).bind_tools([add], tool_choice="any")
    with pytest.raises(UnfinishedCallError):
        chat.invoke("Add.")


def test_a_cache_never_answers_one_tenant_with_anothers(filled: ExplicitBank, lm: LanguageModel) -> None:
    set_llm_cache(InMemoryCache())
    try:
        for namespace, count in (("acme", 4), ("other", 1)):
            said = ChatTrimem(bank=filled, namespace=namespace, k=9, max_tokens=1).invoke("Where is the pump?")
            assert len(said.response_metadata["sources"]) == count
        cached = ChatTrimem(bank=filled, namespace="acme", k=9, max_tokens=1, cache=True)
        assert len(cached.invoke("Where is the pump?").response_metadata["sources"]) == 4
        other = cached.model_copy(update={"namespace": "other"})
        assert len(other.invoke("Where is the pump?").response_metadata["sources"]) == 1
    finally:
        set_llm_cache(None)


def test_wrong_arguments(filled: ExplicitBank, tiny_llama: LanguageModel, chat: ChatTrimem) -> None:
    with pytest.raises(ValidationError, match="namespace must say"):
        ChatTrimem(bank=filled)
    with pytest.raises(ValidationError, match="one of trimem's banks"):
        ChatTrimem(bank={}, namespace="acme")  # type: ignore[arg-type]
    with pytest.raises(FingerprintMismatch):
        ChatTrimem(model=tiny_llama, bank=filled, namespace="acme").invoke("Where is the pump?")
    with pytest.raises(InvalidInputError, match="more than text"):
        chat.invoke([HumanMessage([{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}])])
    with pytest.raises(InvalidInputError, match="one model"):
        chat.invoke("Hello", model="another")
    with pytest.raises(ContextLengthError):
        chat.invoke("Hello", max_tokens=5000)


def test_nothing_of_the_memory_shows(chat: ChatTrimem) -> None:
    chat.invoke("Where is the pump?")
    for shown in (repr(chat), str(chat), dumps(chat), str(chat._identifying_params)):
        assert "cellar" not in shown
        assert PUMP not in shown
