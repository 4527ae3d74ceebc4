"""Requests that are wrong, too large, too many or given up; keys; and what the log tells."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx
import openai
import pytest

from tests import tiny
from tests.contracts.bank import BOAT, CAKE, PUMP
from tests.core.trimem.server.conftest import ANN, KEYS, Serve, running
from tests.loop import loop_alive
from trimem import ExplicitBank, InvalidInputError, InvalidNamespaceError, LanguageModel
from trimem.errors import AuthenticationError
from trimem.server.app import ServerConfig, create_app
from trimem.server.keys import Keys
from trimem.text.encoders import Encoder

ASKED: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "pump?"}], "max_tokens": 4}
ENDLESS = {**ASKED, "max_tokens": 6000}


def post(address: str, content: Any, path: str = "/v1/chat/completions", key: str | None = ANN) -> httpx.Response:
    headers = {"content-type": "application/json", **({} if key is None else {"authorization": f"Bearer {key}"})}
    body = content if isinstance(content, bytes) or hasattr(content, "__next__") else json.dumps(content)
    return httpx.post(f"{address}{path}", content=body, headers=headers, timeout=60)


def refused(reply: httpx.Response) -> tuple[int, str, str | None]:
    """Return status, code and parameter of an error, which must have OpenAI's form."""
    assert reply.headers["content-type"] == "application/json"
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert error["type"] == ("server_error" if reply.status_code >= 500 else "invalid_request_error")
    return reply.status_code, error["code"], error["param"]


def said(*messages: tuple[str, Any]) -> dict[str, Any]:
    return {**ASKED, "messages": [{"role": role, "content": content} for role, content in messages]}


WRONG: dict[str, tuple[Any, str | None, str | None]] = {
    "no JSON": (b"{", "invalid_json", None),
    "no UTF-8": (b'"\xff"', None, None),
    "deep": (b'{"a":' + b"[" * 200_000, None, None),
    "no object": ([], "invalid_value", None),
    "no model": ({"messages": ASKED["messages"]}, "invalid_value", "model"),
    "messages no list": ({**ASKED, "messages": "hi"}, "invalid_value", "messages"),
    "no messages": ({**ASKED, "messages": []}, "invalid_value", "messages"),
    "a role nobody has": (said(("tool", "x")), "invalid_value", "messages.0.role"),
    "a picture": (said(("user", [{"type": "image_url", "image_url": {}}])), "invalid_value", None),
    "the assistant last": (said(("user", "a"), ("assistant", "b")), "invalid_value", None),
    "the system last": (said(("user", "a"), ("system", "b")), "invalid_value", None),
    "nothing asked": (said(("user", "  ")), "invalid_value", None),
    "half a character": (said(("user", "\ud800")), "invalid_value", None),
    "a number as text": ({**ASKED, "max_tokens": "4"}, "invalid_value", "max_tokens"),
    "no tokens": ({**ASKED, "max_tokens": 0}, "invalid_value", "max_tokens"),
    "two limits": ({**ASKED, "max_completion_tokens": 5}, "invalid_value", None),
    "two answers": ({**ASKED, "n": 2}, "invalid_value", "n"),
    "too hot": ({**ASKED, "temperature": 2.5}, "invalid_value", "temperature"),
    "an empty stop": ({**ASKED, "stop": ""}, "invalid_value", None),
    "tools": ({**ASKED, "tools": [{"type": "function"}]}, "invalid_value", "tools"),
    "a seed too large": ({**ASKED, "seed": 2**63}, "invalid_value", "seed"),
    "a name nobody knows": ({**ASKED, "top_k": 5}, "unsupported_parameter", "top_k"),
    "a name that is half a character": ({**ASKED, "\ud800": 5}, "invalid_value", None),
    "no memories": ({**ASKED, "memory": {"k": 0}}, "invalid_value", "memory.k"),
    "all memories there can be": ({**ASKED, "memory": {"k": 10**30}}, "invalid_value", "memory.k"),
    "more tokens than can be counted": ({**ASKED, "max_tokens": 10**30}, "context_length_exceeded", None),
    "no temperature": (json.dumps({**ASKED, "temperature": float("nan")}).encode(), "invalid_value", "temperature"),
    "a stop that takes long to look for": ({**ASKED, "stop": "x" * 1000}, "invalid_value", None),
    "a filter that is none": ({**ASKED, "memory": {"where": {"a": {"$like": "x"}}}}, "invalid_value", None),
    "too long": (ENDLESS, "context_length_exceeded", None),
    "too long, streamed": ({**ENDLESS, "stream": True}, "context_length_exceeded", None),
}


