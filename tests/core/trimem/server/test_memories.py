"""Memories managed over HTTP, and tenants who never see each other's."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.contracts.bank import BOAT, CAKE, PUMP
from tests.core.trimem.server.conftest import ACME, HR
from trimem import ExplicitBank

TEXTS = [PUMP, BOAT, CAKE]


def remember(client: openai.OpenAI, **body: Any) -> list[str]:
    reply: Any = client.post("/memories", body=body, cast_to=object)
    return [one["id"] for one in reply["data"]]


def search(client: openai.OpenAI, query: str, **body: Any) -> list[dict[str, Any]]:
    reply: Any = client.post("/memories/search", body={"query": query, **body}, cast_to=object)
    found: list[dict[str, Any]] = reply["data"]
    return found


def forget(client: openai.OpenAI, **body: Any) -> Any:
    return client.delete("/memories", body=body, cast_to=object)


def test_remembered_found_and_forgotten(ann: openai.OpenAI, bank: ExplicitBank) -> None:
    ids = remember(ann, texts=[PUMP, BOAT], metadata=[{"source": "pump.md"}, {"source": "boat.md"}], ids=["p", "b"])
    assert remember(ann, texts=PUMP, ids="p", metadata={"source": "pump.md"}) == ids[:1], (
        "the same again changes nothing"
    )
    found = search(ann, "When does the boat leave?", k=1)
    assert [(one["id"], one["text"], one["source"], one["line"]) for one in found] == [(ids[1], BOAT, "boat.md", 1)]
    assert found[0]["metadata"] == {"source": "boat.md"}
    assert [one["id"] for one in search(ann, "boat", where={"source": "pump.md"})] == ids[:1]

    receipt = forget(ann, where={"source": "boat.md"})
    assert (receipt["deleted"], receipt["slots"], receipt["documents"]) == (True, [ids[1]], 1)
    assert "namespace" not in receipt
    ann.delete(f"/memories/{ids[0]}", cast_to=object)
    assert search(ann, "boat") == []
    assert bank.stats(namespace="ann").slots == 0
    assert [one.slots for one in bank.receipts(namespace="ann")] == [(ids[1],), (ids[0],)]
    with pytest.raises(openai.NotFoundError):
        ann.delete(f"/memories/{ids[0]}", cast_to=object)


def test_what_to_forget_must_be_said(ann: openai.OpenAI) -> None:
    remember(ann, texts=TEXTS)
    for body in ({}, {"all": True, "ids": "x"}, {"all": True, "where": {"a": 1}}):
        with pytest.raises(openai.BadRequestError, match="say what to forget"):
            forget(ann, **body)
    assert forget(ann, ids=[])["slots"] == []
    assert len(search(ann, "what?")) == 3
    assert len(forget(ann, all=True)["slots"]) == 3


def test_a_key_opens_what_lies_below_its_namespace(address: str) -> None:
    with (
        openai.OpenAI(base_url=f"{address}/v1", api_key=ACME) as acme,
        openai.OpenAI(base_url=f"{address}/v1", api_key=HR) as hr,
    ):
        remember(hr, texts=PUMP)
        remember(acme, texts=BOAT)
        assert {one["text"] for one in search(acme, "what?")} == {PUMP, BOAT}
        assert {one["text"] for one in search(hr, "what?")} == {PUMP}


STEP = st.tuples(st.sampled_from(["remember", "forget", "search", "ask"]), st.integers(0, 1), st.integers(0, 2))


@settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=st.lists(STEP, min_size=3, max_size=10))
def test_tenants_never_cross(ann: openai.OpenAI, bob: openai.OpenAI, steps: list[tuple[str, int, int]]) -> None:
    """Whatever two tenants do, each finds and reads exactly what is its own, even where both have the same text."""
    clients = (ann, bob)
    held: tuple[dict[str, str], dict[str, str]] = ({}, {})
    for client in clients:
        forget(client, all=True)
    for what, who, which in steps:
        client, mine, others = clients[who], held[who], held[1 - who]
        if what == "remember":
            (id_,) = remember(client, texts=TEXTS[which])
            mine[id_] = TEXTS[which]
        elif what == "forget":
            forget(client, ids=[*others, *(id_ for id_ in mine if mine[id_] == TEXTS[which])])
            for id_ in [id_ for id_ in mine if mine[id_] == TEXTS[which]]:
                del mine[id_]
        elif what == "search":
            found = search(client, TEXTS[which], k=9)
            assert {one["id"]: one["text"] for one in found} == mine
        else:
            reply = client.chat.completions.create(
                model="tiny", messages=[{"role": "user", "content": TEXTS[which]}], max_tokens=1
            )
            assert {one["id"] for one in (reply.model_extra or {})["memory"]["sources"]} == set(mine)
    assert not held[0].keys() & held[1].keys()
    for client, mine in zip(clients, held, strict=True):
        assert {one["id"]: one["text"] for one in search(client, "what?", k=9)} == mine


def test_a_client_cannot_name_a_namespace(ann: openai.OpenAI, bob: openai.OpenAI) -> None:
    (secret,) = remember(bob, texts=PUMP)
    asked: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "pump?"}], "max_tokens": 2}
    for path, body in (
        ("/memories/search", {"query": "pump", "namespace": "bob"}),
        ("/memories", {"texts": BOAT, "namespace": ["bob"]}),
        ("/chat/completions", {**asked, "namespace": "bob"}),
        ("/chat/completions", {**asked, "memory": {"namespace": "bob"}}),
    ):
        with pytest.raises(openai.BadRequestError, match="namespace"):
            ann.post(path, body=body, cast_to=object)
    headers = {"X-Namespace": "bob", "OpenAI-Organization": "bob", "OpenAI-Project": "bob"}
    sly: Any = ann.post(
        "/memories/search?namespace=bob", body={"query": "pump"}, options={"headers": headers}, cast_to=object
    )
    assert sly["data"] == []
    assert (ann.chat.completions.create(**asked, user="bob").model_extra or {})["memory"]["sources"] == []
    with pytest.raises(openai.NotFoundError):
        ann.delete(f"/memories/{secret}", cast_to=object)
    assert len(search(bob, "pump")) == 1
