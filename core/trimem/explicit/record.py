"""What is stored of one reference: its key-values at all layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Record:
    """The key-values of one reference.

    Attributes:
        key: (layers, num_kv_heads, tokens, head_dim), turned back to where RoPE has done nothing, so
            that they can stand at any position.
        value: (layers, num_kv_heads, tokens, head_dim).
    """

    key: Tensor
    value: Tensor

    @property
    def tokens(self) -> int:
        return self.key.shape[2]

    def to_tensors(self) -> dict[str, Tensor]:
        return {"key": self.key, "value": self.value}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Record:
        """Read what :meth:`to_tensors` made.

        Raises:
            KeyError: A tensor is missing.
        """
        return cls(tensors["key"], tensors["value"])
