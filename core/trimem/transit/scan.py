"""The slots most like a query, exactly: by cosine over all codes.

Whole numbers of 8 bits are multiplied as such, which reads a quarter of the bytes that float32 would. For
that the query, too, becomes whole numbers, in two planes: ``w = step * (high + low / 254 + e)`` with
``|e| <= 1 / 508``. What that rounding can do to a score is known, so the few slots that might be among the
best are scored again in float32, and the result is that of a search in float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

_FINE = 254
_LEVELS = 127
_SPARE = 64
"""Candidates beyond the k best that are scored again at once."""

_WIDEN = 8
_SMALL = 1 << 14
"""Up to so many slots, plain float32 is as fast."""

_ROWS = 1 << 16


class Scan:
    """Codes by slot, with what is needed to compare them.

    Args:
        capacity: Slots.
        code_dim: Numbers of a code.
        dtype: Of the codes.
        step: (code_dim,), what a code is multiplied by before it is compared.
    """

    def __init__(self, capacity: int, code_dim: int, dtype: torch.dtype, step: Tensor) -> None:
        self.codes = torch.zeros(capacity, code_dim, dtype=dtype)
        self.occupied = torch.zeros(capacity, dtype=torch.bool)
        self.step = step
        self._inverse_norm = torch.zeros(capacity)
        self._worst = 0.0  # greatest |code|_1 / norm that was ever put: how much a rounded query can matter

    def put(self, slots: Tensor, codes: Tensor) -> None:
        """Write codes, (n, code_dim), into slots, (n,) in int64, which are then taken."""
        self.codes[slots] = codes
        self.occupied[slots] = True
        inverse = (codes.float() * self.step).norm(dim=1).reciprocal()
        inverse[~inverse.isfinite()] = 0.0  # a code of nothing but 0 is like nothing
        self._inverse_norm[slots] = inverse
        self._worst = max(self._worst, float((codes.float().abs().sum(1) * inverse).max()))

    def clear(self, slots: Tensor) -> None:
        """Overwrite slots, (n,) in int64, with 0 and free them."""
        self.codes[slots] = 0
        self.occupied[slots] = False
        self._inverse_norm[slots] = 0.0

    def nearest(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Return cosines and slots of the best, best first, (n, k) both; O(n capacity code_dim).

        Args:
            queries: (n, code_dim) in float32, in the units of codes times ``step``.
            k: At most as many as are taken.
        """
        whole = self.codes.dtype == torch.int8 and len(self.codes) > _SMALL
        found = [self._by_planes(query, k) if whole else self._plainly(query, k) for query in _unit(queries)]
        scores, slots = zip(*found, strict=True) if found else ((torch.zeros(0, k),), (torch.zeros(0, k).long(),))
        return (torch.stack(scores), torch.stack(slots)) if found else (scores[0], slots[0])

    def _plainly(self, query: Tensor, k: int) -> tuple[Tensor, Tensor]:
        weights = query * self.step
        scores = torch.cat([rows.float() @ weights for rows in self.codes.split(_ROWS)]) * self._inverse_norm
        top = scores.masked_fill_(~self.occupied, -torch.inf).topk(k)
        return top.values, top.indices

    def _by_planes(self, query: Tensor, k: int) -> tuple[Tensor, Tensor]:
        weights = query * self.step
        step = float(weights.abs().max()) / _LEVELS or 1.0
        high = (weights / step).round()
        low = ((weights / step - high) * _FINE).round()
        planes = torch.stack([high, low]).to(torch.int8)
        products = torch._int_mm(planes, self.codes.T)
        rough = products[0].mul(float(_FINE)).add_(products[1]).mul_(self._inverse_norm)
        rough.masked_fill_(~self.occupied, -torch.inf)
        unit = step / _FINE
        off = 0.5 * unit * self._worst * 1.01  # a hundredth for rounding in float32
        wanted = k + _SPARE
        while True:
            top = rough.topk(min(wanted, len(rough)))
            codes = self.codes[top.indices].float()
            scores = (codes @ weights * self._inverse_norm[top.indices]).masked_fill(
                ~self.occupied[top.indices], -torch.inf
            )
            best = scores.topk(k)
            # No slot beyond the candidates can be better than the last of the best.
            if wanted >= len(rough) or float(top.values[-1]) * unit + off < float(best.values[-1]):
                return best.values, top.indices[best.indices]
            wanted *= _WIDEN


def _unit(x: Tensor) -> Tensor:
    unit: Tensor = x / x.norm(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    return unit
