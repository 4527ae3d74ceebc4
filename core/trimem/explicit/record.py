"""What is kept of one reference: its key-values, best token of each head first.

The tokens of every KV head lie in order of rank, and all heads' tokens of one rank lie together:

    rank 0: head 0, head 1, ...   rank 1: head 0, head 1, ...   ...

so the first rows of a record are the same reference with fewer tokens: reading 8 tokens a head
touches the beginning of the file and nothing else. Heads may keep different numbers of tokens; a head
that has run out is left out of the further ranks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Record:
    """The key-values of one reference, or of its best tokens.

    Attributes:
        key: (rows, head_dim), turned back to where RoPE has done nothing, so that they can stand at
            any position.
        value: (rows, value_dim).
        token: (rows,), which token of the reference a row belongs to.
        counts: (layers, num_kv_heads), rows of each head.
        tokens: How many tokens the reference has.
        start: Tokens of its document that it was written after; 0 where it was written alone.
    """

    key: Tensor
    value: Tensor
    token: Tensor
    counts: Tensor
    tokens: int
    start: int = 0

    @classmethod
    def of(cls, key: Tensor, value: Tensor, order: Tensor, most: Tensor, start: int = 0) -> Record:
        """Keep the best tokens of each head.

        Args:
            key: (layers, num_kv_heads, tokens, head_dim).
            value: (layers, num_kv_heads, tokens, value_dim).
            order: (layers, num_kv_heads, tokens), the tokens of each head, best first.
            most: (layers, num_kv_heads), the most tokens a head keeps.
            start: See the attribute.
        """
        counts = most.clamp(max=key.shape[2])
        head, rank = rows(counts)
        token = order.flatten(0, 1)[head, rank]
        key, value = (tensor.flatten(0, 1)[head, token] for tensor in (key, value))
        return cls(key, value, token, counts, order.shape[2], start)

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors."""
        return sum(tensor.nbytes for tensor in (self.key, self.value, self.token, self.counts))

    def first(self, most: int) -> Record:
        """Return the record with at most so many tokens a head."""
        counts = self.counts.clamp(max=most)
        kept = int(counts.sum())
        return replace(self, key=self.key[:kept], value=self.value[:kept], token=self.token[:kept], counts=counts)

    def to(self, device: torch.device) -> Record:
        """Return the record with its key-values on a device; token numbers and counts stay where they are."""
        return replace(self, key=self.key.to(device), value=self.value.to(device))

    def limited(self, most: Tensor) -> Record:
        """Return the record with at most so many tokens of each head (layers, num_kv_heads)."""
        head, rank = rows(self.counts)
        kept = rank < most.flatten()[head]
        counts = torch.minimum(self.counts, most)
        return replace(self, key=self.key[kept], value=self.value[kept], token=self.token[kept], counts=counts)


def rows(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Return, for each row of a record, its head and its rank: two of (rows,).

    Args:
        counts: (layers, num_kv_heads), rows of each head; heads are numbered through all layers.
    """
    flat = counts.flatten()
    rank, head = (torch.arange(int(flat.max()), device=counts.device)[:, None] < flat).nonzero(as_tuple=True)
    return head, rank
