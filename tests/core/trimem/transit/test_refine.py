"""Codes are refined to what expands no worse, whatever they expand by."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.core.trimem.transit.test_idrp import CODE, curved, made
from trimem.transit.refine import refine


def missed(codes: Tensor, x: Tensor) -> Tensor:
    return (bent(codes) - x).square().sum(1)


def bent(codes: Tensor) -> Tensor:
    """Return a curve in the plane."""
    return torch.cat([codes, codes.square()], dim=1)


def test_the_nearest_point_of_a_curve_is_found() -> None:
    x = torch.tensor([[0.5, 1.0], [0.0, 0.2], [-1.0, 3.0], [2.0, 4.0]])
    along = torch.linspace(-3, 3, 60_001)[:, None]
    nearest = torch.stack([missed(along, row[None]).min() for row in x])
    found = refine(bent, x, x[:, :1], torch.ones(1), 30)
    torch.testing.assert_close(missed(found, x), nearest, atol=1e-3, rtol=1e-3)
    assert found[3] == 2.0, "it lay on the curve"


@pytest.mark.parametrize("steps", [0, 1, 2, 5])
@pytest.mark.parametrize("size", [1e-20, 1.0, 1e4, 1e15, 1e30])
def test_no_vector_is_expanded_worse(steps: int, size: float) -> None:
    x = size * torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    begun = x[:, :1]
    found = refine(bent, x, begun, torch.full((1,), 2.0), steps)
    assert not (missed(found, x) > missed(begun, x)).any()
    assert steps or torch.equal(found, begun)
    assert refine(bent, x[:0], begun[:0], torch.ones(1), steps).shape == (0, 1)


@pytest.mark.parametrize("numbers", ["float32", "int8"])
def test_a_codec_that_refines_expands_nearer(numbers: str) -> None:
    codec, x = made(numbers, scatter=0.05), curved(200, seed=3)
    before = codec.expand(codec.compress(x))
    codec.config = replace(codec.config, refine=4)
    codes = codec.compress(x)
    after = codec.expand(codes)
    lost = [(expanded - x).square().sum(1) for expanded in (before, after)]
    assert lost[1].mean() < 0.9 * lost[0].mean()
    if numbers == "float32":
        assert (lost[1] <= lost[0] * (1 + 1e-4)).all()
    assert codes.shape == (200, CODE)
    assert all(parameter.grad is None for parameter in codec.parameters())
    torch.testing.assert_close(codec.expand(codes, codec.leftover(x, codes)), x, atol=1e-5, rtol=1e-5)
