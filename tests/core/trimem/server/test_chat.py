"""Chat completions, asked for by OpenAI's own client."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletion

from tests.contracts.bank import BOAT, CAKE, PUMP
from tests.core.trimem.server.conftest import ANN, Serve
from trimem import ExplicitBank
from trimem.server.completions import Reply

ASKED: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "pump?"}], "max_tokens": 8}


@pytest.fixture(autouse=True)
def remembered(bank: ExplicitBank) -> None:
    bank.remember(
        [PUMP, f"{CAKE} {BOAT}"],
        namespace="ann",
        metadata=[{"source": "pump.md"}, {"source": "cake.md"}],
        ids=["p", "c"],
    )


def test_says_what_the_bank_says(ann: openai.OpenAI, bank: ExplicitBank) -> None:
    answer = bank.ask("pump?", namespace="ann", max_new_tokens=8)
    reply = ann.chat.completions.create(**ASKED)
    (choice,) = reply.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", answer.text, "length")
    assert reply.usage is not None
    assert reply.usage.completion_tokens == 8
    assert reply.usage.prompt_tokens_details is not None
    assert reply.usage.prompt_tokens_details.cached_tokens == answer.memory_tokens > 0
    assert reply.usage.prompt_tokens == answer.prompt_tokens + answer.memory_tokens
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + 8
    assert (reply.model, reply.object) == ("tiny", "chat.completion")


def test_tells_what_was_read(ann: openai.OpenAI, bank: ExplicitBank) -> None:
    answer = bank.ask("pump?", namespace="ann", max_new_tokens=8)
    told = (ann.chat.completions.create(**ASKED).model_extra or {})["memory"]
    assert [one["id"] for one in told["sources"]] == [hit.id for hit in answer.hits]
    assert [one["share"] for one in told["sources"]] == pytest.approx([hit.attention for hit in answer.hits])
    texts = {"pump.md": PUMP, "cake.md": f"{CAKE} {BOAT}"}
    assert {one["source"] for one in told["sources"]} == set(texts)
    for one in told["sources"]:
        text, quote = texts[one["source"]], one["quote"]
        assert text[one["start"] : one["stop"]] in (PUMP, f"{CAKE} {BOAT}")
        assert text[quote["start"] : quote["stop"]] == quote["text"]
        assert one["line"] == 1
    assert 0 < told["seconds"]["first_token"] < told["seconds"]["total"]


def test_a_stream_says_the_same(ann: openai.OpenAI) -> None:
    whole = ann.chat.completions.create(**ASKED)
    chunks = list(ann.chat.completions.create(**ASKED, stream=True, stream_options={"include_usage": True}))
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert said.strip() == whole.choices[0].message.content
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 2) + ["length"]
    read, streamed = ((one.model_extra or {})["memory"]["sources"] for one in (whole, chunks[-2]))
    assert read == streamed


async def test_the_asynchronous_client(address: str) -> None:
    async with openai.AsyncOpenAI(base_url=f"{address}/v1", api_key=ANN, max_retries=0) as client:
        whole = await client.chat.completions.create(**ASKED)
        stream = await client.chat.completions.create(**ASKED, stream=True)
        said = [chunk.choices[0].delta.content or "" async for chunk in stream]
        assert "".join(said).strip() == whole.choices[0].message.content
        assert [model.id async for model in client.models.list()] == ["tiny"]


def test_a_conversation_is_followed(ann: openai.OpenAI, bank: ExplicitBank) -> None:
    history = [
        {"role": "user", "content": "Where is the blue pump?"},
        {"role": "assistant", "content": "In the cellar."},
    ]
    answer = bank.ask(
        "When is that?", namespace="ann", k=1, history=history, system="Be brief.\n\nSpeak.", max_new_tokens=8
    )
    messages: list[Any] = [
        {"role": "system", "content": "Be brief."},
        history[0],
        {"role": "assistant", "content": [{"type": "text", "text": "In the cellar."}]},
        {"role": "developer", "content": "Speak."},
        {"role": "user", "content": "When is that?"},
    ]
    reply = ann.chat.completions.create(model="tiny", messages=messages, max_tokens=8, extra_body={"memory": {"k": 1}})
    assert reply.choices[0].message.content == answer.text
    assert reply.usage is not None
    assert reply.usage.prompt_tokens == answer.prompt_tokens + answer.memory_tokens
    assert [one["id"] for one in (reply.model_extra or {})["memory"]["sources"]] == [answer.hits[0].id]


def test_memories_are_chosen_by_metadata(ann: openai.OpenAI) -> None:
    reply = ann.chat.completions.create(**ASKED, extra_body={"memory": {"where": {"source": "cake.md"}}})
    assert [one["source"] for one in (reply.model_extra or {})["memory"]["sources"]] == ["cake.md"]
    with pytest.raises(openai.BadRequestError, match="run trimem calibrate"):
        ann.chat.completions.create(**ASKED, extra_body={"memory": {"read": "mixed"}})


def test_what_a_request_does_not_say_the_server_is_told(serve: Serve) -> None:
    with (
        serve(k=1, max_new_tokens=2, read="mixed") as address,
        openai.OpenAI(base_url=f"{address}/v1", api_key=ANN, max_retries=0) as client,
    ):
        asked = {name: value for name, value in ASKED.items() if name != "max_tokens"}
        with pytest.raises(openai.BadRequestError, match="run trimem calibrate"):
            client.chat.completions.create(**asked)
        reply = client.chat.completions.create(**asked, extra_body={"memory": {"read": "dense"}})
        assert reply.usage is not None
        assert reply.usage.completion_tokens == 2
        assert len((reply.model_extra or {})["memory"]["sources"]) == 1


def test_sampling_follows_the_seed(ann: openai.OpenAI) -> None:
    def said(**options: Any) -> str | None:
        reply: ChatCompletion = ann.chat.completions.create(**{**ASKED, "max_tokens": 24, **options})
        return reply.choices[0].message.content

    greedy = said()
    assert said(temperature=0) == said(temperature=0, seed=5) == said(temperature=1e-45) == greedy
    sampled = [said(temperature=1.5, seed=seed) for seed in (1, 1, 2)]
    assert sampled[0] == sampled[1] != sampled[2]
    assert said(temperature=1.5, seed=1) != greedy
    assert said(top_p=1e-6, seed=1) == greedy, "one token is all the mass that is left"


def test_stop_strings_end_the_answer(ann: openai.OpenAI) -> None:
    whole = ann.chat.completions.create(**{**ASKED, "max_tokens": 40}).choices[0].message.content
    assert whole is not None
    stop = whole[5:8]
    for stops in (stop, [stop, "never said"]):
        reply = ann.chat.completions.create(**{**ASKED, "max_tokens": 40, "stop": stops})
        assert reply.choices[0].message.content == whole[: whole.index(stop)].strip()
        assert reply.choices[0].finish_reason == "stop"


def test_an_answer_that_ends_by_itself_ends_with_stop(bank: ExplicitBank) -> None:
    from dataclasses import replace

    reply = Reply("tiny", "0123456789", 8, [])
    cut = bank.ask("pump?", namespace="ann", max_new_tokens=8)
    ended = replace(cut, pieces=(*cut.pieces[:-1], ""))  # its last token, which says nothing, is the end
    short = replace(cut, new_tokens=7, pieces=cut.pieces[:-1])
    reasons = [reply.whole(answer)["choices"][0]["finish_reason"] for answer in (cut, ended, short)]
    assert reasons == ["length", "stop", "stop"]


def test_the_newer_name_of_max_tokens(ann: openai.OpenAI) -> None:
    reply = ann.chat.completions.create(model="tiny", messages=ASKED["messages"], max_completion_tokens=3)
    assert reply.usage is not None
    assert reply.usage.completion_tokens == 3


def test_without_memories_the_model_answers_alone(bob: openai.OpenAI) -> None:
    reply = bob.chat.completions.create(**ASKED)
    assert (reply.model_extra or {})["memory"]["sources"] == []
    assert reply.choices[0].message.content


def test_models_are_listed(ann: openai.OpenAI) -> None:
    assert [model.id for model in ann.models.list()] == ["tiny"]
    assert ann.models.retrieve("tiny").owned_by == "trimem"
    with pytest.raises(openai.NotFoundError, match="this server speaks as 'tiny'"):
        ann.models.retrieve("gpt-5")
    with pytest.raises(openai.NotFoundError, match="this server speaks as 'tiny'"):
        ann.chat.completions.create(**{**ASKED, "model": "gpt-5"})
