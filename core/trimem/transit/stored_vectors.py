"""A compressed vector as the tensors of its slot, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from trimem.transit.bound import Corrections, Level
from trimem.transit.idrp import Compressed, Idrp

_ONE = torch.zeros(1, dtype=torch.int32)


def to_tensors(stored: Compressed) -> list[dict[str, Tensor]]:
    """Return the tensors of each vector: its code, and what brings it within the bound if anything must."""
    needy = set(stored.corrections.nbytes(len(stored.codes)).nonzero().flatten().tolist())
    return [
        {"code": code.clone(), **(_mending(stored.corrections.of(row)) if row in needy else {})}
        for row, code in enumerate(stored.codes)
    ]


def expand(codec: Idrp, records: Sequence[Mapping[str, Tensor]]) -> Tensor:
    """Return vectors of what :func:`to_tensors` made, (n, dim) in float32.

    Raises:
        KeyError: A tensor is missing.
        InvalidInputError: The codes are of another codec.
    """
    if not records:
        return torch.zeros(0, codec.dim)
    vectors = codec.expand(torch.stack([record["code"] for record in records]))
    for i, record in enumerate(records):
        if len(record) > 1:
            vectors[i] = corrections(codec, record).apply(vectors[i : i + 1])[0]
    return vectors


def corrections(codec: Idrp, record: Mapping[str, Tensor]) -> Corrections:
    """Return what brings the vector of a slot within the bound."""
    levels = tuple(
        Level(_ONE, record["steps"][at : at + 1], record["counts"][at : at + 1])
        for at in range(len(record.get("steps", ())))
    )
    exact = record.get("exact", torch.zeros(0, codec.dim))
    return Corrections(levels, _ONE[: len(exact)], exact)


def _mending(corrections: Corrections) -> dict[str, Tensor]:
    tensors = {}
    if corrections.levels:
        tensors["steps"] = torch.cat([level.steps for level in corrections.levels])
        tensors["counts"] = torch.cat([level.counts for level in corrections.levels])
    if len(corrections.exact):
        tensors["exact"] = corrections.exact
    return tensors
