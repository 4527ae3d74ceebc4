"""In which numbers key-values are stored.

The rows of a record, one a token and head, lie in order of rank, and within a rank in order of heads, so
that the first rows are a smaller record by themselves. A codec keeps that: it decodes any number of first
rows without looking at the others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from trimem.errors import InvalidInputError, UnsupportedModelError

_VALUE_GROUP = 32
_LARGEST_HALF = torch.finfo(torch.float16).max
_WIDER = 'create the bank with ExplicitConfig(codec="bfloat16") or "float32"'


class Codec(Protocol):
    """Turns key-values into the tensors that are stored of them, and back.

    Attributes:
        name: Under which it is chosen.
    """

    @property
    def name(self) -> str: ...

    def encode(self, key: Tensor, value: Tensor, head: Tensor, heads: int) -> dict[str, Tensor]:
        """Return what is stored, by name.

        Args:
            key: (rows, head_dim) in any floating point, before RoPE.
            value: (rows, value_dim).
            head: (rows,) in int64, which of all layers' KV heads a row belongs to.
            heads: How many there are; some may have no rows.

        Raises:
            InvalidInputError: The shapes do not belong together, or the codec does not take them.
            UnsupportedModelError: A number is not finite, or does not fit what it is to be stored in.
        """
        ...

    def decode(self, tensors: Mapping[str, Tensor], head: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return a copy of the first rows of what :meth:`encode` made; the other rows are not touched.

        Args:
            tensors: What was stored.
            head: (rows,) in int64, the first rows' heads: as many are decoded.
            dtype: In which numbers.

        Returns:
            Keys (rows, head_dim) and values (rows, value_dim).

        Raises:
            KeyError: A tensor is missing.
            IndexError: There are fewer rows, or a head is none of those stored.
        """
        ...

    def row_bytes(self, head_dim: int, value_dim: int) -> int:
        """Return the bytes that each row takes."""
        ...

    def head_bytes(self, head_dim: int) -> int:
        """Return the bytes that each head takes besides its rows, even if it has none."""
        ...


GIVEN = "given:"
"""How the names of codecs begin that a bank is given, instead of making them itself; their fingerprint follows."""


