"""Whatever a configuration, or an opening of a bank, is given: what is none is refused with trimem's own errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding

from tests.core.trimem.test_malformed import ANYTHING, FULL
from tests.letters import CODEC, Letters
from trimem import (
    Capacity,
    ExplicitBank,
    ExplicitConfig,
    Heard,
    InvalidInputError,
    Items,
    LanguageModel,
    NewItem,
    ReadConfig,
    ResonanceBank,
    ResonanceConfig,
    TransitBank,
    TransitConfig,
    TrimemError,
    Turn,
)
from trimem.errors import InvalidNamespaceError
from trimem.explicit.cost import Shape
from trimem.resonance.code import CodeConfig
from trimem.transit.bank_config import BankConfig

SHAPE = {field.name: 1 for field in fields(Shape)}
CODED = {"codec": CODEC.config.to_json(), "dim": 16}
MADE: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "ReadConfig": (ReadConfig, {field.name: field.default for field in fields(ReadConfig)}),
    "ExplicitConfig": (ExplicitConfig, {field.name: field.default for field in fields(ExplicitConfig)}),
    "ResonanceConfig": (ResonanceConfig, dict.fromkeys(field.name for field in fields(ResonanceConfig))),
    "CodeConfig": (CodeConfig, {field.name: field.default for field in fields(CodeConfig)}),
    "TransitConfig": (TransitConfig, {"code_dim": 8, **dict.fromkeys(["numbers", "layers", "width", "max_error"])}),
    "BankConfig": (BankConfig, {**CODED, **dict.fromkeys(["policy", "half_life", "per", "max_error", "surprise"])}),
    "Capacity": (Capacity, {"slots": 1, **dict.fromkeys(["policy", "half_life", "per", "tensor_bytes", "spare"])}),
    "Heard": (Heard, {"words": [(["k"], 0.5)], "speaker": None, "time": None}),
    "Turn": (Turn, {"speaker": "Ada", "time": datetime(2026, 5, 1), "text": "so"}),
    "Shape": (Shape, SHAPE),
}


@pytest.mark.parametrize("name", MADE)
def test_configurations_of_anything(name: str) -> None:
    """One value after the other is anything at all; the others are as they should be."""
    make, good = MADE[name]
    for argument in good:
        others = {key: value for key, value in good.items() if key != argument and value is not None}
        for odd in ANYTHING:
            with suppress(TrimemError):
                make(**others, **{argument: odd})


WRONG: list[tuple[Callable[..., Any], list[dict[str, Any]]]] = [
    (ReadConfig, [{"density": 5}, {"density": (True,)}, {"density": ()}, {"density": (8, "x")}, {"repair": True}]),
    (ReadConfig, [{name: 10**400} for name in ("bias", "temperature", "mass", "heads_kept")]),
    (ReadConfig, [{"bias": []}, {"bias": [0.0, "x"]}, {"head_bias": 1}]),
    (ExplicitConfig, [{"instruction": None}, {"codec": 3}, {"heads_kept": True}]),
    (TransitConfig, [{"code_dim": 8, "numbers": []}, {"code_dim": 8, "max_error": "x"}, {"code_dim": 8, "width": 8}]),
    (BankConfig, [{**CODED, "surprise": "x"}, {**CODED, "half_life": "x"}, {**CODED, "codec": {"version": 1}}]),
    (Capacity, [{"slots": 10**400}, {"slots": 1, "half_life": "x"}, {"slots": 1, "spare": None}]),
    (Heard, [{"words": 5}]),
]


@pytest.mark.parametrize(("make", "given"), [(make, given) for make, several in WRONG for given in several])
def test_what_is_no_configuration_is_refused(make: Callable[..., Any], given: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        make(**given)


@pytest.fixture
def small() -> DeterministicFakeEmbedding:
    return DeterministicFakeEmbedding(size=8)


@pytest.fixture
def openings(
    tmp_path: Path, tiny_llama: LanguageModel, small: DeterministicFakeEmbedding
) -> dict[str, tuple[Callable[..., Any], dict[str, Any]]]:
    """Return what opens a bank, and with what; names of models and encoders would be looked up."""
    explicit = {"model": tiny_llama, "encoder": small}
    found = {"config": None, "capacity": None, "path": None}
    return {
        "explicit": (
            ExplicitBank.open,
            {**explicit, **found, "codec": None, "cache_bytes": 9, "device_cache_bytes": 9},
        ),
        "resonance": (ResonanceBank.open, {"encoder": small, "model": None, **found}),
        "transit": (
            TransitBank.open,
            {"encoder": Letters(), "codec": CODEC, "path": None}
            | dict.fromkeys(["slots", "max_error", "policy", "half_life", "per", "surprise"]),
        ),
        "items": (Items.open, {"encoder": small, "namespace": "store", "path": None}),
    }


@pytest.mark.parametrize("name", ["explicit", "resonance", "transit", "items"])
def test_openings_of_anything(name: str, openings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # anything is the name of a folder, too
    call, good = openings[name]
    rng = Random(0)
    for trial in range(FULL or 60):
        argument = rng.choice(sorted(good))
        odd = rng.choice(ANYTHING)
        if argument in ("model", "encoder") and isinstance(odd, str | Path):
            continue
        given = {key: value for key, value in good.items() if value is not None} | {argument: odd}
        with suppress(TrimemError), closing(call(given.pop("path", tmp_path / f"{name}{trial}"), **given)) as opened:
            if isinstance(opened, Items):
                opened.write([NewItem((), "k", {})])
            else:
                opened.remember("a text", namespace="a", compile=False)


@pytest.mark.parametrize("config", [5, "dense", {}, ReadConfig()])
def test_another_configuration_than_the_banks_is_not_taken_for_none(
    config: Any, tmp_path: Path, tiny_llama: LanguageModel, small: DeterministicFakeEmbedding
) -> None:
    with pytest.raises(InvalidInputError, match="config must be"):
        ExplicitBank.open(tmp_path / "explicit", model=tiny_llama, encoder=small, config=config)
    with pytest.raises(InvalidInputError, match="config must be"):
        ResonanceBank.open(tmp_path / "resonance", encoder=small, config=config)


def test_a_clock_without_a_zone_is_refused(tmp_path: Path, small: DeterministicFakeEmbedding) -> None:
    clocks: list[Any] = [None, 5, datetime.now, lambda: 5]
    for clock in clocks:
        with pytest.raises(InvalidInputError, match="clock"):
            ResonanceBank.open(tmp_path / "bank", encoder=small, clock=clock).remember("x", namespace="a")


@pytest.fixture
def items(tmp_path: Path, small: DeterministicFakeEmbedding) -> Iterator[Items]:
    items = Items.open(tmp_path / "items", namespace="store", encoder=small)
    items.write([NewItem(("users", "bob"), "k", {"secret": 1}, ["the word"])])
    yield items
    items.close()


@pytest.mark.parametrize("namespace", [("users/bob",), "users/bob", ("users", ""), ("users", "bob\n"), 5, ("users", 5)])
def test_a_namespace_of_items_is_not_a_path_in_disguise(items: Items, namespace: Any) -> None:
    for call in (
        lambda: items.search(namespace=namespace),
        lambda: items.search("word", namespace=namespace),
        lambda: items.get([(namespace, "k")]),
        lambda: items.write([], [(namespace, "k")]),
        lambda: items.write([NewItem(namespace, "k", {})]),
        lambda: items.forget(namespace=namespace),
    ):
        with pytest.raises(InvalidNamespaceError):
            call()
    assert [item.value for item in items.search()] == [{"secret": 1}]


def test_calls_of_items_with_anything(items: Items) -> None:
    for odd in ANYTHING:
        for call in (
            lambda odd: items.get(odd),
            lambda odd: items.write(odd),
            lambda odd: items.write([], odd),
            lambda odd: items.write([NewItem((), odd, {})], [((), odd)]),
            lambda odd: items.write([NewItem((), "x", odd)], [((), "x")]),
            lambda odd: items.write([NewItem((), "x", {}, ttl=odd)], [((), "x")]),
            lambda odd: items.search(limit=odd),
            lambda odd: items.search(where=odd),
        ):
            with suppress(TrimemError):
                call(odd)
    assert items.get([(("users", "bob"), "k")])[0] is not None


@pytest.mark.parametrize("texts", ["one text", 5, [5]])
def test_what_an_item_says_is_a_list_of_texts(items: Items, texts: Any) -> None:
    with pytest.raises(InvalidInputError, match="texts"):
        items.write([NewItem((), "x", {}, texts)])
