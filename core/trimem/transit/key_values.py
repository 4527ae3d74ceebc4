"""Attention keys and values as codes: a codec for a bank of explicit memory, which knows nothing of it but its methods.

Heads differ more from one another than the rows of one do, so each head has a frame of its own: its mean, its
principal components, its size. In their frames the rows of all heads are alike enough for one codec of keys and one
of values.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from trimem.errors import InvalidInputError
from trimem.transit.config import TransitConfig
from trimem.transit.flow import Orthogonal
from trimem.transit.idrp import Idrp, checked
from trimem.transit.train import fit


@dataclass(frozen=True, slots=True)
class HeadFrames:
    """Where the rows of each head lie.

    Attributes:
        mean: (heads, dim).
        rotation: (heads, dim, dim), orthogonal, components in columns.
        size: (heads,), deviation over all components.
    """

    mean: Tensor
    rotation: Tensor
    size: Tensor

    @classmethod
    def fit(cls, x: Tensor, head: Tensor, heads: int) -> HeadFrames:
        """Return the frames of rows; a head that has fewer than two keeps its rows as they are.

        Args:
            x: (rows, dim) in float32.
            head: (rows,) in int64.
            heads: How many there are.
        """
        dim = x.shape[1]
        mean, size = torch.zeros(heads, dim), torch.ones(heads)
        rotation = torch.eye(dim).repeat(heads, 1, 1)
        for i in range(heads):
            rows = x[head == i]
            if len(rows) < 2:
                continue
            principal = Orthogonal.principal(rows)
            mean[i], rotation[i] = principal.mean, principal.basis
            size[i] = (rows - mean[i]).square().mean().sqrt().clamp_min(torch.finfo(torch.float32).tiny)
        return cls(mean, rotation, size)

    def enter(self, x: Tensor, head: Tensor) -> Tensor:
        """Return rows in the frames of their heads, (rows, dim)."""
        centred = x - self.mean[head]
        for i in head.unique().tolist():
            at = head == i
            centred[at] = centred[at] @ self.rotation[i] / self.size[i]
        return centred

    def leave(self, x: Tensor, head: Tensor) -> Tensor:
        """Return rows as they were before :meth:`enter`."""
        restored = torch.empty_like(x)
        for i in head.unique().tolist():
            at = head == i
            restored[at] = x[at] * self.size[i] @ self.rotation[i].T
        return restored + self.mean[head]


@dataclass(frozen=True, slots=True)
class KeyValueCodec:
    """Codes of the keys and values of one model; see :class:`trimem.explicit.codec.Codec`, which it keeps.

    Attributes:
        key: Codec of keys in their frames.
        value: As ``key``.
        key_frames: Of the heads.
        value_frames: As ``key_frames``.
    """

    key: Idrp
    value: Idrp
    key_frames: HeadFrames
    value_frames: HeadFrames
    name: ClassVar[str] = "transit"

    @classmethod
    def fit(
        cls,
        key: Tensor,
        value: Tensor,
        head: Tensor,
        heads: int,
        config: TransitConfig,
        *,
        steps: int = 0,
        seed: int = 0,
        progress: bool | None = None,
    ) -> KeyValueCodec:
        """Fit a codec to key-values of a model.

        Args:
            key: (rows, head_dim) in any floating point, before RoPE.
            value: (rows, value_dim).
            head: (rows,) in int64, which of all layers' KV heads a row belongs to.
            heads: How many there are.
            config: Of both codecs.
            steps: Of training; 0 is PCA.
            seed: Of training.
            progress: Whether to show bars.

        Raises:
            InvalidInputError: Rows are not finite, or a code would be no smaller than a row.
        """
        key, value = checked(key), checked(value)
        frames = HeadFrames.fit(key, head, heads), HeadFrames.fit(value, head, heads)
        codecs = [
            fit(frame.enter(x, head), config, steps=steps, seed=seed, progress=progress).codec
            for frame, x in zip(frames, (key, value), strict=True)
        ]
        return cls(codecs[0], codecs[1], *frames)

    @property
    def fingerprint(self) -> str:
        """Identifies the codec."""
        digest = hashlib.sha256(f"{self.key.fingerprint}{self.value.fingerprint}".encode())
        for frames in (self.key_frames, self.value_frames):
            for tensor in (frames.mean, frames.rotation, frames.size):
                digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def encode(self, key: Tensor, value: Tensor, head: Tensor, heads: int) -> dict[str, Tensor]:
        """Return what is stored of rows; see :meth:`trimem.explicit.codec.Codec.encode`."""
        if heads != len(self.key_frames.size):
            raise InvalidInputError(
                f"the codec was fitted to a model of {len(self.key_frames.size)} KV heads, got rows of {heads}: fit "
                "one to this model"
            )
        head = head.cpu()
        return {
            name: codec.compress(frames.enter(checked(x.cpu(), codec.dim), head))
            for name, codec, frames, x in (
                ("key", self.key, self.key_frames, key),
                ("value", self.value, self.value_frames, value),
            )
        }

    def decode(self, tensors: Mapping[str, Tensor], head: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return the first rows of what :meth:`encode` made; see :meth:`trimem.explicit.codec.Codec.decode`."""
        rows = len(head)
        for name in ("key", "value"):
            if rows > len(tensors[name]):
                raise IndexError(f"{rows} rows of key-values are asked for, {len(tensors[name])} are stored")
        if not rows:
            return torch.zeros(0, self.key.dim, dtype=dtype), torch.zeros(0, self.value.dim, dtype=dtype)
        key = self.key_frames.leave(self.key.expand(tensors["key"][:rows]), head.cpu())
        value = self.value_frames.leave(self.value.expand(tensors["value"][:rows]), head.cpu())
        return key.to(dtype), value.to(dtype)

    def row_bytes(self, head_dim: int, value_dim: int) -> int:
        """Return the bytes that each row takes."""
        return self.key.nbytes + self.value.nbytes

    def head_bytes(self, head_dim: int) -> int:
        """Return the bytes that each head takes besides its rows."""
        return 0
