"""Ways to store a vector in few bytes: trimem's codec and what it is compared with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from trimem.errors import InvalidInputError, MissingDependencyError
from trimem.transit import numbers as stored_numbers
from trimem.transit.config import TransitConfig
from trimem.transit.flow import ActNorm, Orthogonal, SwiGLU
from trimem.transit.idrp import Idrp
from trimem.transit.pictures import looks
from trimem.transit.train import Augment, Draw, fit, train


@dataclass(frozen=True, slots=True)
class Task:
    """What systems are fitted to.

    Attributes:
        train: (n, dim).
        validation: (m, dim), chooses the best state of what is trained.
        config: Of trimem's codec; the code size is that of all.
        objective: Of trimem's codec and the autoencoder's.
        steps: Of training, for both.
        batch: Vectors a step.
        rate: Of learning, for both.
        seed: Of weights and batches.
        augment: Changes what is learned from.
        draw: Makes what is learned from, if it is more than ``train``.
    """

    train: Tensor
    validation: Tensor
    config: TransitConfig
    objective: str
    steps: int
    batch: int
    rate: float
    seed: int
    augment: Augment | None = None
    draw: Draw | None = None


class Fitted(Protocol):
    """A system that was fitted."""

    def compress(self, x: Tensor) -> Any:
        """Return what is stored of vectors, (n, dim)."""
        ...

    def expand(self, stored: Any) -> Tensor:
        """Return vectors again, (n, dim)."""
        ...

    def nbytes(self, dim: int) -> int:
        """Return the bytes of one vector."""
        ...


@dataclass(frozen=True, slots=True)
class _Codec:
    codec: Idrp

    def compress(self, x: Tensor) -> Tensor:
        return self.codec.compress(x)

    def expand(self, stored: Tensor) -> Tensor:
        return self.codec.expand(stored)

    def nbytes(self, dim: int) -> int:
        return self.codec.nbytes


def idrp(task: Task) -> Fitted:
    """The codec of transit memory."""
    done = fit(
        task.train,
        task.config,
        validation=task.validation,
        objective=task.objective,
        steps=task.steps,
        batch=task.batch,
        rate=task.rate,
        augment=task.augment,
        draw=task.draw,
        seed=task.seed,
    )
    return _Codec(done.codec)


def pca(task: Task) -> Fitted:
    """Principal components, in the same numbers."""
    return _Codec(Idrp.principal(task.train, replace(task.config, layers=0, predictor_hidden=1, blocks=1, refine=0)))


class _Autoencoder(nn.Module):
    """Two networks beside PCA, each at first adding nothing to it."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        dim, code, self.config = task.train.shape[1], task.config.code_dim, task.config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(task.seed)
            orders = None if task.config.patch is None else looks(task.config.patch)
            self.rotation, self.norm = Orthogonal.principal(task.train, orders), ActNorm(dim)
            self.norm.initialize(self.rotation(task.train))
            self.active, self.code = task.config.active(dim), code
            hidden = _equal_width(task)
            self.encoder = SwiGLU(self.active, hidden, code, task.config.blocks)
            self.decoder = SwiGLU(code, hidden, dim, task.config.blocks)
        self.scale: Tensor
        self.register_buffer("scale", torch.ones(code))
        self.settle(task.train[:8192])

    @torch.no_grad()
    def settle(self, data: Tensor) -> None:
        self.scale.copy_(stored_numbers.scales(self.encode(data), self.config.numbers))

    def wake(self) -> None:
        """Nothing here sleeps."""

    def encode(self, x: Tensor) -> Tensor:
        z = self.norm(self.rotation(x))
        code: Tensor = z[:, : self.code] + self.encoder(z[:, : self.active])
        return code

    def decode(self, code: Tensor) -> Tensor:
        z = self.decoder(code)
        z = torch.cat([z[:, : self.code] + code, z[:, self.code :]], dim=1)
        return self.rotation.inverse(self.norm.inverse(z))

    def refined(self, x: Tensor, comp: Tensor, steps: int) -> Tensor:
        return comp  # its encoder is what finds codes

    @torch.no_grad()
    def compress(self, x: Tensor) -> Tensor:
        return torch.cat([self.pack(self.encode(rows)) for rows in x.split(8192)])

    @torch.no_grad()
    def expand(self, stored: Tensor) -> Tensor:
        return torch.cat([self.decode(self.unpack(rows)) for rows in stored.split(8192)])

    def pack(self, code: Tensor) -> Tensor:
        numbers = self.config.numbers
        return stored_numbers.pack(stored_numbers.counts(code, self.scale, numbers), numbers)

    def unpack(self, codes: Tensor) -> Tensor:
        counts = stored_numbers.unpack(codes, self.config.numbers)
        return counts.float() if counts.is_floating_point() else counts * self.scale

    def nbytes(self, dim: int) -> int:
        return stored_numbers.nbytes(self.code, self.config.numbers)


