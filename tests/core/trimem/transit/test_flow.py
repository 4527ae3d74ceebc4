"""Every transform keeps the laws of the contract; then what each is for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.contracts.transform import DIM, TransformContract, scattered, vectors
from trimem import InvalidInputError
from trimem.transit.flow import MOST_LOG_SCALE, ActNorm, Chain, Coupling, Orthogonal, Permutation, SwiGLU, Transform

MOVERS = torch.tensor([True, False, True, False, False, False])
MOVED = torch.tensor([False, True, False, True, True, False])


def rotation() -> Orthogonal:
    generator = torch.Generator().manual_seed(0)
    basis, _ = torch.linalg.qr(torch.randn(DIM, DIM, generator=generator))
    return Orthogonal(torch.randn(DIM, generator=generator), basis)


def chain() -> Chain:
    couplings = [Coupling(sides[0], sides[1], 16, blocks=2) for sides in ((MOVERS, MOVED), (MOVED, ~MOVED)) * 6]
    return Chain([rotation(), ActNorm(DIM), Permutation(torch.tensor([3, 1, 0, 5, 2, 4])), *couplings])


class TestPermutation(TransformContract):
    @pytest.fixture
    def transform(self) -> Transform:
        return Permutation(torch.tensor([2, 0, 5, 1, 4, 3]))

    def test_each_dimension_is_named_once(self) -> None:
        with pytest.raises(InvalidInputError, match="once"):
            Permutation(torch.tensor([0, 0, 2]))


class TestOrthogonal(TransformContract):
    @pytest.fixture
    def transform(self) -> Transform:
        return rotation()

    def test_principal_components_come_in_order_and_are_uncorrelated(self) -> None:
        data = vectors(500, seed=4) @ torch.randn(DIM, DIM, generator=torch.Generator().manual_seed(1)) + 3
        covariance = torch.cov(Orthogonal.principal(data)(data).T)
        variance = covariance.diagonal()
        assert (variance.diff() <= 0).all()
        assert (covariance - variance.diag()).abs().max() < 1e-4 * variance[0]

    def test_what_is_no_rotation_is_refused(self) -> None:
        with pytest.raises(InvalidInputError, match="orthonormal"):
            Orthogonal(torch.zeros(2), torch.ones(2, 2))


class TestActNorm(TransformContract):
    @pytest.fixture
    def transform(self) -> Transform:
        return scattered(ActNorm(DIM))

    def test_it_begins_by_the_data(self) -> None:
        data = vectors(300, seed=6) * torch.tensor([100.0, 1.0, 0.1, 1.0, 1.0, 1e-9]) + 7
        norm = ActNorm(DIM)
        norm.initialize(data)
        normal = norm(data)
        torch.testing.assert_close(normal.mean(0), torch.zeros(DIM), atol=1e-3, rtol=0)
        torch.testing.assert_close(normal.std(0, correction=0)[:5], torch.ones(5), atol=1e-3, rtol=0)
        assert normal.std(0)[5] < 1e-3, "what does not vary is not blown up"

    def test_constants_are_left_alone(self) -> None:
        norm = ActNorm(DIM)
        norm.initialize(torch.full((9, DIM), 4.0))
        assert norm(torch.full((1, DIM), 4.0)).abs().max() == 0


class TestCoupling(TransformContract):
    @pytest.fixture
    def transform(self) -> Transform:
        return scattered(Coupling(MOVERS, MOVED, 16))

    def test_it_begins_as_the_identity(self) -> None:
        x = vectors(5, seed=7)
        assert torch.equal(Coupling(MOVERS, MOVED, 16)(x), x)

    def test_only_the_moved_move(self, transform: Transform) -> None:
        x = vectors(5, seed=8)
        y = transform(x)
        assert torch.equal(y[:, ~MOVED], x[:, ~MOVED])
        assert (y[:, MOVED] != x[:, MOVED]).any()
        idle = x.clone()
        idle[:, 5] += 9  # neither moves nor is moved
        assert torch.equal(transform(idle)[:, :5], y[:, :5])

    @pytest.mark.parametrize("size", [1e6, 1e30])
    def test_scale_is_bounded_whatever_comes_in(self, size: float) -> None:
        coupling = scattered(Coupling(MOVERS, MOVED, 16), 10.0)
        x = vectors(8, seed=9, scale=size)
        assert (coupling.logabsdet(x).abs() <= MOST_LOG_SCALE * int(MOVED.sum())).all()
        assert coupling(x).isfinite().all()
        assert coupling.inverse(x).isfinite().all()

    @pytest.mark.parametrize(
        ("movers", "moved"), [(MOVERS, MOVERS), (MOVERS, torch.zeros(6).bool()), (torch.zeros(6).bool(), MOVED)]
    )
    def test_sides_that_are_none_are_refused(self, movers: Tensor, moved: Tensor) -> None:
        with pytest.raises(InvalidInputError, match="some dimensions move others"):
            Coupling(movers, moved, 4)


class TestChain(TransformContract):
    reach = 1.0

    @pytest.fixture
    def transform(self) -> Transform:
        return scattered(chain(), 0.02)


def test_a_network_begins_by_returning_nothing() -> None:
    assert not SwiGLU(4, 8, 3, blocks=3)(torch.randn(5, 4)).any()
