"""The codec of transit memory: an invertible network of which half is kept, and a guess of the other half.

After MemoryTransit's IDRP (invertible dimensionality reduction and predictor). A flow turns a vector into
``[z_comp, z_aux]``. Only ``z_comp`` is stored; a small network guesses ``z_aux`` from it, and the way back
through the flow gives the vector again. Begun as here, the codec is PCA: the flow starts with a rotation to
principal components, and everything learned starts by changing nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from trimem.errors import CorruptTensorError, InvalidInputError
from trimem.store.files import write_whole
from trimem.transit import numbers as stored_numbers
from trimem.transit.bound import Corrections, correct
from trimem.transit.config import TransitConfig
from trimem.transit.flow import ActNorm, Chain, Coupling, Orthogonal, SwiGLU
from trimem.transit.numbers import COARSE, NUMBERS
from trimem.transit.pictures import CHANNELS, PictureNet, PicturePredictor, looks
from trimem.transit.refine import refine

_LARGEST = 1e15
"""What lies further out is met by corrections: float32 cannot square or sum much larger numbers."""

_AWAKE = 0.05

_AT_ONCE = 1 << 21
"""Numbers of vectors that are computed at once."""


@dataclass(frozen=True, slots=True)
class Compressed:
    """Vectors as they are stored.

    Attributes:
        codes: (n, width) in the codec's numbers.
        corrections: What keeps the bound, empty where none was asked for.
    """

    codes: Tensor
    corrections: Corrections

    def nbytes(self) -> Tensor:
        """Return the bytes of each vector, (n,) in int64."""
        n, dim = self.codes.shape
        return self.corrections.nbytes(n) + dim * self.codes.element_size()


class Idrp(nn.Module):
    """A codec for vectors of one kind; :func:`trimem.transit.train.fit` makes one.

    Args:
        dim: Numbers of a vector.
        config: How it is built.
        seed: Of the weights that training starts from.

    Raises:
        InvalidInputError: The code would not be smaller than the vector.
    """

    def __init__(self, dim: int, config: TransitConfig, *, seed: int = 0) -> None:
        super().__init__()
        if config.code_dim >= dim:
            raise InvalidInputError(
                f"a code must be smaller than the vector: code_dim is {config.code_dim}, vectors have {dim} numbers"
            )
        self.dim, self.config = dim, config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            rotation, norm = Orthogonal(torch.zeros(dim), torch.eye(dim)), ActNorm(dim)
            couplings = [Coupling(*sides, config.hidden, config.blocks) for sides in _sides(dim, config)]
            self.flow = Chain([rotation, norm, *couplings])
            self.predictor = _predictor(rotation, norm, config)
            self.uncertainty = SwiGLU(config.code_dim, 32, 1)
        self.scale: Tensor
        self.register_buffer("scale", torch.ones(config.code_dim))
        if config.numbers in COARSE:
            self.mix: Tensor
            self.register_buffer("mix", _rotation(config.code_dim, seed))

    @classmethod
    @torch.no_grad()
    def principal(cls, data: Tensor, config: TransitConfig, *, seed: int = 0) -> Idrp:
        """Return the codec that training starts from: PCA of the data at that code size.

        Args:
            data: (n, dim), at least two rows.
            config: How it is built.
            seed: Of the weights that training starts from.

        Raises:
            InvalidInputError: The data is no matrix of finite numbers, or too small.
        """
        data = checked(data)
        if len(data) < 2:
            raise InvalidInputError(f"a codec is fitted to at least 2 vectors, got {len(data)}")
        codec = cls(data.shape[1], config, seed=seed)
        rotation, norm = codec.flow.transforms[:2]
        assert isinstance(norm, ActNorm)
        orders = None if config.patch is None else looks(config.patch)
        rotation.load_state_dict(Orthogonal.principal(data, orders).state_dict())
        norm.initialize(rotation(data))
        codec.settle(data)
        missed = (codec.expand(codec.pack(codec._encoded(data))) - data).square().mean()
        codec.uncertainty.last.bias.fill_(float(missed.clamp_min(torch.finfo(torch.float32).tiny).log()))
        return codec.eval()

    def encode(self, x: Tensor) -> Tensor:
        """Return ``z_comp`` in float32, (n, code_dim), differentiable.

        Args:
            x: (n, dim).
        """
        z: Tensor = self.flow(x)
        return z[:, : self.config.code_dim]

    def decode(self, comp: Tensor) -> Tensor:
        """Return vectors in float32, (n, dim), differentiable.

        Args:
            comp: (n, code_dim) in float32.
        """
        if isinstance(self.predictor, PicturePredictor):
            return self.predictor.expand(comp)
        return self.flow.inverse(torch.cat([comp, self.predictor(comp)], dim=1))

    @torch.no_grad()
    def compress(self, x: Tensor) -> Tensor:
        """Return codes as they are stored, (n, code_dim) in the codec's numbers.

        Args:
            x: (n, dim) in any floating point.

        Raises:
            InvalidInputError: The vectors are of another dimension, or a number is not finite.
        """
        return self.pack(self.code(x))

    @torch.no_grad()
    def code(self, x: Tensor) -> Tensor:
        """Return codes before they are rounded to what is stored, (n, code_dim) in float32.

        Args:
            x: (n, dim) in any floating point.

        Raises:
            InvalidInputError: The vectors are of another dimension, or a number is not finite.
        """
        x = checked(x, self.dim)
        both = zip(_batches(x, self.dim), _batches(self._encoded(x), self.dim), strict=True)
        return torch.cat([self.refined(_tamed(rows), comp, self.config.refine) for rows, comp in both])

    def _encoded(self, x: Tensor) -> Tensor:
        return torch.cat([self.encode(_tamed(rows)) for rows in _batches(checked(x, self.dim), self.dim)])

    def refined(self, x: Tensor, comp: Tensor, steps: int) -> Tensor:
        """Return what :meth:`encode` returned, moved to where it expands to what is nearer x, (n, code_dim)."""
        return refine(self.decode, x.float(), comp, self.spread, steps)

    def pack(self, code: Tensor) -> Tensor:
        """Return codes as they are stored, (n, width), of what :meth:`code` returned."""
        numbers = self.config.numbers
        code = self.place(code) if numbers in COARSE else code
        return stored_numbers.pack(stored_numbers.counts(code, self.scale, numbers), numbers)

    @torch.no_grad()
    def place(self, code: Tensor) -> Tensor:
        """Return codes where they are compared, (n, code_dim): in units of the input, mixed if they are coarse.

        A few bits a number are spent well only where all numbers are as wide, so coarse codes are rotated at random,
        and in these units, where a wide number counts for more, rather than where all have the same deviation.

        Args:
            code: What :meth:`code` returned.
        """
        code = code * self.spread
        return code @ self.mix if self.config.numbers in COARSE else code

    @property
    def step(self) -> Tensor:
        """What :func:`trimem.transit.numbers.counts` of codes are multiplied by to lie there, (code_dim,)."""
        if self.config.numbers in COARSE:
            return self.scale
        return self.spread * self.scale if self.config.numbers == "int8" else self.spread

    @property
    def nbytes(self) -> int:
        """Bytes of a vector as it is stored, without corrections."""
        return stored_numbers.nbytes(self.config.code_dim, self.config.numbers)

    @torch.no_grad()
    def expand(self, codes: Tensor, leftover: Tensor | None = None) -> Tensor:
        """Return vectors, (n, dim) in float32.

        Args:
            codes: As :meth:`compress` made them.
            leftover: As :meth:`leftover` returned it: with it, what was compressed comes back to within 1e-5.

        Raises:
            InvalidInputError: The codes are of another dimension.
        """
        comp = self.unpack(codes)
        if leftover is None:
            return torch.cat([self.decode(rows) for rows in _batches(comp, self.dim)])
        return self.flow.inverse(torch.cat([comp, self.predictor(comp)], dim=1) + leftover)

    @torch.no_grad()
    def leftover(self, x: Tensor, codes: Tensor) -> Tensor:
        """Return what codes and predictor miss of the flow's result, (n, dim) in float32.

        Args:
            x: (n, dim), what was compressed.
            codes: What it was compressed to.
        """
        comp = self.unpack(codes)
        z: Tensor = self.flow(checked(x, self.dim))
        return z - torch.cat([comp, self.predictor(comp)], dim=1)

    def compress_within(self, x: Tensor, max_error: float | None = None) -> Compressed:
        """Return codes with the corrections that keep every number within the bound.

        Args:
            x: (n, dim) in any floating point.
            max_error: In units of x; None is the configuration's.

        Raises:
            InvalidInputError: The vectors are of another dimension, or a number is not finite.
        """
        return self.within(x, self.compress(x), max_error)

    def within(self, x: Tensor, codes: Tensor, max_error: float | None = None) -> Compressed:
        """Return codes with the corrections that keep every number of what they stand for within the bound.

        Args:
            x: (n, dim), what the codes stand for.
            codes: As :meth:`compress` made them.
            max_error: In units of x; None is the configuration's.
        """
        bound = self.config.max_error if max_error is None else max_error
        if bound is None:
            return Compressed(codes, Corrections.none(self.dim))
        return Compressed(codes, correct(checked(x, self.dim), self.expand(codes), bound))

    def expand_within(self, stored: Compressed) -> Tensor:
        """Return vectors with their corrections, (n, dim) in float32."""
        return stored.corrections.apply(self.expand(stored.codes))

    @torch.no_grad()
    def expected_error(self, codes: Tensor) -> Tensor:
        """Return how far off the numbers of each expanded vector are likely to be, root mean square, (n,).

        Args:
            codes: As :meth:`compress` made them.
        """
        log_variance: Tensor = self.uncertainty(self.unpack(codes))[:, 0]
        return (0.5 * log_variance).exp()

    @torch.no_grad()
    def settle(self, data: Tensor) -> None:
        """Choose the steps of what codes are rounded to by the codes of data, (n, dim)."""
        numbers = self.config.numbers
        if NUMBERS[numbers].is_floating_point:
            return
        code = self._encoded(data)
        self.scale.copy_(stored_numbers.scales(self.place(code) if numbers in COARSE else code, numbers))

    @torch.no_grad()
    def wake(self) -> None:
        """Let what is kept begin to see the scratch dimensions, a little: from all zeros, neither would learn."""
        for coupling in self.flow.transforms[3::2]:
            assert isinstance(coupling, Coupling)
            seen = coupling.net.straight.weight[len(coupling.moved) :]  # of the shift
            seen.fill_diagonal_(_AWAKE)

    @property
    def spread(self) -> Tensor:
        """How much one unit of each number of a code is in units of the input, (code_dim,)."""
        norm = self.flow.transforms[1]
        assert isinstance(norm, ActNorm)
        return (-norm.log_scale.detach()[: self.config.code_dim]).exp()

    @property
    def fingerprint(self) -> str:
        """Identifies the codec: codes of two codecs are never mixed."""
        state = self.state_dict()
        digest = hashlib.sha256(json.dumps(self.config.to_json(), sort_keys=True).encode())
        for name in sorted(state):
            digest.update(state[name].cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def save(self, path: Path) -> None:
        """Write the codec as a safetensors file, whole or not at all."""
        metadata = {"config": json.dumps(self.config.to_json()), "dim": str(self.dim)}
        write_whole(path, save(self.to_tensors(), metadata))

    def to_tensors(self) -> dict[str, Tensor]:
        """Return what the codec has learned, by name; with its configuration, all there is of it."""
        return {name: tensor.contiguous() for name, tensor in self.state_dict().items()}

    @classmethod
    def from_tensors(cls, dim: int, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Idrp:
        """Read what :meth:`to_tensors` and :meth:`TransitConfig.to_json` made.

        Raises:
            CorruptTensorError: They do not belong together.
            InvalidInputError: The configuration is of another version.
        """
        codec = cls(dim, TransitConfig.from_json(config))
        try:
            codec.load_state_dict(dict(tensors))
        except RuntimeError as error:
            raise CorruptTensorError(f"what a bank holds of its codec is no codec: {error}") from error
        return codec.eval()

    @classmethod
    def load(cls, path: Path) -> Idrp:
        """Read what :meth:`save` wrote.

        Raises:
            CorruptTensorError: The file is missing or is no codec.
            InvalidInputError: It is of another version.
        """
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                config = TransitConfig.from_json(json.loads(metadata["config"]))
                codec = cls(int(metadata["dim"]), config)
                codec.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 - no dict
        except InvalidInputError:
            raise
        except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
            raise CorruptTensorError(f"{path} cannot be read as a codec: {error!r}. Fit it again") from error
        return codec.eval()

    def unpack(self, codes: Tensor) -> Tensor:
        """Return codes in float32, (n, code_dim), of what is stored.

        Raises:
            InvalidInputError: They are of another dimension.
        """
        numbers = self.config.numbers
        width = stored_numbers.width(self.config.code_dim, numbers)
        if codes.ndim != 2 or codes.shape[1] != width:
            raise InvalidInputError(f"codes are (n, {width}) in {numbers}, got {tuple(codes.shape)} in {codes.dtype}")
        if numbers not in COARSE:
            return codes * self.scale if numbers == "int8" else codes.float()
        return (stored_numbers.unpack(codes, numbers) * self.scale) @ self.mix.T / self.spread


def checked(x: Tensor, dim: int | None = None) -> Tensor:
    """Return vectors in float32.

    Args:
        x: (n, dim) in any floating point.
        dim: How many numbers a vector must have; None takes any.

    Raises:
        InvalidInputError: It is no matrix in floating point, of another dimension, or not finite.
    """
    if x.ndim != 2 or not x.is_floating_point() or (dim is not None and x.shape[1] != dim):
        wanted = "n, dim" if dim is None else f"n, {dim}"
        raise InvalidInputError(f"vectors are ({wanted}) in floating point, got {tuple(x.shape)} in {x.dtype}")
    x = x.float()
    if not bool(x.isfinite().all()):
        rows = (~x.isfinite().all(1)).nonzero().flatten()[:5].tolist()
        raise InvalidInputError(f"vectors must be finite in float32: rows {rows} hold NaN or infinity; leave them out")
    return x


def _rotation(dim: int, seed: int) -> Tensor:
    normal = torch.randn(dim, dim, generator=torch.Generator().manual_seed(seed))
    rotation: Tensor = torch.linalg.qr(normal).Q
    return rotation.contiguous()


def _tamed(x: Tensor) -> Tensor:
    return x.clamp(-_LARGEST, _LARGEST)


def _batches(x: Tensor, dim: int) -> tuple[Tensor, ...]:
    batches: tuple[Tensor, ...] = x.split(max(1, _AT_ONCE // dim))
    return batches


def _predictor(rotation: Orthogonal, norm: ActNorm, config: TransitConfig) -> nn.Module:
    """Return what guesses the dropped dimensions, at first 0."""
    dim, code = len(rotation.mean), config.code_dim
    if config.patch is None:
        return SwiGLU(code, config.predictor_hidden, dim - code, config.blocks)
    if dim != CHANNELS * config.patch**2:
        raise InvalidInputError(
            f"patches of {config.patch} x {config.patch} pixels are {CHANNELS * config.patch**2} numbers, "
            f"got vectors of {dim}"
        )
    norm.requires_grad_(False)  # the pictures that dimensions stand for stay
    return PicturePredictor(rotation, norm, PictureNet(config.patch, config.predictor_hidden, config.blocks), code)


def _sides(dim: int, config: TransitConfig) -> list[tuple[Tensor, Tensor]]:
    """Return which dimensions move which in each coupling, (dim,) in bool both.

    What matters moves the dimensions that vary least, and those move what is kept, in turns. The former
    serve as scratch paper: what is written there costs next to nothing if it is guessed wrong on the way back, so what
    is kept can come to tell of what is dropped without the predictor having to know the latter exactly.
    """
    scratch = max(1, min(config.code_dim, (dim - config.code_dim) // 2))
    index = torch.arange(dim)
    kept, least = index < config.code_dim, index >= dim - scratch
    active = (index < config.active(dim)) & ~least
    return [(active, least) if layer % 2 == 0 else (least, kept) for layer in range(config.layers)]
