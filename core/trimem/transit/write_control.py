"""Which texts are worth a slot: those that say what is not there yet.

MemoryTransit leaves learned control of writing as future work. This is the plain form of it: a text is written if it
surprises, that is if no slot that is held stands for it nearly as well. One that does not is a use of that slot.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from trimem.store.metadata import Document
from trimem.types import SlotId

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Sorted:
    """Documents by whether they are to be written.

    Attributes:
        new: Those that are.
        held: For the key of each other, the slot that stands for it.
        same: For the key of each that another new one stands for, that one's key.
    """

    new: list[Document] = field(default_factory=list)
    held: dict[str, SlotId] = field(default_factory=dict)
    same: dict[str, str] = field(default_factory=dict)


def sort_out(
    documents: Sequence[Document],
    vectors: Floats,
    surprise: float,
    nearest: Callable[[Floats], tuple[SlotId, float] | None],
) -> Sorted:
    """Sort documents out.

    Args:
        documents: In the order in which they come.
        vectors: (n, dim), of length 1.
        surprise: How far, in 1 - cosine, the nearest must be for a text to be written.
        nearest: Returns the slot nearest to a (dim,) vector and its cosine; None where there is none.
    """
    found, chosen = Sorted(), np.zeros((0, vectors.shape[1]), np.float32)
    for document, vector in zip(documents, vectors, strict=True):
        among = chosen @ vector
        near = nearest(vector)
        if near is not None and 1 - near[1] < surprise:
            found.held[document.key] = near[0]
        elif len(among) and 1 - among.max() < surprise:
            found.same[document.key] = found.new[int(among.argmax())].key
        else:
            found.new.append(document)
            chosen = np.concatenate([chosen, vector[None]])
    return found
