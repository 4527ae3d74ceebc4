"""LlamaIndex's contract for LLMs, which has no official suite: whole and streamed, sync and async, one and the same."""

from __future__ import annotations

import asyncio
from typing import Any

import llama_index.core.instrumentation as instrument
import pytest
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent
from llama_index.core.llms import LLM
from llama_index.core.query_engine import RetrieverQueryEngine
from pydantic import ValidationError

from llama_index_trimem import ExplicitRetriever, TrimemLLM
from tests import tiny
from tests.contracts.bank import BOAT, CAKE, PUMP
from tests.contracts.tenants import TenantsContract
from tests.loop import loop_alive
from trimem import Answer, Bank, CalibrationNotFoundError, ExplicitBank, LanguageModel

ASKED = [
    ChatMessage(role="system", content="Be brief."),
    ChatMessage(role="user", content="Hello."),
    ChatMessage(role="assistant", content="Hi."),
    ChatMessage(role="user", content="When does the boat leave?"),
]


@pytest.fixture
def llm(bank: ExplicitBank) -> TrimemLLM:
    bank.remember([PUMP, BOAT], namespace="acme", metadata=[{"source": "pump.md"}, {"source": "boat.md"}])
    bank.remember(CAKE, namespace="other")
    return TrimemLLM(bank=bank, namespace="acme", k=2, max_tokens=6)


def test_it_is_an_llm(llm: TrimemLLM, tiny_llama: LanguageModel) -> None:
    assert isinstance(llm, LLM)
    assert llm.lm is tiny_llama
    told = llm.metadata
    assert (told.context_window, told.num_output, told.is_chat_model) == (512, 6, True)
    assert "ExplicitBank" not in repr(llm) + str(llm.to_dict())


