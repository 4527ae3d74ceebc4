"""What a bank of texts finds by codes, and by whole embeddings."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import numpy as np

from trimem.bench.squad import load_squad
from trimem.store.vector_codec import WholeVectors
from trimem.transit.bank import TransitBank

_NAMESPACE = "bench"
_WAYS: tuple[Literal["words_and_meaning", "meaning"], ...] = ("words_and_meaning", "meaning")
_AT = (1, 4, 10)


class WholeBank(TransitBank):
    """A bank whose rows hold embeddings as they are: what codes are compared with."""

    def _take(self, codec: Any) -> None:
        super()._take(codec)
        self._store.reader.vectors = WholeVectors()

    def _told(self, hits: Any) -> Any:
        return list(hits)  # there are no codes of which to expect an error


def measure_bank(path: Path, *, n: int, seed: int) -> list[dict[str, Any]]:
    """Return, for whole embeddings and for codes, in which share of questions their paragraph is among the first.

    Args:
        path: A file in SQuAD's format.
        n: Questions, drawn at random.
        seed: Of the draw.
    """
    corpus = load_squad(path)
    drawn = random.Random(seed).sample(corpus.questions, min(n, len(corpus.questions)))  # noqa: S311 - no secret
    rows = []
    for name, kind in (("float32", WholeBank), ("codes", TransitBank)):
        with (
            tempfile.TemporaryDirectory(prefix="trimem-bench-") as folder,
            kind.open(folder, slots=len(corpus.passages)) as bank,
        ):
            bank.remember(corpus.passages, namespace=_NAMESPACE)
            for by in _WAYS:
                times, ranks = [], []
                for question in drawn:
                    begun = perf_counter()
                    hits = bank.recall(question.text, max(_AT), namespace=_NAMESPACE, by=by, touch=False)
                    times.append(1000 * (perf_counter() - begun))
                    wanted = corpus.passages[question.passages[0]]
                    ranks.append(next((i for i, hit in enumerate(hits) if hit.text == wanted), max(_AT)))
                rows.append(
                    {
                        "vectors": name,
                        "by": by,
                        **{f"recall_at_{k}": float((np.array(ranks) < k).mean()) for k in _AT},
                        "recall_p50_ms": float(np.median(times)),
                        "database_bytes": bank.stats().database_bytes,
                    }
                )
    return rows
