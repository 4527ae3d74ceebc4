"""Invertible transforms: what goes forward comes back, and how much volume changes on the way is known.

The parts of a normalising flow (Dinh et al., Real NVP, arXiv 1605.08803; Kingma and Dhariwal, Glow, arXiv
1807.03039). Everything is computed in float32, whatever comes in: twelve couplings come back to within
4e-6 in float32 and to within .3 in half precision, so a result in half precision could not be inverted.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from trimem.errors import InvalidInputError

LARGEST_INPUT = 8.0
"""What a sub-network is shown ends here, in standard deviations: unbounded inputs made training diverge."""

MOST_LOG_SCALE = 1.0
"""A coupling stretches by at most e: ``exp`` of an unbounded number overflows."""

_ROWS = 8192

_LEAST_SCALE = 1e-4
"""Of the widest dimension's: a dimension that hardly varies is not blown up to the width of the others."""


class Transform(nn.Module, ABC):
    """A map of (n, dim) to (n, dim) with an inverse.

    Every transform keeps one law: ``inverse(forward(x)) == x`` and ``forward(inverse(y)) == y``, up to float32's
    rounding, and :meth:`logabsdet` is what autograd makes of the Jacobian.
    """

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Return y, (n, dim) in float32.

        Args:
            x: (n, dim) in any floating point.
        """

    @abstractmethod
    def inverse(self, y: Tensor) -> Tensor:
        """Return x, (n, dim) in float32.

        Args:
            y: (n, dim) in any floating point.
        """

    @abstractmethod
    def logabsdet(self, x: Tensor) -> Tensor:
        """Return the logarithm of the absolute determinant of the Jacobian of :meth:`forward` at x, (n,)."""


class Permutation(Transform):
    """Another order of the dimensions.

    Args:
        order: (dim,) in int64, dimension ``order[i]`` of x is dimension ``i`` of y.

    Raises:
        InvalidInputError: A dimension is missing.
    """

    def __init__(self, order: Tensor) -> None:
        super().__init__()
        if order.ndim != 1 or not torch.equal(order.sort().values.cpu(), torch.arange(len(order))):
            raise InvalidInputError(f"an order names each dimension from 0 once, got {order.tolist()}")
        self.order: Tensor
        self.back: Tensor
        self.register_buffer("order", order)
        self.register_buffer("back", order.argsort())

    def forward(self, x: Tensor) -> Tensor:
        return x.float()[:, self.order]

    def inverse(self, y: Tensor) -> Tensor:
        return y.float()[:, self.back]

    def logabsdet(self, x: Tensor) -> Tensor:
        return torch.zeros(len(x), device=x.device)


class Orthogonal(Transform):
    """A shift and a rotation, fixed: ``y = (x - mean) @ basis``.

    Args:
        mean: (dim,).
        basis: (dim, dim) with orthonormal columns.

    Raises:
        InvalidInputError: The columns are not orthonormal.
    """

    def __init__(self, mean: Tensor, basis: Tensor) -> None:
        super().__init__()
        dim = len(mean)
        if basis.shape != (dim, dim) or not torch.allclose(basis.T @ basis, torch.eye(dim).to(basis), atol=1e-4):
            raise InvalidInputError(f"a basis for {dim} dimensions is square with orthonormal columns")
        self.mean: Tensor
        self.basis: Tensor
        self.register_buffer("mean", mean.float())
        self.register_buffer("basis", basis.float())

    @classmethod
    def principal(cls, data: Tensor, orders: Tensor | None = None) -> Orthogonal:
        """Return the rotation to principal components of the data, greatest variance first; O(n dim² + dim³).

        Args:
            data: (n, dim).
            orders: (m, dim) in int64, other orders of a vector's numbers that are as likely: it counts in all of them.
        """
        orders = torch.arange(data.shape[1])[None] if orders is None else orders
        mean = data.mean(0, dtype=torch.float64)[orders].mean(0)
        scatter = torch.zeros(len(mean), len(mean), dtype=torch.float64, device=data.device)
        for rows in data.split(_ROWS):
            centred = rows.double() - mean
            scatter += centred.T @ centred
        _, vectors = torch.linalg.eigh(sum(scatter[order][:, order] for order in orders))
        return cls(mean.float(), vectors.flip(1).float())

    def forward(self, x: Tensor) -> Tensor:
        with float32(x):
            return (x.float() - self.mean) @ self.basis

    def inverse(self, y: Tensor) -> Tensor:
        with float32(y):
            return y.float() @ self.basis.T + self.mean

    def logabsdet(self, x: Tensor) -> Tensor:
        return torch.zeros(len(x), device=x.device)


class ActNorm(Transform):
    """A shift and a scale of each dimension, at first those that leave data with mean 0 and deviation 1.

    Args:
        dim: Dimensions.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(dim))
        self.log_scale = nn.Parameter(torch.zeros(dim))

    @torch.no_grad()
    def initialize(self, data: Tensor) -> None:
        """Choose shift and scale by data, (n, dim)."""
        data = data.float()
        deviation = data.std(0, correction=0)
        widest = float(deviation.max())
        self.shift.copy_(data.mean(0))
        self.log_scale.copy_(-deviation.clamp_min(_LEAST_SCALE * widest if widest > 0 else 1.0).log())

    def forward(self, x: Tensor) -> Tensor:
        return (x.float() - self.shift) * self.log_scale.exp()

    def inverse(self, y: Tensor) -> Tensor:
        return y.float() * (-self.log_scale).exp() + self.shift

    def logabsdet(self, x: Tensor) -> Tensor:
        return self.log_scale.sum().expand(len(x))