def _equal_width(task: Task) -> int:
    """Return the width at which the autoencoder has about as many weights as the codec of transit memory."""
    dim, config = task.train.shape[1], task.config
    codec = Idrp(dim, config)
    wanted = sum(parameter.numel() for parameter in codec.parameters())

    def weights(hidden: int) -> int:
        nets = (
            SwiGLU(config.active(dim), hidden, config.code_dim, config.blocks),
            SwiGLU(config.code_dim, hidden, dim, config.blocks),
        )
        return sum(parameter.numel() for net in nets for parameter in net.parameters())

    return min(range(8, 2048, 8), key=lambda hidden: abs(weights(hidden) - wanted))


def autoencoder(task: Task) -> Fitted:
    """An autoencoder with as many weights, trained as long by the same recipe."""
    model = _Autoencoder(task)
    train(
        model,
        task.train,
        task.validation,
        objective=task.objective,
        steps=task.steps,
        batch=task.batch,
        rate=task.rate,
        patience=8,
        augment=task.augment,
        draw=task.draw,
        generator=torch.Generator().manual_seed(task.seed),
    )
    return model


@dataclass(frozen=True, slots=True)
class _Index:
    index: Any
    rotation: Any  # held, since faiss does not own it

    def compress(self, x: Tensor) -> Any:
        return self.index.sa_encode(np.ascontiguousarray(x.numpy()))

    def expand(self, stored: Any) -> Tensor:
        return torch.from_numpy(self.index.sa_decode(stored))

    def nbytes(self, dim: int) -> int:
        return int(self.index.sa_code_size())


def _quantizer(task: Task, rotated: bool) -> Fitted:
    try:
        import faiss
    except ImportError as error:
        raise MissingDependencyError('pq and opq need faiss: pip install "trimem[faiss]"') from error
    faiss.omp_set_num_threads(torch.get_num_threads())
    dim, size = task.train.shape[1], stored_numbers.nbytes(task.config.code_dim, task.config.numbers)
    pieces = max(n for n in range(1, size + 1) if dim % n == 0)
    if len(task.train) < 39 << 4:
        raise InvalidInputError(
            f"product quantisation needs at least {39 << 4} vectors to train on, got {len(task.train)}"
        )
    bits = min(8, (len(task.train) // 39).bit_length() - 1)
    index, rotation = faiss.index_factory(dim, f"PQ{pieces}x{bits}"), None
    if rotated:
        rotation = faiss.OPQMatrix(dim, pieces)
        rotation.niter, rotation.max_train_points = 20, 16_384
        rotation.pq = helper = faiss.ProductQuantizer(dim, pieces, bits)
        rotation.train(np.ascontiguousarray(task.train.numpy()))
        rotation.pq = None
        del helper
        index = faiss.IndexPreTransform(rotation, index)
    index.train(np.ascontiguousarray(task.train[:65_536].numpy()))
    return _Index(index, rotation)


def pq(task: Task) -> Fitted:
    """Product quantisation (Jégou et al., 2011), in no more bytes than the code."""
    return _quantizer(task, rotated=False)


def opq(task: Task) -> Fitted:
    """Product quantisation after a rotation that was fitted to it (Ge et al., 2013)."""
    return _quantizer(task, rotated=True)


@dataclass(frozen=True, slots=True)
class _Scalar:
    bits: int

    def compress(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        low = x.amin(1, keepdim=True)
        step = ((x.amax(1, keepdim=True) - low) / ((1 << self.bits) - 1)).clamp_min(torch.finfo(torch.float32).tiny)
        return ((x - low) / step).round().to(torch.uint8), low, step

    def expand(self, stored: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        counts, low, step = stored
        return counts * step + low

    def nbytes(self, dim: int) -> int:
        return -(-dim * self.bits // 8) + 8


def int8(_task: Task) -> Fitted:
    """Each number in 8 bits between the vector's least and greatest."""
    return _Scalar(8)


def int4(_task: Task) -> Fitted:
    """Each number in 4 bits between the vector's least and greatest."""
    return _Scalar(4)


SYSTEMS: dict[str, Callable[[Task], Fitted]] = {
    "idrp": idrp,
    "pca": pca,
    "autoencoder": autoencoder,
    "opq": opq,
    "pq": pq,
    "int8": int8,
    "int4": int4,
}
"""Ways to store a vector, by name."""

FIXED = ("int8", "int4")
"""Those whose size does not follow the code's."""
