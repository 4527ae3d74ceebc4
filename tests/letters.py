"""A bank of transit memory over an encoder that is quick, and its codec."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import torch
from numpy.typing import NDArray

from trimem import (
    TransitBank,
    TransitConfig,
)
from trimem.transit.idrp import Idrp

DIM, CODE = 16, 8


class Letters:
    """An encoder that knows nothing of meaning and is quick: a text is a direction of its own."""

    fingerprint = "letters"

    def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        seeds = [int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") for text in texts]
        rows = np.array([np.random.default_rng(seed).normal(size=DIM) for seed in seeds], np.float32)
        unit: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return unit

    def encode_query(self, text: str) -> NDArray[np.float32]:
        vector: NDArray[np.float32] = self.encode_documents([text])[0]
        return vector


def small_codec(seed: int = 0, max_error: float | None = None) -> Idrp:
    vectors = torch.from_numpy(Letters().encode_documents([f"{seed} {i}" for i in range(200)]))
    return Idrp.principal(vectors, TransitConfig(CODE, layers=0, predictor_hidden=8, max_error=max_error))


CODEC = small_codec()


class Clock:
    """A clock that goes on by a second whenever somebody looks."""

    def __init__(self) -> None:
        self.now = datetime(2026, 5, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now


Open = Callable[..., TransitBank]


def held(bank: TransitBank, namespace: str = "a") -> set[str]:
    found = bank._store.slots(bank._store.ids((namespace,), None))
    return {slot.text for slot in found}


def read(bank: TransitBank, text: str, namespace: str = "a") -> None:
    """Use exactly the slot of a text."""
    (hit,) = bank.recall(text, 1, namespace=namespace)
    assert hit.text == text
