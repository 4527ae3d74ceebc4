"""The exact torus inverts, keeps order and adds up; the literal update of the paper does not, and that is stated."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trimem.resonance.phonemes import ARPABET, EnglishPhonemizer
from trimem.resonance.torus import (
    DIMS,
    TURN,
    distance,
    hash_phases,
    injections,
    paper_path,
    paper_preimages,
    paper_rotation,
    path,
    phasors,
    quantise,
    translation_path,
    word_phases,
)

spoken_words = st.lists(
    st.lists(st.sampled_from(sorted(ARPABET.values())), max_size=9).map(tuple), min_size=1, max_size=6
)


def some_levels(n: int, bits: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 1 << bits, (n, DIMS), generator=torch.Generator().manual_seed(seed))


@given(spoken_words, st.sampled_from([0.05, 0.15, 0.5]))
def test_phases_are_whole_numbers_of_their_word_alone(words: list[tuple[str, ...]], gain: float) -> None:
    together = word_phases(words, gain)
    assert together.dtype == torch.int64
    assert ((together >= 0) & (together < TURN)).all()
    for word, phases in zip(words, together, strict=True):
        assert torch.equal(word_phases([word], gain)[0], phases)


def test_phases_follow_their_formula() -> None:
    """Against the same sum in plain floats."""
    from trimem.resonance.phonemes import features
    from trimem.resonance.torus import _projection

    word = ("ɹ", "aɪ", "k", "ʌ", "n", "b", "ɑ", "k")
    z = np.zeros(DIMS)
    turn = np.eye(DIMS)
    for segment in features(word):
        z += turn @ (_projection().numpy() / (1 << 20)) @ segment
        turn = paper_rotation() @ turn
    expected = (0.15 * z) % 1.0
    apart = np.abs(word_phases([word], 0.15)[0].numpy() / TURN - expected)
    assert np.minimum(apart, 1 - apart).max() < 1e-4


def test_words_that_sound_alike_lie_near_one_another(english: EnglishPhonemizer) -> None:
    falls, false, volcano = word_phases(english(["falls", "fallz", "volcano"]), 0.15)
    assert distance(falls, false) < distance(falls, volcano)


def test_the_order_of_phonemes_matters() -> None:
    cat, tack = word_phases([("k", "æ", "t"), ("t", "æ", "k")], 0.15)
    assert distance(cat, tack) > 0.1


def test_what_has_no_sound_is_scattered() -> None:
    points = hash_phases([f"sign {i}" for i in range(2000)])
    assert torch.equal(points, hash_phases([f"sign {i}" for i in range(2000)]))
    shares = quantise(points, 1).double().mean(0)
    assert ((shares - 0.5).abs() < 0.06).all()
    assert hash_phases(["\ud800"]).shape == (1, DIMS)


@given(st.integers(0, 10**7), st.sampled_from([1, 2, 3]), st.integers(0, 99))
def test_the_path_inverts_exactly(start: int, bits: int, seed: int) -> None:
    levels = some_levels(40, bits, seed)
    pushed = injections(levels, start, bits)
    origin = torch.full((DIMS,), TURN - 5)
    states = path(pushed, origin)
    before = torch.cat([origin[None], states[:-1]])
    assert torch.equal((states - before) % TURN, pushed)
    # A stretch sums to one difference, whatever lies before it.
    assert torch.equal((states[30] - states[10]) % TURN, pushed[11:31].sum(0) % TURN)


def test_the_path_knows_the_order_of_words() -> None:
    levels = some_levels(2000, 1)
    shuffled = levels[torch.randperm(2000, generator=torch.Generator().manual_seed(1))]
    origin = torch.zeros(DIMS, dtype=torch.int64)
    ends = [path(injections(each, 0, 1), origin)[-1] for each in (levels, shuffled)]
    assert distance(*ends) > 0.3


def test_every_word_is_known_again_by_what_it_injects() -> None:
    levels = torch.unique(some_levels(300, 2), dim=0)
    pushed = injections(levels, 12_345, 2)[7]
    same = [i for i in range(len(levels)) if torch.equal(injections(levels[i : i + 1], 12_352, 2)[0], pushed)]
    assert same == [7]


def test_fewer_coordinates_leave_the_rest_at_rest() -> None:
    pushed = injections(some_levels(5, 1)[:, :6], 3, 1)
    assert (pushed[:, 6:] == 0).all()
    assert (pushed[:, :6] != 0).all()


def test_distance_wraps_around() -> None:
    left, right = torch.tensor([TURN - 1, 0]), torch.tensor([1, 0])
    assert math.isclose(float(distance(left, right)), 2 / TURN)


def test_phasors_sum_cosines() -> None:
    a, b = torch.rand(2, 5, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(phasors(a) @ phasors(b), (2 * math.pi * (a - b)).cos().sum())


class TestPaper:
    """What the paper claims of its update, and what is so."""

    def test_one_point_in_five_has_exactly_one_predecessor(self) -> None:
        counts = paper_preimages(np.random.default_rng(0).random((200_000, DIMS)))
        unique = (counts == 1).mean(axis=0).prod()  # the rotors are independent of one another
        assert unique == pytest.approx(0.197, abs=0.01)

    def test_every_step_destroys_more_than_a_bit(self) -> None:
        counts = paper_preimages(np.random.default_rng(0).random((200_000, DIMS)))
        lost = 0.0
        for rotor in counts.T:
            share = rotor / rotor.sum()  # a state from the uniform distribution lands here so often
            lost += float((share[rotor > 0] * np.log2(rotor[rotor > 0])).sum())
        assert lost == pytest.approx(1.41, abs=0.03)
        # 16 numbers of 52 bits hold 832 bits at most: what came 590 steps ago has left no trace.
        assert 16 * 52 / lost == pytest.approx(590, rel=0.03)

    def test_two_pasts_end_in_one_state(self) -> None:
        """R x = R y mod 1 for points that differ by R^-1 (1, 0): from there on the two paths are one."""
        rotation = paper_rotation()
        step = np.zeros(DIMS)
        step[0] = 1.0
        shift = rotation.T @ step
        y = np.full(DIMS, 0.5)
        y[:2] = np.where(shift[:2] > 0, 0.01, 0.99)
        x = y + shift
        assert ((x >= 0) & (x < 1)).all()
        assert np.abs(x - y).max() > 0.1
        pushed = np.random.default_rng(1).random((50, DIMS))
        apart = np.abs(paper_path(pushed, x) - paper_path(pushed, y))
        assert np.minimum(apart, 1 - apart).max() < 1e-9

    def test_two_stored_states_tell_what_lies_between(self) -> None:
        pushed = np.random.default_rng(2).random((500, DIMS))
        states = paper_path(pushed, np.zeros(DIMS))
        found = (states[1:] - states[:-1] @ paper_rotation().T) % 1.0
        apart = np.abs(found - pushed[1:])
        assert np.minimum(apart, 1 - apart).max() < 1e-12

    def test_the_reading_as_a_translation_loses_the_order(self) -> None:
        random: Any = np.random.default_rng(3)
        pushed = random.random((2000, DIMS))
        one = translation_path(pushed, np.zeros(DIMS))[-1]
        other = translation_path(random.permutation(pushed), np.zeros(DIMS))[-1]
        apart = np.abs(one - other)
        assert np.minimum(apart, 1 - apart).max() < 1e-9
