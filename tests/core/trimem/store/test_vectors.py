"""What is nearest is found among what may be found, whatever came and went, exactly or in four bits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from trimem import FingerprintMismatch
from trimem.store.vectors import ExactRows, QuantizedRows, SlotVectors

DIM = 16
PATHS = ("a/", "a/b/", "ab/", "a/b/c/", "b/")


def unit(draw: np.random.Generator, count: int, dim: int = DIM) -> np.ndarray:
    vectors = draw.standard_normal((count, dim)).astype(np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


class VectorsFollowTheirRows(RuleBasedStateMachine):
    """Slots come, go and come again under ids that were used before; a dictionary tells what is true."""

    exact_slots = 1000

    @initialize(seed=st.integers(0, 2**32 - 1))
    def begin(self, seed: int) -> None:
        self.draw = np.random.default_rng(seed)
        self.held = SlotVectors(DIM, exact_slots=self.exact_slots)
        self.true: dict[int, tuple[str, np.ndarray]] = {}

    @rule(ids=st.lists(st.integers(1, 60), min_size=1, max_size=12, unique=True), path=st.sampled_from(PATHS))
    def put(self, ids: list[int], path: str) -> None:
        vectors = unit(self.draw, len(ids))
        self.held.put(ids, [path] * len(ids), vectors)
        self.true.update({slot: (path, vector) for slot, vector in zip(ids, vectors, strict=True)})

    @rule(ids=st.lists(st.integers(1, 5000), max_size=12))
    def remove(self, ids: list[int]) -> None:
        self.held.remove(ids)
        for slot in ids:
            self.true.pop(slot, None)

    @rule(
        path=st.sampled_from(PATHS),
        k=st.integers(1, 70),
        allowed=st.none() | st.lists(st.integers(1, 5000), max_size=40, unique=True),
    )
    def search(self, path: str, k: int, allowed: list[int] | None) -> None:
        (query,) = unit(self.draw, 1)
        found = self.held.nearest(query, k, path, None if allowed is None else np.array(allowed, np.int64)).tolist()
        may = {
            slot: float(vector @ query)
            for slot, (of, vector) in self.true.items()
            if of.startswith(path) and (allowed is None or slot in allowed)
        }
        assert len(found) == len(set(found)) == min(k, len(may))
        assert set(found) <= set(may)
        assert self.held.count(path) == sum(of.startswith(path) for of, _ in self.true.values())
        if self.held.exact:
            best = sorted(may.values(), reverse=True)[: len(found)]
            assert np.allclose([may[slot] for slot in found], best, atol=1e-6)

    @invariant()
    def as_many_as_there_are(self) -> None:
        if hasattr(self, "held"):
            assert len(self.held) == len(self.true)


class QuantizedVectorsFollowTheirRows(VectorsFollowTheirRows):
    """The same, with four bits a coordinate from the fourth slot on."""

    exact_slots = 3


TestExact = VectorsFollowTheirRows.TestCase
TestQuantized = QuantizedVectorsFollowTheirRows.TestCase
for case in (TestExact, TestQuantized):
    case.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)


def test_four_bits_find_what_is_nearest() -> None:
    draw = np.random.default_rng(0)
    vectors = unit(draw, 3000, 100)  # not a multiple of what turbovec takes
    exact, quantized = ExactRows(100), QuantizedRows(100)
    exact.add(vectors)
    quantized.add(vectors)
    kept = []
    for query in unit(draw, 20, 100):
        wanted = set(exact.nearest(query, 10, None).tolist())
        kept.append(len(wanted & set(quantized.nearest(query, 64, None).tolist())) / 10)
    assert np.mean(kept) >= 0.98


def test_a_bank_that_grows_goes_over_to_four_bits_and_finds_the_same() -> None:
    draw = np.random.default_rng(1)
    vectors = unit(draw, 40)
    held = SlotVectors(DIM, exact_slots=20)
    held.put(range(1, 21), ["a/"] * 20, vectors[:20])
    assert held.exact
    held.put(range(21, 41), ["a/"] * 20, vectors[20:])
    assert not held.exact
    assert [held.nearest(vector, 1, "a/", None).tolist() for vector in vectors] == [[i] for i in range(1, 41)]


def test_vectors_of_another_encoder_are_refused() -> None:
    held = SlotVectors(DIM)
    with pytest.raises(FingerprintMismatch, match="holds vectors of 16 dimensions, the encoder makes 8"):
        held.put([1], ["a/"], np.ones((1, 8), np.float32))
    with pytest.raises(FingerprintMismatch, match="holds vectors of 16 dimensions, the encoder makes 8"):
        held.nearest(np.ones(8, np.float32), 1, "a/", None)


def test_what_was_removed_is_not_left_in_memory() -> None:
    rows = ExactRows(DIM)
    secret = np.full((1, DIM), 0.777, np.float32)
    rows.add(np.zeros((3, DIM), np.float32))
    rows.add(secret)
    rows.swap_remove(3)
    assert not (rows._vectors[:4] == 0.777).any()