def test_answers_tell_what_was_read(llm: TrimemLLM, bank: ExplicitBank) -> None:
    response = llm.chat(ASKED)
    sources = response.additional_kwargs["sources"]
    assert [source["source"] for source in sources] == ["boat.md", "pump.md"]
    assert sum(source["attention"] for source in sources) == pytest.approx(1, abs=1e-4)
    assert response.message.additional_kwargs["sources"] == sources
    answer = bank.ask(
        "When does the boat leave?",
        namespace="acme",
        k=2,
        system="Be brief.",
        history=[{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Hi."}],
        max_new_tokens=6,
    )
    assert response.message.content == answer.text == response.raw.text
    assert response.additional_kwargs["memory_tokens"] == answer.memory_tokens > 0
    completion = llm.complete("When does the boat leave?")
    assert completion.text == bank.ask("When does the boat leave?", namespace="acme", k=2, max_new_tokens=6).text
    assert [source["source"] for source in completion.additional_kwargs["sources"]] == ["boat.md", "pump.md"]


async def test_all_ways_say_the_same(llm: TrimemLLM) -> None:
    whole = llm.chat(ASKED)
    streamed = list(llm.stream_chat(ASKED))
    astreamed = [each async for each in await llm.astream_chat(ASKED)]
    for chunks in (streamed, astreamed):
        assert chunks[-1].message == whole.message == (await llm.achat(ASKED)).message
        assert "".join(chunk.delta or "" for chunk in chunks).strip() == whole.message.content
    prompt = "Where is the pump?"
    completed = llm.complete(prompt)
    for parts in (list(llm.stream_complete(prompt)), [each async for each in await llm.astream_complete(prompt)]):
        assert parts[-1].text == completed.text == (await llm.acomplete(prompt)).text
        assert "".join(part.delta or "" for part in parts).strip() == completed.text
        assert parts[-1].additional_kwargs == completed.additional_kwargs


async def test_the_loop_lives_while_it_speaks(llm: TrimemLLM) -> None:
    llm.chat(ASKED)
    async with loop_alive():
        await asyncio.gather(llm.achat(ASKED), llm.acomplete("pump"))
        async for _ in await llm.astream_chat(ASKED):
            pass


def test_everything_may_be_said_anew_with_a_call(llm: TrimemLLM) -> None:
    def sources(**how: Any) -> list[str]:
        return [source["source"] for source in llm.complete("boat", **how).additional_kwargs["sources"]]

    assert len(sources(k=1)) == 1
    assert sources(where={"source": "pump.md"}) == ["pump.md"]
    assert len(sources(namespace="other")) == 1
    assert llm.complete("boat", max_tokens=2).raw.new_tokens == 2
    sampled = [llm.complete("boat", temperature=5.0, seed=3).text for _ in range(2)]
    assert sampled[0] == sampled[1] != llm.complete("boat").text


def test_its_fields_hold_where_a_call_says_nothing(bank: ExplicitBank, llm: TrimemLLM) -> None:
    def answered(**fields: Any) -> Answer:
        answer: Answer = TrimemLLM(bank=bank, namespace="acme", max_tokens=6, **fields).complete("boat").raw
        return answer

    assert [hit.source for hit in answered(where={"source": "pump.md"}).hits] == ["pump.md"]
    assert len(answered(k=1).hits) == 1
    with pytest.raises(CalibrationNotFoundError):
        answered(read="mixed")
    assert answered(temperature=1e-45).text == answered().text
    warm = [answered(temperature=5.0, generate_kwargs={"seed": seed}).text for seed in (3, 3, 4)]
    assert warm[0] == warm[1] != warm[2]


def test_without_a_bank_it_is_the_model_alone(tiny_llama: LanguageModel) -> None:
    llm = TrimemLLM(model=tiny_llama, max_tokens=4)
    said = [ChatMessage(role="user", content="a"), ChatMessage(role="user", content="b")]
    response = llm.chat(said)
    assert response.additional_kwargs["sources"] == []
    assert response.message == llm.chat([ChatMessage(role="user", content="a\n\nb")]).message


def test_a_stream_may_be_left(llm: TrimemLLM) -> None:
    stream = llm.stream_chat(ASKED, max_tokens=200)
    assert next(stream).delta
    stream.close()
    assert llm.complete("boat").text


def test_events_are_emitted(llm: TrimemLLM) -> None:
    seen: list[str] = []

    class Handler(BaseEventHandler):
        def handle(self, event: BaseEvent, **_: Any) -> None:
            seen.append(event.class_name())

    dispatcher = instrument.get_dispatcher()  # type: ignore[attr-defined]
    handler = Handler()
    dispatcher.add_event_handler(handler)
    try:
        llm.chat(ASKED)
    finally:
        dispatcher.event_handlers.remove(handler)
    assert seen == ["LLMChatStartEvent", "LLMChatEndEvent"]


def test_it_serves_a_query_engine(bank: ExplicitBank) -> None:
    bank.remember(BOAT, namespace="acme", compile=False)
    llm = TrimemLLM(model=tiny.build("llama", model=tiny.llama(max_position_embeddings=4096)), max_tokens=4)
    retriever = ExplicitRetriever(bank, "acme")
    response = RetrieverQueryEngine.from_args(retriever, llm=llm).query("When does the boat leave?")
    assert str(response)
    assert response.source_nodes[0].node.get_content() == BOAT


def test_wrong_arguments(bank: ExplicitBank) -> None:
    with pytest.raises(ValidationError, match="namespace"):
        TrimemLLM(bank=bank)
    with pytest.raises(ValidationError, match="bank"):
        TrimemLLM(bank="bank", namespace="a")  # type: ignore[arg-type]


class TestTenants(TenantsContract):
    def write(self, bank: Bank, tenant: str, text: str) -> None:
        bank.remember(text, namespace=tenant)

    def read(self, bank: Bank, tenant: str, query: str) -> str:
        response = TrimemLLM(bank=bank, namespace=tenant, max_tokens=2).complete(query)
        return " ".join(hit.text for hit in response.raw.hits)
