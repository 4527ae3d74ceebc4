"""Intervals hold the truth as often as they say, and see through what all systems share."""

from __future__ import annotations

import numpy as np
import pytest

from trimem import InvalidInputError
from trimem.bench.bootstrap import Interval, gap_closed, mean_difference, ratio_of_means


def test_a_difference_is_covered_as_often_as_promised() -> None:
    draw = np.random.default_rng(0)
    covered = 0
    for seed in range(300):
        hardness = draw.exponential(2.0, 80)
        interval = mean_difference(
            hardness + draw.normal(0.5, 1.0, 80), hardness + draw.exponential(0.2, 80), resamples=1000, seed=seed
        )
        covered += interval.low <= 0.3 <= interval.high
    assert 0.91 <= covered / 300 <= 0.98


def test_a_ratio_is_covered_as_often_as_promised() -> None:
    draw = np.random.default_rng(1)
    covered = 0
    for seed in range(300):
        closed = draw.exponential(3.0, 80) + 4.0
        text = closed - draw.normal(2.0, 1.0, 80)
        system = closed - draw.normal(1.5, 1.0, 80)
        interval = gap_closed(closed, system, text, resamples=1000, seed=seed)
        assert interval is not None
        covered += interval.low <= 0.75 <= interval.high
    assert 0.91 <= covered / 300 <= 0.98


def test_pairing_matters() -> None:
    draw = np.random.default_rng(2)
    hardness = draw.normal(0.0, 10.0, 200)
    shifted = hardness + 0.1 + draw.normal(0.0, 0.01, 200)
    paired = mean_difference(shifted, hardness)
    assert paired.value == pytest.approx(0.1, abs=0.005)
    assert paired.high - paired.low < 0.005
    assert 0 < paired.low < paired.value < paired.high
    torn = mean_difference(shifted, draw.permutation(hardness))
    assert torn.high - torn.low > 1
    assert torn.low < 0 < torn.high


def test_the_width_is_that_of_the_standard_error() -> None:
    values = np.random.default_rng(3).normal(5.0, 2.0, 400)
    interval = mean_difference(values, np.zeros(400))
    assert interval.value == pytest.approx(values.mean())
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.05)
    narrower = mean_difference(values, np.zeros(400), confidence=0.5)
    assert interval.low < narrower.low < narrower.high < interval.high


def test_a_constant_shift_is_certain() -> None:
    closed = [5.0, 9.0, 2.0, 7.0]
    text = [value - 2.0 for value in closed]
    half = [value - 1.0 for value in closed]
    assert mean_difference(closed, text) == Interval(2.0, 2.0, 2.0)
    assert gap_closed(closed, half, text) == Interval(0.5, 0.5, 0.5)
    assert gap_closed(closed, closed, text) == Interval(0.0, 0.0, 0.0)
    assert gap_closed(closed, text, text) == Interval(1.0, 1.0, 1.0)


def test_scores_that_grow_and_losses_that_fall_have_the_same_ratio() -> None:
    draw = np.random.default_rng(4)
    closed, system, text = (draw.normal(mean, 1.0, 50) for mean in (5.0, 3.5, 3.0))
    assert gap_closed(closed, system, text) == gap_closed(-closed, -system, -text)


def test_a_ratio_to_nothing_has_no_bounds() -> None:
    draw = np.random.default_rng(5)
    assert ratio_of_means(draw.normal(1.0, 1.0, 50), draw.normal(0.0, 1.0, 50)) is None
    assert ratio_of_means([1.0, 2.0], [0.0, 0.0]) is None
    assert gap_closed([1.0, 2.0], [3.0, 4.0], [1.0, 2.0]) is None


def test_resamples_that_bound_nothing_lie_outside_on_both_sides() -> None:
    under = [1.0, 1.0, 1.0, 1.0, 0.0]  # one resample of 3,125 is 0 throughout
    interval = ratio_of_means([1.0] * 5, under, resamples=50_000)
    assert interval is not None
    assert interval.value == pytest.approx(1.25)
    assert (interval.low, interval.high) == (1.0, 2.5)
    assert ratio_of_means([1.0] * 5, under, resamples=50_000, confidence=0.9999) is None


def test_a_seed_says_it_all() -> None:
    first, second = np.random.default_rng(6).normal(size=(2, 30))
    assert mean_difference(first, second, seed=1) == mean_difference(first, second, seed=1)
    assert mean_difference(first, second, seed=1) != mean_difference(first, second, seed=2)
    assert mean_difference(list(first), list(second)) == mean_difference(first, second)


def test_many_questions_are_drawn_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(7).normal(1.0, 1.0, 100)
    monkeypatch.setattr("trimem.bench.bootstrap._BLOCK", 350)
    interval = mean_difference(values, np.zeros(100), resamples=2000)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * values.std() / 10, rel=0.1)


@pytest.mark.parametrize(
    ("first", "second", "options"),
    [
        ([1.0, 2.0], [1.0], {}),
        ([1.0], [1.0], {}),
        ([], [], {}),
        ([1.0, float("nan")], [1.0, 2.0], {}),
        ([1.0, 2.0], [1.0, float("inf")], {}),
        ([1.0, 2.0], [1.0, 2.0], {"resamples": 0}),
        ([1.0, 2.0], [1.0, 2.0], {"confidence": 0.0}),
        ([1.0, 2.0], [1.0, 2.0], {"confidence": 95.0}),
    ],
)
def test_what_has_no_interval_is_refused(first: list[float], second: list[float], options: dict[str, int]) -> None:
    for interval in (mean_difference, ratio_of_means):
        with pytest.raises(InvalidInputError):
            interval(first, second, **options)