def test_what_is_wrong_is_said(address: str, bank: ExplicitBank) -> None:
    bank.remember(PUMP, namespace="ann")
    for name, (body, code, param) in WRONG.items():
        reply = post(address, body)
        assert reply.status_code == 400, name
        status, told, about = refused(reply)
        assert status == 400, name
        assert code is None or told == code, name
        assert param is None or about == param, name
    wrong: dict[str, Any]
    for wrong in (
        {"texts": 5},
        {"texts": " "},
        {"texts": ["a", "b"], "ids": "x"},
        {"texts": "a", "metadata": [{}, {}]},
    ):
        assert refused(post(address, wrong, "/v1/memories"))[0] == 400, wrong
    for wrong in ({"query": ""}, {"query": "a", "k": 0}, {"query": "a", "k": True}):
        assert refused(post(address, wrong, "/v1/memories/search"))[0] == 400, wrong
    assert refused(post(address, {}, "/v1/embeddings")) == (404, "not_found", None)
    assert refused(post(address, {}, "/v1/models"))[0] == 405
    for kind in ({}, {"content-type": "text/plain"}, {"content-type": "application/x-www-form-urlencoded"}):
        body = json.dumps(ASKED).encode()
        reply = httpx.post(f"{address}/v1/chat/completions", content=body, headers={**bearer(ANN), **kind})
        assert refused(reply) == (400, "unsupported_parameter", None), "by the gate, before anything reads it"


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def test_a_body_too_large_is_not_read(address: str) -> None:
    huge = said(("user", "x" * (1 << 20)))
    assert refused(post(address, huge)) == (413, "request_too_large", None)

    def unsized() -> Iterator[bytes]:
        for _ in range(24):
            yield b" " * (1 << 16)

    assert refused(post(address, unsized())) == (413, "request_too_large", None)


def test_a_key_is_required(address: str) -> None:
    assert httpx.get(f"{address}/healthz").json() == {"status": "ok"}
    for key in (None, "", "sk-ann", ANN[:-1], ANN + "x", "ann", "\xe9" * 20):
        headers = [] if key is None else [(b"authorization", f"Bearer {key}".strip().encode("latin-1"))]
        for path in ("/v1/models", "/v1/chat/completions", "/openapi.json", "/nothing"):
            reply = httpx.request("GET" if path == "/v1/models" else "POST", f"{address}{path}", headers=headers)
            assert refused(reply) == (401, "invalid_api_key", None)
            assert reply.headers["www-authenticate"] == "Bearer"
    assert refused(httpx.get(f"{address}/v1/models", headers={"authorization": f"Basic {ANN}"}))[0] == 401
    with (
        openai.OpenAI(base_url=f"{address}/v1", api_key="sk-wrong") as client,
        pytest.raises(openai.AuthenticationError),
    ):
        client.models.list()


def test_without_keys_only_this_machine_is_answered(bank: ExplicitBank) -> None:
    bank.remember(PUMP, namespace="office")
    with running(create_app(bank, namespace="office", config=ServerConfig(name="tiny"))) as address:
        assert len(post(address, ASKED, key=None).json()["memory"]["sources"]) == 1
        for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", ""):
            reply = httpx.get(f"{address}/v1/models", headers={"host": host})
            assert reply.status_code in (400, 401), host
    for wrong in ({}, {"keys": KEYS, "namespace": "office"}):
        with pytest.raises(InvalidInputError, match="either keys"):
            create_app(bank, **wrong)  # type: ignore[arg-type]


def test_keys_are_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_text(json.dumps({ANN: "acme/hr"}))
    keys = Keys.read(file)
    assert keys.namespace(f"Bearer {ANN}") == keys.namespace(f"bearer  {ANN}") == ("acme", "hr")
    assert ANN not in repr(keys)
    with pytest.raises(AuthenticationError, match="got none"):
        keys.namespace(None)
    for text, why in (
        ("[", "no JSON"),
        ("[]", "JSON object"),
        ('{"sk-0123456789abcdef": 5}', "JSON object"),
        ("{}", "got none"),
        ('{"short": "a"}', "key 1 of 1"),
        ('{"sk-0123456789 abcdef": "a"}', "without spaces"),
        (f'{{"{ANN}": "a", "{ANN}": "b"}}', "each key once"),
    ):
        file.write_text(text)
        with pytest.raises(InvalidInputError, match=why) as caught:
            Keys.read(file)
        assert ANN not in str(caught.value)
    file.write_text(json.dumps({ANN: "acme//hr"}))
    with pytest.raises(InvalidNamespaceError):
        Keys.read(file)
    with pytest.raises(InvalidInputError, match="cannot be read"):
        Keys.read(tmp_path / "absent.json")