class SwiGLU(nn.Module):
    """Linear, SwiGLU, Linear (Shazeer, arXiv 2002.05202) beside a linear map, which begins by returning 0.

    Args:
        inputs: Dimensions that come in.
        hidden: Width.
        outputs: Dimensions that go out.
        blocks: Gates in all: all but the first are residual and normalised.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int, blocks: int = 1) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, 2 * hidden)
        self.norms = nn.ModuleList(nn.RMSNorm(hidden) for _ in range(blocks - 1))
        self.gates = nn.ModuleList(nn.Linear(hidden, 2 * hidden) for _ in range(blocks - 1))
        self.downs = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(blocks - 1))
        self.last = nn.Linear(hidden, outputs)
        self.straight = nn.Linear(inputs, outputs, bias=False)
        for zero in (self.last.weight, self.last.bias, self.straight.weight):
            nn.init.zeros_(zero)

    def forward(self, x: Tensor) -> Tensor:
        with float32(x):
            x = x.float().clamp(-LARGEST_INPUT, LARGEST_INPUT)
            h = _gated(self.first(x))
            for norm, gate, down in zip(self.norms, self.gates, self.downs, strict=True):
                h = h + down(_gated(gate(norm(h))))
            out: Tensor = self.last(h) + self.straight(x)
        return out


def float32(x: Tensor) -> torch.autocast:
    """Keep autocast, where it is on, from computing in half precision."""
    return torch.autocast(x.device.type, enabled=False)


def _gated(x: Tensor) -> Tensor:
    """Return (n, hidden) of (n, 2 hidden): one half opens the other."""
    opened, value = x.chunk(2, dim=-1)
    return functional.silu(opened) * value


class Coupling(Transform):
    """Some dimensions move others, which leaves the movers known: ``y2 = x2 * exp(s(x1)) + t(x1)``.

    At first it is the identity.

    Args:
        movers: (dim,) in bool, which dimensions are x1.
        moved: (dim,) in bool, which are x2; what is in neither stays as it is.
        hidden: Width of the sub-network.
        blocks: Its SwiGLU blocks.

    Raises:
        InvalidInputError: No dimension moves or is moved, or one does both.
    """

    def __init__(self, movers: Tensor, moved: Tensor, hidden: int, blocks: int = 1) -> None:
        super().__init__()
        if not movers.any() or not moved.any() or (movers & moved).any():
            raise InvalidInputError(
                f"in a coupling some dimensions move others, got {int(movers.sum())} that move, {int(moved.sum())} "
                f"that are moved and {int((movers & moved).sum())} that do both"
            )
        self.movers: Tensor
        self.moved: Tensor
        self.register_buffer("movers", movers.nonzero().flatten())
        self.register_buffer("moved", moved.nonzero().flatten())
        self.net = SwiGLU(len(self.movers), hidden, 2 * len(self.moved), blocks)

    def forward(self, x: Tensor) -> Tensor:
        x = x.float()
        log_scale, shift = self._motion(x)
        return x.index_copy(1, self.moved, x[:, self.moved] * log_scale.exp() + shift)

    def inverse(self, y: Tensor) -> Tensor:
        y = y.float()
        log_scale, shift = self._motion(y)
        return y.index_copy(1, self.moved, (y[:, self.moved] - shift) * (-log_scale).exp())

    def logabsdet(self, x: Tensor) -> Tensor:
        return self._motion(x.float())[0].sum(1)

    def _motion(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logarithm of the scale and the shift, (n, moved) each."""
        raw, shift = self.net(x[:, self.movers]).chunk(2, dim=-1)
        return MOST_LOG_SCALE * torch.tanh(raw / MOST_LOG_SCALE), shift


class Chain(Transform):
    """Transforms one after the other.

    Args:
        transforms: From the first that is applied.
    """

    def __init__(self, transforms: Sequence[Transform]) -> None:
        super().__init__()
        self.transforms = nn.ModuleList(transforms)

    def forward(self, x: Tensor) -> Tensor:
        for transform in self.transforms:
            x = transform(x)
        return x.float()

    def inverse(self, y: Tensor) -> Tensor:
        for transform in reversed(self.transforms):
            assert isinstance(transform, Transform)
            y = transform.inverse(y)
        return y.float()

    def logabsdet(self, x: Tensor) -> Tensor:
        total = torch.zeros(len(x), device=x.device)
        for transform in self.transforms:
            assert isinstance(transform, Transform)
            total = total + transform.logabsdet(x)
            x = transform(x)
        return total
