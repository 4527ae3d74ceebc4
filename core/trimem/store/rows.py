"""What goes into the rows of a bank."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from trimem.types import Metadata, SlotId


@dataclass(frozen=True)
class Document:
    """A text as it is given.

    Attributes:
        key: Unique in its namespace.
        text: The text.
        metadata: What is stored beside it; what JSON can hold.
        expires_at: When it is to be erased; None is never.
        provenance: Who or what it is from; None where nobody said.
        trust: How far it is to be trusted, in [0, 1].
        identity: What tells it from others, where that is not its text; not stored, but for its hash.
    """

    key: str
    text: str = field(repr=False)
    metadata: Metadata = field(repr=False)
    expires_at: datetime | None = None
    provenance: str | None = None
    trust: float = 1.0
    identity: str | None = field(default=None, repr=False)

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of the text, or of what tells it from others."""
        return hash_text(self.text if self.identity is None else self.identity)


class Terms(TypedDict, total=False):
    """On what terms a document is held, as far as they are said; see :class:`Document`."""

    expires_at: datetime | None
    provenance: str | None
    trust: float


@dataclass(frozen=True, slots=True)
class NewSlot:
    """A stretch of a document on its way into the store; the attributes are those of a slot's row.

    Attributes:
        vector: (dim,), of length 1.
        sentences: (sentences, dim), of length 1, or None where there is but one.
    """

    slot_id: SlotId
    text: str = field(repr=False)
    start: int
    stop: int
    line: int
    tokens: int
    vector: NDArray[np.float32] = field(repr=False)
    sentences: NDArray[np.float32] | None = field(default=None, repr=False)


def hash_text(text: str) -> str:
    """Return the SHA-256 of a text in hex."""
    return hashlib.sha256(text.encode()).hexdigest()