def test_a_server_that_answers_nobody_is_refused() -> None:
    for wrong in ({"k": 0}, {"read": "fast"}, {"max_new_tokens": 0}, {"waiting": 0}, {"max_body_bytes": 0}):
        with pytest.raises(InvalidInputError):
            ServerConfig(**wrong)


@pytest.fixture
def bank(tmp_path: Path, encoder: Encoder) -> Iterator[ExplicitBank]:
    """A bank of a model that can speak for long."""
    lm = tiny.build("llama", model=tiny.llama(max_position_embeddings=4096))
    with ExplicitBank.open(tmp_path / "bank", model=lm, encoder=encoder) as bank:
        yield bank


LONG: dict[str, Any] = {**ASKED, "max_tokens": 3000}


@pytest.fixture
def runs(bank: ExplicitBank) -> list[float]:
    """When the model was run."""
    times: list[float] = []
    bank.model.model.register_forward_hook(lambda *_: times.append(time.monotonic()))
    return times


def begins(runs: list[float]) -> None:
    """Wait until the model speaks."""
    begun = len(runs)
    while len(runs) < begun + 3:
        time.sleep(0.01)


def ends_early(runs: list[float]) -> bool:
    """Tell whether the model falls silent within seconds, long before it has said all."""
    for _ in range(20):
        before = len(runs)
        time.sleep(0.2)
        if len(runs) == before:
            return bool(0 < before < LONG["max_tokens"] / 2)
    return False


@pytest.mark.parametrize("stream", [False, True])
def test_who_hangs_up_before_the_first_word_ends_the_answer(
    address: str, bank: ExplicitBank, runs: list[float], stream: bool
) -> None:
    bank.remember(PUMP, namespace="ann")
    with openai.OpenAI(base_url=f"{address}/v1", api_key=ANN, max_retries=0, timeout=0.5) as client:
        with pytest.raises(openai.APITimeoutError):  # this model says its first word at the very end
            client.chat.completions.create(**LONG, stream=stream)
        assert ends_early(runs)
    assert post(address, ASKED).status_code == 200, "and the next one has its turn"


def test_who_hangs_up_while_it_speaks_ends_the_answer(tmp_path: Path, smollm: LanguageModel, encoder: Encoder) -> None:
    with ExplicitBank.open(tmp_path / "talk", model=smollm, encoder=encoder) as bank:
        said: list[str] = []
        hook = smollm.model.register_forward_hook(lambda *_: said.append("token"))
        asked = {**LONG, "stream": True, "messages": [{"role": "user", "content": "Count from one to a thousand."}]}
        with running(create_app(bank, keys=KEYS, config=ServerConfig(name="tiny"))) as address:
            client = openai.OpenAI(base_url=f"{address}/v1", api_key=ANN)
            with client, client.chat.completions.create(**asked) as chunks:
                assert next(filter(None, (chunk.choices[0].delta.content for chunk in chunks)))
            assert post(address, ASKED).status_code == 200, "which had to wait until the other had ended"
        hook.remove()
    assert len(said) < 60


