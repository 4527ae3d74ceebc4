"""Finding slots by their words and by their vectors at once.

The score of a slot is ``0.3 * bm25 / best bm25 + 0.7 * cosine``: words alone win on some corpora,
vectors on others, and this weighted sum comes near the better one everywhere (docs/benchmarks.md).
"""

from __future__ import annotations

from threading import Lock

import numpy as np
from numpy.typing import NDArray

from trimem.errors import FingerprintMismatch
from trimem.store.metadata import MetadataStore
from trimem.store.scope import Where
from trimem.types import Namespace, SlotId

LEXICAL_WEIGHT = 0.3
LEXICAL_LIMIT = 200


class HybridSearch:
    """Exact search over a bank's slots; the vectors are kept in memory and read again after a write.

    Args:
        store: The bank's rows.
    """

    def __init__(self, store: MetadataStore) -> None:
        self._store = store
        self._loading = Lock()
        self._revision = -1
        self._rows: dict[SlotId, int] = {}
        self._vectors = np.empty((0, 0), np.float32)

    def __call__(
        self, query: str, vector: NDArray[np.float32], k: int, namespace: Namespace, where: Where | None
    ) -> list[tuple[SlotId, float]]:
        """Return the ids and scores of the best ``k`` slots in scope, best first. O(slots * dim).

        Args:
            query: The words.
            vector: (dim,), of length 1.
            k: How many at most.
            namespace: Where to look, and below.
            where: Filter on metadata; it runs before the choice of the best.
        """
        rows, vectors = self._load()
        ids = [slot_id for slot_id in self._store.ids(namespace, where) if slot_id in rows]
        if not ids:
            return []
        if vectors.shape[1] != len(vector):
            raise FingerprintMismatch(
                f"the bank holds vectors of {vectors.shape[1]} dimensions, the encoder makes {len(vector)}: open the "
                "bank with the encoder it was made with"
            )
        scores = (1 - LEXICAL_WEIGHT) * np.maximum(vectors[[rows[slot_id] for slot_id in ids]] @ vector, 0.0)
        words = self._store.lexical(query, namespace, where, LEXICAL_LIMIT)
        best = max(words.values(), default=0.0)
        if best > 0:
            scores += LEXICAL_WEIGHT * np.array([words.get(slot_id, 0.0) / best for slot_id in ids])
        order = np.argsort(-scores, kind="stable")[:k]
        return [(ids[i], float(scores[i])) for i in order]

    def _load(self) -> tuple[dict[SlotId, int], NDArray[np.float32]]:
        """Return rows by slot id and vectors (slots, dim), as of the newest write."""
        with self._loading:
            if self._store.revision() != self._revision:
                self._revision, ids, self._vectors = self._store.vectors()
                self._rows = {slot_id: row for row, slot_id in enumerate(ids)}
            return self._rows, self._vectors
