"""What is stored of a slot: its trajectory, and what was heard where nobody read it."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from trimem.errors import CorruptTensorError
from trimem.resonance.heard import Heard
from trimem.resonance.trajectory import Trajectory

_HEARD = "heard"


def pack(trajectory: Trajectory, heard: Heard | None) -> dict[str, Tensor]:
    """Return the tensors of a slot."""
    tensors = trajectory.tensors()
    if heard is not None:
        data = zlib.compress(heard.to_json().encode(), 9)
        tensors[_HEARD] = torch.from_numpy(np.frombuffer(data, dtype=np.uint8).copy())
    return tensors


def unpack(tensors: Mapping[str, Tensor]) -> tuple[Trajectory, Heard | None]:
    """Read what :func:`pack` made.

    Raises:
        CorruptTensorError: It is something else.
    """
    said = tensors.get(_HEARD)
    try:
        heard = None if said is None else Heard.from_json(zlib.decompress(said.numpy().tobytes()).decode())
    except (zlib.error, ValueError) as error:
        raise CorruptTensorError(
            f"what was heard cannot be read: {error}; forget the slot, or put back a copy"
        ) from error
    return Trajectory.from_tensors({name: tensor for name, tensor in tensors.items() if name != _HEARD}), heard