@runtime_checkable
class FittedCodec(Codec, Protocol):
    """A codec that was fitted elsewhere: :class:`trimem.transit.key_values.KeyValueCodec` is one.

    Attributes:
        fingerprint: Identifies it; key-values that it encoded are decoded by nothing else.
    """

    @property
    def fingerprint(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Plain:
    """Numbers as they are, in floating point.

    Attributes:
        name: Of the codec and of torch's dtype.
    """

    name: Literal["float16", "bfloat16", "float32"]

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = getattr(torch, self.name)
        return dtype

    def encode(self, key: Tensor, value: Tensor, head: Tensor, heads: int) -> dict[str, Tensor]:
        check_rows(key, value, head, heads)
        return {"key": self._cast(key), "value": self._cast(value)}

    def decode(self, tensors: Mapping[str, Tensor], head: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        rows = len(head)
        key, value = (first_rows(tensors[name], rows).to(dtype, copy=True) for name in ("key", "value"))
        return key, value

    def row_bytes(self, head_dim: int, value_dim: int) -> int:
        return (head_dim + value_dim) * self.dtype.itemsize

    def head_bytes(self, head_dim: int) -> int:
        return 0

    def _cast(self, x: Tensor) -> Tensor:
        stored = x.to(self.dtype)
        if not bool(stored.isfinite().all()):
            raise UnsupportedModelError(
                f"key-values as large as {float(x.abs().max()):.3g} do not fit {self.name}, which ends at "
                f"{torch.finfo(self.dtype).max:.3g}: {_WIDER}"
            )
        return stored


@dataclass(frozen=True, slots=True)
class Quantized:
    """Whole numbers of 8 or 4 bits between the least and the greatest of their kind (KIVI, arXiv 2402.02750).

    Some channels of keys are large at every token, so each channel of each head has a zero and a scale of
    its own, over all rows of the head; values have no such channels, and each row has its own. Zeros and
    scales are float16. A number comes back to within half a step, plus the rounding of zero and scale.
    Two numbers of 4 bits share a byte, the even channel in its lower half.

    Attributes:
        name: Of the codec.
        bits: Of a number.
        group: Channels of a value that share zero and scale; None is all.
    """

    name: str
    bits: Literal[4, 8]
    group: int | None = None

    @property
    def levels(self) -> int:
        return (1 << self.bits) - 1

    def encode(self, key: Tensor, value: Tensor, head: Tensor, heads: int) -> dict[str, Tensor]:
        check_rows(key, value, head, heads)
        if self.bits == 4 and (key.shape[1] % 2 or value.shape[1] % 2):
            raise InvalidInputError(
                f"{self.name} stores two channels in a byte and cannot store heads of {key.shape[1]} (keys) and "
                f'{value.shape[1]} (values) channels: use "int8"'
            )
        key, head = key.float(), head.to(key.device)
        # A head without rows keeps 0 for both ends.
        index, ends = head[:, None].expand_as(key), key.new_zeros(heads, key.shape[1])
        low = ends.scatter_reduce(0, index, key, "amin", include_self=False)
        high = ends.scatter_reduce(0, index, key, "amax", include_self=False)
        key_zero, key_scale = self._span(low, high)
        key_codes = self._quantize(key, key_zero[head], key_scale[head])

        grouped = self._grouped(value.float())
        value_zero, value_scale = self._span(grouped.amin(-1), grouped.amax(-1))
        codes = self._quantize(grouped, value_zero[..., None], value_scale[..., None])
        return {
            "key": self._pack(key_codes),
            "key_zero": key_zero,
            "key_scale": key_scale,
            "value": self._pack(codes.flatten(1)[:, : value.shape[1]]),
            "value_zero": value_zero,
            "value_scale": value_scale,
        }

    def decode(self, tensors: Mapping[str, Tensor], head: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        rows = len(head)
        key = self._unpack(first_rows(tensors["key"], rows))
        value = self._unpack(first_rows(tensors["value"], rows))
        head = head.to(key.device)
        key = key * tensors["key_scale"][head] + tensors["key_zero"][head]
        scale, zero = (first_rows(tensors[name], rows)[..., None] for name in ("value_scale", "value_zero"))
        restored = (self._grouped(value) * scale + zero).flatten(1)[:, : value.shape[1]]
        return key.to(dtype), restored.to(dtype)

    def row_bytes(self, head_dim: int, value_dim: int) -> int:
        codes = (head_dim + value_dim) * self.bits // 8
        return codes + self._groups(value_dim) * 2 * torch.float16.itemsize

    def head_bytes(self, head_dim: int) -> int:
        return head_dim * 2 * torch.float16.itemsize

    def _groups(self, value_dim: int) -> int:
        return 1 if self.group is None else math.ceil(value_dim / self.group)

    def _grouped(self, value: Tensor) -> Tensor:
        """Return values as (rows, groups, channels); the last channel is repeated to fill the last group."""
        rows, width = value.shape
        size = self.group or width
        groups = self._groups(width)
        filling = value[:, -1:].expand(rows, groups * size - width)
        return torch.cat([value, filling], 1).view(rows, groups, size)

    def _span(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Return zero and scale in float16, so that codes from 0 to levels reach from low to high."""
        zero, scale = low.half(), ((high - low) / self.levels).half()
        if not bool(zero.isfinite().all() and scale.isfinite().all()):
            largest = float(torch.maximum(low.abs(), high.abs()).max())
            raise UnsupportedModelError(
                f"key-values as large as {largest:.3g} do not fit {self.name}, whose scales end at "
                f"{_LARGEST_HALF:.3g}: {_WIDER}"
            )
        return zero, scale

    def _quantize(self, x: Tensor, zero: Tensor, scale: Tensor) -> Tensor:
        """Return codes in uint8; where the scale is 0, all numbers are the zero."""
        steps = (x - zero.float()) / scale.float().masked_fill(scale == 0, 1.0)
        return steps.round().clamp(0, self.levels).to(torch.uint8)

    def _pack(self, codes: Tensor) -> Tensor:
        if self.bits == 8:
            return codes.contiguous()
        return codes[:, 0::2] | codes[:, 1::2] << 4

    def _unpack(self, codes: Tensor) -> Tensor:
        """Return codes, one a channel, in float32."""
        if self.bits == 8:
            return codes.float()
        return torch.stack([codes & 15, codes >> 4], -1).flatten(1).float()


CODECS: dict[str, Codec] = {
    "float16": Plain("float16"),
    "bfloat16": Plain("bfloat16"),
    "float32": Plain("float32"),
    "int8": Quantized("int8", bits=8),
    "int4": Quantized("int4", bits=4, group=_VALUE_GROUP),
}


def codec(name: str) -> Codec:
    """Return the codec of that name.

    Raises:
        InvalidInputError: There is none.
    """
    if name not in CODECS:
        raise InvalidInputError(f"codec must be one of {', '.join(CODECS)}, got {name!r}")
    return CODECS[name]


def first_rows(stored: Tensor, rows: int) -> Tensor:
    """Return the first rows of a stored tensor, as a view.

    Raises:
        IndexError: There are fewer.
    """
    if rows > len(stored):
        raise IndexError(f"{rows} rows of key-values are asked for, {len(stored)} are stored")
    return stored[:rows]


def check_rows(key: Tensor, value: Tensor, head: Tensor, heads: int) -> None:
    """Raise if these are no rows that a codec can encode.

    Raises:
        InvalidInputError: The shapes do not belong together, or a head is out of range.
        UnsupportedModelError: A number is not finite.
    """
    if key.ndim != 2 or value.ndim != 2 or not len(key) == len(value) == len(head) or head.ndim != 1:
        raise InvalidInputError(
            "key must be (rows, head_dim), value (rows, value_dim) and head (rows,), "
            f"got {tuple(key.shape)}, {tuple(value.shape)} and {tuple(head.shape)}"
        )
    if len(head) and not 0 <= int(head.min()) <= int(head.max()) < heads:
        raise InvalidInputError(f"head must be from 0 to {heads - 1}, got {int(head.min())} to {int(head.max())}")
    if not bool(key.isfinite().all() and value.isfinite().all()):
        raise UnsupportedModelError(
            "the model computed key-values that are not finite: load it in a wider dtype, bfloat16 or float32"
        )
