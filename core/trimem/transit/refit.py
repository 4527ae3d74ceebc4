"""A codec fitted anew to what a bank holds by now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from trimem.errors import InvalidInputError
from trimem.transit.idrp import Idrp
from trimem.transit.train import HELD_BACK, fit

_LEAST = 3

Encoded = tuple[NDArray[np.float32], NDArray[np.float32] | None]


@dataclass(frozen=True, slots=True)
class Refit:
    """What came of fitting a codec anew.

    Attributes:
        slots: How many the bank held.
        before: Mean squared error of the codec it had, on vectors that the new one was not fitted to.
        after: That of the new one.
        kept: Whether the bank now has the new one; it has it if it is better.
    """

    slots: int
    before: float
    after: float
    kept: bool


def refitted(
    codec: Idrp, encoded: Sequence[Encoded], steps: int, seed: int, progress: bool | None
) -> tuple[Idrp, tuple[float, float]]:
    """Return a codec fitted to slots, and what the old one and it lose of those slots that it was not fitted to.

    Args:
        codec: The old one.
        encoded: Of each slot its vector and those of its sentences.
        steps: Of training.
        seed: Of training, and of what is held back.
        progress: Whether to show a bar.

    Raises:
        InvalidInputError: There are too few slots.
    """
    if len(encoded) < _LEAST:
        raise InvalidInputError(f"a codec is fitted to at least {_LEAST} texts, the bank holds {len(encoded)}")
    order = torch.randperm(len(encoded), generator=torch.Generator().manual_seed(seed)).tolist()
    count = max(1, round(HELD_BACK * len(encoded)))
    held, learned = (
        torch.from_numpy(np.concatenate([_rows(encoded[i]) for i in some])) for some in (order[:count], order[count:])
    )
    done = fit(
        learned,
        codec.config,
        validation=held,
        objective="neighbours",
        steps=steps,
        seed=seed,
        progress=progress,
    )
    before, after = (float((each.expand(each.compress(held)) - held).square().mean()) for each in (codec, done.codec))
    return done.codec, (before, after)


def _rows(encoded: Encoded) -> NDArray[np.float32]:
    whole, parts = encoded
    return whole[None] if parts is None else np.concatenate([whole[None], parts])
