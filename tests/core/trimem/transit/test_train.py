"""A fit begins as PCA, never ends below it, learns what is curved, and knows how far off it is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.core.trimem.transit.test_idrp import CODE, DIM, curved
from trimem import InvalidInputError
from trimem.transit.config import TransitConfig
from trimem.transit.idrp import Idrp
from trimem.transit.objectives import neighbours, reconstruction
from trimem.transit.train import Fit, fit, plot_fit

CONFIG = TransitConfig(3, layers=2, hidden=32, predictor_hidden=64)


def loss(codec: Idrp, x: Tensor) -> float:
    return float(reconstruction(x, codec.expand(codec.compress(x))))


@pytest.fixture(scope="module")
def fitted() -> Fit:
    return fit(curved(2000, seed=0), CONFIG, steps=400, batch=128, seed=1)


def test_what_is_curved_is_learned_beyond_pca(fitted: Fit) -> None:
    fresh = curved(1000, seed=10)
    pca = fit(curved(2000, seed=0), CONFIG, steps=0, seed=1).codec
    assert loss(fitted.codec, fresh) < 0.7 * loss(pca, fresh)
    assert fitted.points[0].loss == 1.0
    assert fitted.best.loss < 0.7


@given(
    seed=st.integers(0, 1000),
    kind=st.sampled_from(["noise", "constants", "curved", "one direction", "heavy tails", "few"]),
    objective=st.sampled_from(["reconstruction", "neighbours"]),
    numbers=st.sampled_from(["int8", "int4", "float32"]),
    rate=st.sampled_from([3e-3, 10.0]),
    refine=st.sampled_from([0, 3]),
)
@settings(max_examples=12, deadline=None)
def test_it_never_ends_below_pca(seed: int, kind: str, objective: str, numbers: str, rate: float, refine: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    data = torch.randn(5 if kind == "few" else 60, DIM, generator=generator)
    if kind == "constants":
        data = torch.full_like(data, seed)
    elif kind == "curved":
        data = curved(60, seed)
    elif kind == "one direction":
        data = data[:, :1] * torch.ones(1, DIM)
    elif kind == "heavy tails":
        data = data.pow(7)
    config = TransitConfig(CODE, numbers=numbers, layers=2, hidden=8, predictor_hidden=8, refine=refine)
    wanted = {"reconstruction": reconstruction, "neighbours": neighbours}[objective]
    learned, held = data[: len(data) // 2 + 1], data[len(data) // 2 :]
    done = fit(learned, config, validation=held, objective=objective, steps=12, batch=16, rate=rate, seed=seed)
    pca = Idrp.principal(learned, config, seed=seed)
    ours, floor = (wanted(held, codec.expand(codec.compress(held))) for codec in (done.codec, pca))
    if objective == "reconstruction":
        assert ours <= floor * (1 + 1e-5) + 1e-12
    assert done.best.loss <= 1.0
    assert all(parameter.isfinite().all() for parameter in done.codec.parameters())


def test_the_same_seed_makes_the_same_codec() -> None:
    data = curved(200, seed=2)
    prints = [fit(data, CONFIG, steps=15, batch=32, seed=seed).codec.fingerprint for seed in (3, 3, 4)]
    assert prints[0] == prints[1] != prints[2]


def test_nothing_of_torchs_own_randomness_is_touched() -> None:
    torch.manual_seed(11)
    wanted = torch.rand(3)
    torch.manual_seed(11)
    fit(curved(50, seed=2), CONFIG, steps=3, batch=8)
    assert torch.equal(torch.rand(3), wanted)


def test_it_stops_early_and_keeps_the_best() -> None:
    data = curved(30, seed=5)  # so few that it soon learns them by heart
    done = fit(data, CONFIG, steps=800, batch=16, patience=2, rate=1e-2)
    assert done.points[-1].step < 800
    assert done.points[-1].loss > done.best.loss


def test_neighbours_are_kept_better_when_they_are_what_is_aimed_at() -> None:
    data, fresh = curved(1500, seed=6), curved(500, seed=7)
    unit = [x / x.norm(dim=1, keepdim=True) for x in (data, fresh)]
    aims = ("reconstruction", "neighbours")
    lost = []
    for aim in aims:
        codec = fit(unit[0], TransitConfig(2, layers=2, hidden=32), objective=aim, steps=150, batch=128).codec
        lost.append(float(neighbours(unit[1], codec.expand(codec.compress(unit[1])))))
    assert lost[1] < lost[0]


def test_neighbours_kept_are_no_loss() -> None:
    x = curved(20, seed=8)
    assert float(neighbours(x, x)) == 0.0
    assert float(neighbours(x, x.flip(0))) > 0


def test_expected_errors_are_those_that_come(fitted: Fit) -> None:
    """By fifth of the expected error: what is expected to be worse is, and by about as much."""
    fresh = curved(4000, seed=12)
    codes = fitted.codec.compress(fresh)
    expected = fitted.codec.expected_error(codes).square()
    missed = (fitted.codec.expand(codes) - fresh).square().mean(1)
    groups = expected.argsort().chunk(5)
    predicted = torch.stack([expected[rows].mean() for rows in groups])
    actual = torch.stack([missed[rows].mean() for rows in groups])
    assert (actual.diff() > 0).all()
    assert ((actual / predicted).log().abs() < 0.5).all()
    assert actual[-1] > 2 * actual[0]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"objective": "beauty"}, "reconstruction, neighbours"),
        ({"steps": -1}, "steps must not be negative"),
        ({"batch": 1}, "batch at least 2"),
        ({"rate": 0.0}, "rate above 0"),
        ({"patience": 0}, "patience at least 1"),
        ({"validation": torch.zeros(4, 3)}, r"\(n, 16\)"),
        ({"data": torch.zeros(2, DIM)}, "at least 3 vectors, got 2"),
        ({"data": torch.full((9, DIM), float("nan"))}, "NaN"),
    ],
)
def test_what_cannot_be_fitted_is_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        fit(**{"data": curved(20, seed=0), "config": CONFIG, "steps": 2, **wrong})  # type: ignore[arg-type]


def test_a_fit_is_drawn(fitted: Fit, tmp_path: Path) -> None:
    plot_fit(fitted, tmp_path / "fit.png")
    assert (tmp_path / "fit.png").read_bytes().startswith(b"\x89PNG")


def test_what_might_as_well_have_been_met_is_learned_from() -> None:
    """Vectors of one half are learned from, and the other half is met: their mirror images."""
    data = torch.randn(600, 8, generator=torch.Generator().manual_seed(0))
    data[:, 4:] = data[:, :4].abs()
    fits = [
        fit(data[data[:, 0] > 0], CONFIG, validation=data[data[:, 0] < 0], steps=150, batch=64, augment=augment)
        for augment in (None, lambda x, _: torch.cat([-x[:, :1], x[:, 1:]], 1))
    ]
    assert fits[1].best.loss < fits[0].best.loss
