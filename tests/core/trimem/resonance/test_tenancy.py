"""What one tenant writes changes nothing of what another finds: neither which slots nor a score nor their order."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from trimem import ResonanceBank, ResonanceConfig, Turn
from trimem.resonance import sounds
from trimem.resonance.bank import By
from trimem.resonance.phonemes import EnglishPhonemizer
from trimem.resonance.sought import Sought
from trimem.resonance.sounds import NamespaceSounds, Said
from trimem.resonance.units import split_units

CONFIG = ResonanceConfig(lexicon_words=1000)
MINE = ("acme", "calls")
OTHERS = (("b",), ("acme",), ("acme", "call"), ("acme2", "calls"), ("acme", "calls2"))
START = datetime(2026, 5, 1, 10, tzinfo=UTC)
TEXTS = (
    "She never spoke of the Reichenbach falls again.",
    "The boat left at noon and the garden was full of roses.",
    "Ilse Marquardt heads finance now.",
    "Who talked about the boat on Tuesday?",
    "The key to the cellar is with the plumber.",
    "It rained on Tuesday, and the plumber never came again.",
    "Noon. The market was full.",
)
QUERIES: dict[By, Sequence[str]] = {
    "sound": ("who talked about roychenbeck", "the both left at moon", "ilsa market", "never again"),
    "meaning": ("the plumber and the boat", "what is full of roses"),
    "place": ("turn 2", "minute 3", "word 12"),
    "auto": ("who is ilsa market", "the boat left at noon", "turn 1", "minute 2", "where is the cellar key"),
}


class Bag:
    """An encoder that is quick: each word is a direction of its own."""

    fingerprint = "bag"

    def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        rows = np.zeros((len(texts), 32), np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in text.lower().split():
                row += np.random.default_rng(zlib.crc32(word.encode())).normal(size=32)
        unit: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return unit

    def encode_query(self, text: str) -> NDArray[np.float32]:
        vector: NDArray[np.float32] = self.encode_documents([text])[0]
        return vector


def opened(folder: Path) -> ResonanceBank:
    return ResonanceBank.open(folder, encoder=Bag(), config=CONFIG, clock=lambda: START)


def found(bank: ResonanceBank) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Return all that a tenant is told, whichever way it asks."""
    told: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for by, queries in QUERIES.items():
        for query in queries:
            hits = bank.recall(query, 5, namespace=MINE, by=by)
            told[by, query] = [dataclasses.asdict(hit) for hit in hits]
    return told


def test_every_way_to_find_is_tried() -> None:
    assert set(QUERIES) == set(get_args(By))


Act = tuple[str, int, int]

acts = st.lists(
    st.one_of(
        st.tuples(st.just("remember"), st.integers(0, len(OTHERS)), st.integers(0, len(TEXTS) - 1)),
        st.tuples(st.just("forget"), st.integers(0, len(OTHERS)), st.integers(0, len(TEXTS) - 1)),
        st.tuples(st.sampled_from(["ask", "compact", "open again"]), st.just(0), st.just(0)),
    ),
    min_size=3,
    max_size=14,
)


@settings(
    deadline=None, max_examples=8, phases=[Phase.generate]
)  # each opens banks: making a failure smaller takes long
@given(acts=acts, step=st.sampled_from([2, 4096]))
def test_whatever_others_write_a_tenant_finds_what_it_would_find_alone(acts: list[Act], step: int) -> None:
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as folder:
        patch.setattr(sounds, "_STEP", step)
        shared, alone = opened(Path(folder, "shared")), opened(Path(folder, "alone"))
        try:
            for bank in (shared, alone):
                bank.remember([turn(i) for i in (0, 1, 2)], namespace=MINE, ids=["0", "1", "2"])
            for what, who, i in acts:
                if what == "open again":
                    shared.close()
                    shared = opened(Path(folder, "shared"))
                elif what == "compact":
                    shared.compact()
                elif what == "ask":
                    assert found(shared) == found(alone)
                else:
                    namespace = (*OTHERS, MINE)[who]
                    write(shared, what, namespace, i)
                    if MINE[: len(namespace)] == namespace:  # to forget above is to forget here, too
                        write(alone, what, namespace, i)
            assert found(shared) == found(alone)
        finally:
            shared.close()
            alone.close()


def test_slots_sound_the_same_whether_they_were_read_at_once_or_one_by_one(english: EnglishPhonemizer) -> None:
    """What others write between them tells into how many pieces they are read."""

    def spoken(text: str) -> Said:
        units = [unit.strip() for unit in split_units(text)]
        return Said(units, english(units))

    at_once, one_by_one = NamespaceSounds(), NamespaceSounds()
    at_once.put([(i, spoken(text)) for i, text in enumerate(TEXTS)])
    for i, text in enumerate(TEXTS):
        one_by_one.put([(i, spoken(text))])
    for query in QUERIES["sound"]:
        sought = Sought.of(zip(query.split(), english(query.split()), strict=True))
        assert at_once.search(sought, None) == one_by_one.search(sought, None)


def turn(i: int) -> Turn:
    return Turn("Anna" if i % 2 else "Ben", START + timedelta(minutes=i), TEXTS[i])


def write(bank: ResonanceBank, what: str, namespace: tuple[str, ...], i: int) -> None:
    if what == "remember":
        bank.remember(turn(i), namespace=namespace, ids=str(i))
    else:
        bank.forget(namespace=namespace, where={"time": turn(i).metadata["time"]})


@pytest.mark.parametrize("written", ["before", "after", "between"])
def test_a_large_neighbour_takes_no_candidates_and_makes_no_word_common(written: str, tmp_path: Path) -> None:
    """More slots of others than are ever candidates, of the very words that are asked for."""
    many = [f"{TEXTS[i % len(TEXTS)]} Reichenbach plumber boat {i}." for i in range(150)]
    with opened(tmp_path / "shared") as shared, opened(tmp_path / "alone") as alone:
        if written == "before":
            shared.remember(many, namespace="b")
        for i in range(len(TEXTS)):
            if written == "between":
                shared.remember(many[20 * i : 20 * i + 20], namespace="b")
                assert found(shared) == found(alone)
            for bank in (shared, alone):
                bank.remember(turn(i), namespace=MINE)
        if written == "after":
            shared.remember(many, namespace="b", ttl=timedelta(days=1))
        assert found(shared) == found(alone)
        shared.forget(namespace="b")
        assert found(shared) == found(alone)
