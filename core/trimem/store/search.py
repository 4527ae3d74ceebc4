"""Finding slots by their words and by their vectors at once.

The score of a slot is ``0.3 * bm25 / best bm25 + 0.7 * cosine``: words alone win on some corpora,
vectors on others, and this weighted sum is near the better of the two on either kind, which fusing
their ranks with equal weight is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray

from trimem.errors import FingerprintMismatch
from trimem.store.metadata import MetadataStore
from trimem.store.scope import Where
from trimem.types import Namespace, SlotId

LEXICAL_WEIGHT = 0.3
LEXICAL_LIMIT = 200
SCOPES_KEPT = 256


@dataclass(frozen=True, slots=True)
class _Scope:
    """The slots that one query may find.

    Attributes:
        ids: Their ids.
        vectors: (slots, dim).
    """

    ids: list[SlotId]
    vectors: NDArray[np.float32]


class HybridSearch:
    """Exact search over a bank's slots.

    Vectors stay in memory, gathered by namespace, until the next write by any process.

    Args:
        store: The bank's rows.
    """

    def __init__(self, store: MetadataStore) -> None:
        self._store = store
        self._loading = Lock()
        self._revision = -1
        self._rows: dict[SlotId, int] = {}
        self._vectors = np.empty((0, 0), np.float32)
        self._scopes: dict[Namespace, _Scope] = {}

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

        Raises:
            FingerprintMismatch: The vector is of another dimension than the bank's.
        """
        scope = self._scope(namespace, where)
        if not scope.ids:
            return []
        if scope.vectors.shape[1] != len(vector):
            raise FingerprintMismatch(
                f"the bank holds vectors of {scope.vectors.shape[1]} dimensions, the encoder makes {len(vector)}: open "
                "the bank with the encoder it was made with"
            )
        # By torch: two thread pools, numpy's and torch's, would take the cores from each other and
        # slow down the encoder that runs before and the model that runs after by a factor of two.
        cosine = (torch.from_numpy(scope.vectors) @ torch.from_numpy(vector)).numpy()
        scores = (1 - LEXICAL_WEIGHT) * np.maximum(cosine, 0.0)
        words = self._store.lexical(query, namespace, where, LEXICAL_LIMIT)
        best = max(words.values(), default=0.0)
        if best > 0:
            scores += LEXICAL_WEIGHT * np.array([words.get(slot_id, 0.0) / best for slot_id in scope.ids])
        order = np.argsort(-scores, kind="stable")[:k]
        return [(scope.ids[i], float(scores[i])) for i in order]

    def _scope(self, namespace: Namespace, where: Where | None) -> _Scope:
        """Return the slots in scope as of the newest write."""
        with self._loading:
            if self._store.revision() != self._revision:
                self._revision, ids, self._vectors = self._store.vectors()
                self._rows = {slot_id: row for row, slot_id in enumerate(ids)}
                self._scopes.clear()
            if not where and namespace in self._scopes:
                return self._scopes[namespace]
            found = [slot_id for slot_id in self._store.ids(namespace, where) if slot_id in self._rows]
            scope = _Scope(found, self._vectors[[self._rows[slot_id] for slot_id in found]])
            if not where:
                if len(self._scopes) >= SCOPES_KEPT:
                    self._scopes.clear()
                self._scopes[namespace] = scope
            return scope
