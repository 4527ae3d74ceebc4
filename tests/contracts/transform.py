"""The laws of an invertible transform; inherit and give a fixture ``transform`` over ``dim`` dimensions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from trimem.transit.flow import Transform

DIM = 6


def scattered(transform: Transform, scale: float = 0.3) -> Transform:
    """Return a transform whose weights are not those it began with."""
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in transform.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    return transform


def vectors(n: int, seed: int, scale: float = 1.0, dim: int = DIM) -> Tensor:
    return scale * torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))


class TransformContract:
    reach = 1e4
    """How large vectors may be that come back; a long chain loses digits of what is far from all it was made for."""

    dim = DIM

    @pytest.mark.parametrize("size", [0.0, 1e-6, 1.0, 1e4])
    def test_there_and_back(self, transform: Transform, size: float) -> None:
        scale = min(size, self.reach)
        for n in (0, 1, 200):
            x = vectors(n, seed=n, scale=scale, dim=self.dim)
            for there, back in ((transform.forward, transform.inverse), (transform.inverse, transform.forward)):
                torch.testing.assert_close(back(there(x)), x, atol=1e-5 * max(1.0, scale), rtol=1e-5)

    def test_its_volume_is_that_of_the_jacobian(self, transform: Transform) -> None:
        x = vectors(4, seed=1, dim=self.dim)
        for row, said in zip(x, transform.logabsdet(x), strict=True):
            jacobian = torch.autograd.functional.jacobian(lambda v: transform(v[None])[0], row)
            torch.testing.assert_close(said, jacobian.double().slogdet().logabsdet.float(), atol=1e-5, rtol=1e-5)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_it_computes_in_float32(self, transform: Transform, dtype: torch.dtype) -> None:
        x = vectors(3, seed=2, dim=self.dim).to(dtype)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = transform(x)
            back = transform.inverse(y)
        assert y.dtype == back.dtype == torch.float32
        torch.testing.assert_close(back, x.float(), atol=1e-5, rtol=1e-5)

    def test_a_vector_is_transformed_as_if_alone(self, transform: Transform) -> None:
        x = vectors(5, seed=3, dim=self.dim)
        torch.testing.assert_close(transform(x)[2:3], transform(x[2:3]), atol=1e-6, rtol=1e-5)
