"""Vectors in a slot's row: as they are, or as a codec stores them.

A mechanism that keeps vectors as short codes hands its codec to the store, which needs to know nothing else of it:
search reads the vectors that the codes stand for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float32]


class VectorCodec(Protocol):
    """Turns vectors into what is stored of them, and back.

    Attributes:
        dim: Numbers of a vector.
        nbytes: Bytes of a vector as it is stored.
        fingerprint: Identifies the codec; what two of them store is never mixed.
    """

    @property
    def dim(self) -> int: ...

    @property
    def nbytes(self) -> int: ...

    @property
    def fingerprint(self) -> str: ...

    def compress(self, x: Tensor) -> Tensor:
        """Return what is stored of (n, dim) vectors in any floating point, (n, width)."""
        ...

    def expand(self, codes: Tensor) -> Tensor:
        """Return vectors in float32, (n, dim), of what :meth:`compress` made."""
        ...


class RowVectors(Protocol):
    """Packs vectors of slots, and those of their sentences, into rows."""

    def pack(self, vectors: Floats, *, sentences: bool = False) -> bytes:
        """Return the bytes of (n, dim) vectors of length 1, one after the other."""
        ...

    def unpack(self, rows: Sequence[bytes]) -> Floats:
        """Return (n, dim) vectors of length 1, of the bytes of n slots."""
        ...

    def unpack_sentences(self, rows: Sequence[bytes | None], dim: int) -> list[Floats | None]:
        """Return (sentences, dim) vectors of length 1 of each slot that has any."""
        ...


class WholeVectors:
    """Vectors in float32, those of sentences in float16, in native byte order."""

    def pack(self, vectors: Floats, *, sentences: bool = False) -> bytes:
        return np.ascontiguousarray(vectors, np.float16 if sentences else np.float32).tobytes()

    def unpack(self, rows: Sequence[bytes]) -> Floats:
        return np.frombuffer(b"".join(rows), np.float32).reshape(len(rows), -1)

    def unpack_sentences(self, rows: Sequence[bytes | None], dim: int) -> list[Floats | None]:
        return [
            None if row is None else np.frombuffer(row, np.float16).astype(np.float32).reshape(-1, dim) for row in rows
        ]


class CodedVectors:
    """Vectors as codes, those of sentences likewise.

    Args:
        codec: The codec.
    """

    def __init__(self, codec: VectorCodec) -> None:
        self._codec = codec
        self._dtype = codec.compress(torch.zeros(1, codec.dim)).numpy().dtype

    def pack(self, vectors: Floats, *, sentences: bool = False) -> bytes:
        codes = self._codec.compress(torch.from_numpy(np.ascontiguousarray(np.atleast_2d(vectors), np.float32)))
        return codes.numpy().tobytes()

    def unpack(self, rows: Sequence[bytes]) -> Floats:
        codes = np.frombuffer(bytearray().join(rows), self._dtype)
        expanded = self._codec.expand(torch.from_numpy(codes.reshape(-1, self._codec.nbytes // self._dtype.itemsize)))
        unit: Floats = torch.nn.functional.normalize(expanded, dim=1).numpy()
        return unit

    def unpack_sentences(self, rows: Sequence[bytes | None], dim: int) -> list[Floats | None]:
        there = [row for row in rows if row is not None]
        if not there:
            return [None] * len(rows)
        vectors, start = self.unpack(there), 0
        found: list[Floats | None] = []
        for row in rows:
            count = 0 if row is None else len(row) // self._codec.nbytes
            found.append(vectors[start : start + count] if count else None)
            start += count
        return found
