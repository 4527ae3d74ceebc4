"""Texts that say almost what is stored already, by the cosine of their vectors."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from trimem.checks import shown
from trimem.errors import InvalidInputError
from trimem.store.rows import Document
from trimem.store.search import HybridSearch
from trimem.text.encoders import Encoder
from trimem.types import Namespace, SlotId

LONGEST = 1000
"""The most characters of a text that is compared: of longer ones, encoders read the beginning only."""

_STRETCH = 1.5  # how much longer one of two twins may be


@dataclass(frozen=True, slots=True)
class Twins:
    """What became of texts.

    Attributes:
        new: Those that have no twin.
        stored: By key, the slot of the stored text that says almost the same.
        given: By key, the key of the text of the same call that does.
    """

    new: list[Document]
    stored: dict[str, SlotId]
    given: dict[str, str]


def without_twins(
    documents: Sequence[Document],
    replacing: Collection[str],
    namespace: Namespace,
    least: float,
    encoder: Encoder,
    search: HybridSearch,
) -> Twins:
    """Tell texts that have a twin from those that are new. O(slots) a text, and an encoding each.

    Only short texts are compared, with short texts that are a slot each. A text that replaces another is always new.

    Args:
        documents: The texts.
        replacing: Keys under which another text is stored.
        namespace: Of exactly which they are.
        least: The cosine from which on two texts are twins.
        encoder: Of the bank.
        search: Over its slots.
    """
    short = {one.key: one for one in documents if one.key not in replacing and len(one.text) <= LONGEST}
    if not short:
        return Twins(list(documents), {}, {})
    vectors = dict(zip(short, encoder.encode_documents([one.text for one in short.values()]), strict=True))
    kept: list[str] = []
    stored: dict[str, SlotId] = {}
    given: dict[str, str] = {}
    for key, vector in vectors.items():
        length = len(short[key].text)
        twin = search.twin(vector, namespace, least, (int(length / _STRETCH), int(length * _STRETCH)))
        alike = [other for other in kept if _length_fits(short[other].text, length)]
        if twin is not None:
            stored[key] = twin
        elif alike and (cosines := np.stack([vectors[other] for other in alike]) @ vector).max() >= least:
            given[key] = alike[int(cosines.argmax())]
        else:
            kept.append(key)
    return Twins([one for one in documents if one.key not in stored and one.key not in given], stored, given)


def check_cosine(least: float | None) -> float | None:
    """Return ``least``, from which cosine on two texts are twins; None is from none.

    Raises:
        InvalidInputError: It is no number above 0 and of at most 1.
    """
    if least is None or (isinstance(least, int | float) and not isinstance(least, bool) and 0 < least <= 1):
        return least
    raise InvalidInputError(f"near_duplicates is a cosine above 0 and of at most 1, or None; got {shown(least)}")


def _length_fits(text: str, length: int) -> bool:
    return length / _STRETCH <= len(text) <= length * _STRETCH