@contextmanager
def speaking(address: str, runs: list[float]) -> Iterator[None]:
    """Keep the model busy for a block."""

    async def ask() -> None:
        async with httpx.AsyncClient(timeout=60, headers=bearer(ANN)) as client:
            asking = asyncio.create_task(client.post(f"{address}/v1/chat/completions", json=LONG))
            await asyncio.to_thread(done.wait)
            asking.cancel()

    done = Event()
    thread = Thread(target=asyncio.run, args=(ask(),))
    thread.start()
    begins(runs)
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_requests_wait_for_each_other_and_not_too_many(serve: Serve, bank: ExplicitBank, runs: list[float]) -> None:
    bank.remember(PUMP, namespace="ann")
    with serve(waiting=1) as address, ThreadPoolExecutor() as pool:
        with speaking(address, runs):
            second = pool.submit(post, address, ASKED)
            time.sleep(0.3)
            third = post(address, ASKED)
            assert refused(third) == (503, "server_busy", None)
            assert third.headers["retry-after"] == "1"
            assert post(address, {"query": "pump"}, "/v1/memories/search").status_code == 200, "search needs no turn"
            assert not second.done()
        assert second.result().status_code == 200
        with speaking(address, runs):
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(f"{address}/v1/chat/completions", json=ASKED, headers=bearer(ANN), timeout=0.3)
            time.sleep(0.3)
            fourth = pool.submit(post, address, ASKED)
            time.sleep(0.1)
        assert fourth.result().status_code == 200, "who left the line has no place in it"


async def test_the_event_loop_stays_alive(bank: ExplicitBank) -> None:
    """The server runs in this loop, so that what it does to it can be felt."""
    import uvicorn

    bank.remember([PUMP, BOAT, CAKE], namespace="ann")
    app = create_app(bank, keys=KEYS, config=ServerConfig(name="tiny"))
    server = uvicorn.Server(uvicorn.Config(app, port=0, access_log=False, log_config=None))
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    serving = asyncio.create_task(server._serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    async with loop_alive():
        replies = await asyncio.gather(
            *(
                asyncio.to_thread(post, address, {**LONG, "max_tokens": 400, "stream": stream})
                for stream in (True, False)
            ),
            asyncio.to_thread(post, address, {"texts": [f"{CAKE} {i}" for i in range(40)]}, "/v1/memories"),
            asyncio.to_thread(post, address, {"query": "cake"}, "/v1/memories/search"),
        )
    server.should_exit = True
    await serving
    assert [reply.status_code for reply in replies] == [200] * 4


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {**ASKED, "messages": [1] * 500_000}),
        ("/v1/chat/completions", said(("user", [{}] * 300_000))),
        ("/v1/memories", {"texts": [1] * 500_000}),
        ("/v1/memories", {"texts": "a", "metadata": [1] * 500_000, "ids": [1] * 9}),
    ],
)
async def test_what_is_wrong_half_a_million_times_is_told_at_once(
    bank: ExplicitBank, path: str, body: dict[str, Any]
) -> None:
    content = json.dumps(body, separators=(",", ":"))
    transport = httpx.ASGITransport(create_app(bank, namespace="office", config=ServerConfig(name="tiny")))
    headers = {"content-type": "application/json"}
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers) as client:
        await client.get("/v1/models")
        async with loop_alive(0.5):  # JSON of this size alone is read in 0.03
            reply = await client.post(path, content=content)
    assert refused(reply)[:2] == (400, "invalid_value")


def test_nothing_that_is_said_is_logged(
    ann: openai.OpenAI, caplog: pytest.LogCaptureFixture, bank: ExplicitBank, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "trimem")
    caplog.set_level(logging.INFO, "uvicorn.error")
    ann.post("/memories", body={"texts": PUMP, "metadata": {"source": "nightingale.md"}}, cast_to=object)
    ann.chat.completions.create(**{**ASKED, "messages": [{"role": "user", "content": "the nightingale?"}]})
    with pytest.raises(openai.NotFoundError):
        ann.delete("/memories/nightingale?nightingale=1", cast_to=object)

    def broken(*_: Any, **__: Any) -> None:
        raise OSError("cannot write nightingale")

    monkeypatch.setattr(bank, "recall", broken)
    for body in ({"query": "nightingale"},):
        with pytest.raises(openai.InternalServerError) as caught:
            ann.post("/memories/search", body=body, cast_to=object)
        assert "nightingale" not in str(caught.value)
    with pytest.raises(openai.InternalServerError):
        ann.chat.completions.create(**ASKED, stream=True)
    ours = [record for record in caplog.records if record.name.startswith(("trimem", "uvicorn"))]
    lines = [record.getMessage() for record in ours]
    assert any(line.startswith("POST /v1/chat/completions 200 ") for line in lines)
    assert any(line.startswith("DELETE /v1/memories/{id_} 404 ") for line in lines)
    assert sum(line.startswith("OSError at test_requests.py:") for line in lines) == 2
    assert not any("nightingale" in line.lower() or "pump" in line or ANN in line for line in lines)
    assert not any(record.exc_info for record in ours)
