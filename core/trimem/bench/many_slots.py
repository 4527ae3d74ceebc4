"""A bank of very many slots: how long it takes to open it and to search it, how much memory, and whether it errs.

Slots are made up: three sentences of random words, a random vector, and metadata to filter by. They are written past
the bank, in the rows that it would have written.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import insert, select

from trimem.errors import InvalidInputError
from trimem.explicit.config import ExplicitConfig
from trimem.progress import track
from trimem.store.metadata import MetadataStore, hash_text
from trimem.store.schema import DocumentRow, SlotRow, document_checksum, slot_checksum
from trimem.store.scope import format_path, scope_words
from trimem.types import Hit, Namespace

DIM = 32
NAMESPACE: Namespace = ("many",)
TOPICS = 1000
"""Values of the metadata that is filtered by; a filter leaves one slot in as many."""

_GROUP = 5_000
_VOCABULARY = 50_000
_K = 10


class Vectors:
    """An encoder whose vector of a text is drawn at random, by the text."""

    fingerprint = "e"

    def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.stack([self.encode_query(text) for text in texts])

    def encode_query(self, text: str) -> NDArray[np.float32]:
        drawn = np.random.default_rng(int(hash_text(text)[:8], 16)).standard_normal(DIM, dtype=np.float32)
        unit: NDArray[np.float32] = drawn / np.linalg.norm(drawn)
        return unit


def run(folder: Path, slots: int, queries: int = 50, seed: int = 0, progress: bool | None = None) -> dict[str, Any]:
    """Fill a bank and measure it in a process of its own.

    Args:
        folder: Of the bank; what lies there already is used as it is.
        slots: How many.
        queries: How often it is searched, in each way.
        seed: Of slots and queries.
        progress: Whether to show a bar; None leaves that to the terminal.

    Returns:
        Seconds, milliseconds and megabytes; and the share of the hits of an exact search that were found.
    """
    store = _store(folder)
    try:
        start = time.perf_counter()
        fill(store, slots - store.stats(None).slots, seed, progress)
        filled = time.perf_counter() - start
        size = store.database_bytes()
    finally:
        store.close()
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        measured = pool.apply(_measure, (str(folder), queries, seed))
    with context.Pool(1) as pool:
        exact = pool.apply(_exactness, (str(folder), queries, seed))
    return {"slots": slots, "dim": DIM, "filled_s": round(filled, 1), "database_mb": size / 1e6, **measured, **exact}


def fill(store: MetadataStore, count: int, seed: int, progress: bool | None = None) -> None:
    """Store so many slots more."""
    first = store.stats(None).slots
    path, scope, now = format_path(NAMESPACE), scope_words(NAMESPACE), store.now()
    with track("making slots up", max(count, 0), progress) as advance:
        for start in range(first, first + count, _GROUP):
            numbers = range(start, min(start + _GROUP, first + count))
            texts = dict(zip(numbers, _texts(len(numbers), seed + start), strict=True))
            vectors = np.random.default_rng(seed + start).standard_normal((len(numbers), DIM), dtype=np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            documents, rows = [], []
            for number, vector in zip(numbers, vectors, strict=True):
                key, text, meta = f"d{number}", texts[number], {"topic": number % TOPICS, "n": number}
                documents.append(
                    {
                        "namespace": path,
                        "key": key,
                        "content_hash": hash_text(text),
                        "text": text,
                        "meta": meta,
                        "created_at": now,
                        "checksum": document_checksum(path, key, hash_text(text), text, meta, now),
                    }
                )
                rows.append(_slot(number, path, scope, text, vector.tobytes(), now))
            with store.changing() as (session, _):
                ids = session.scalars(
                    insert(DocumentRow).returning(DocumentRow.id, sort_by_parameter_order=True), documents
                ).all()
                session.execute(insert(SlotRow), [{"document_id": i, **row} for i, row in zip(ids, rows, strict=True)])
            advance(len(numbers))


def _store(folder: Path) -> MetadataStore:
    folder.mkdir(parents=True, exist_ok=True)
    store = MetadataStore(folder / "bank.sqlite")
    made_by = {"mechanism": "explicit", "model_name": "m", "model_fingerprint": "m"}
    store.create_bank(**made_by, encoder_fingerprint=Vectors.fingerprint, config=ExplicitConfig().to_json())
    row = store.bank()
    if row is None or row.model_fingerprint != made_by["model_fingerprint"]:
        store.close()
        raise InvalidInputError(f"{folder} holds a bank that was not made up here: give a folder that is not there yet")
    return store


def _slot(number: int, path: str, scope: str, text: str, vector: bytes, now: Any) -> dict[str, Any]:
    slot_id, tokens = f"{number:032x}", len(text) // 4
    where = 0, len(text), 1, tokens
    return {
        "slot_id": slot_id,
        "namespace": path,
        "text": text,
        "start": 0,
        "stop": len(text),
        "line": 1,
        "tokens": tokens,
        "vector": vector,
        "created_at": now,
        "scope": scope,
        "checksum": slot_checksum(slot_id, path, scope, text, where, vector, None, now, (None, None, 1.0)),
    }


def _texts(count: int, seed: int) -> Iterator[str]:
    """Yield texts of eighteen words, common ones more often."""
    ranks = np.random.default_rng(seed).zipf(1.3, (count, 18)) % _VOCABULARY
    for row in ranks:
        yield " ".join(f"w{rank}" for rank in row)


def _queries(store: MetadataStore, count: int, seed: int) -> list[str]:
    """Return words of slots that are there, drawn at random."""
    draw = random.Random(seed)  # noqa: S311 - a draw, no secret
    total = store.stats(None).slots
    with store.session() as session:
        ids = [f"{draw.randrange(total):032x}" for _ in range(count)]
        texts = session.scalars(select(SlotRow.text).where(SlotRow.slot_id.in_(ids))).all()
    return [" ".join(draw.sample(text.split(), 6)) for text in texts]


def _measure(folder: str, queries: int, seed: int) -> dict[str, Any]:
    from trimem.explicit.bank import ExplicitBank

    before = _resident()
    start = time.perf_counter()
    with ExplicitBank.open(folder, encoder=Vectors(), create=False) as bank:
        opened = time.perf_counter() - start
        asked = _queries(bank._store, queries, seed)
        start = time.perf_counter()
        bank.recall(asked[0], _K, namespace=NAMESPACE)
        first = time.perf_counter() - start
        after_first = _resident()
        plain = _timed(asked, lambda query: bank.recall(query, _K, namespace=NAMESPACE))

        def filtered(query: str) -> list[Hit]:
            return bank.recall(query, _K, namespace=NAMESPACE, where={"topic": len(query) % TOPICS})

        scanned = _timed(asked[: len(asked) // 5], filtered)
        start = time.perf_counter()
        bank.index_metadata("topic")
        indexing = time.perf_counter() - start
        indexed = _timed(asked, filtered)
        start = time.perf_counter()
        bank.stats(namespace=NAMESPACE)
        counted = time.perf_counter() - start
        after = _resident()
    return {
        "open_s": opened,
        "first_recall_s": first,
        "recall": _spread(plain),
        "scanned_filter": _spread(scanned),
        "index_s": indexing,
        "indexed_filter": _spread(indexed),
        "stats_s": counted,
        "rss_before_mb": before / 1e6,
        "rss_after_first_mb": after_first / 1e6,
        "rss_after_mb": after / 1e6,
    }


def _resident() -> int:
    """Return the bytes of memory this process has; 0 where the system does not tell."""
    told = Path("/proc/self/statm")
    return int(told.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if told.exists() else 0


def _timed(queries: Sequence[str], search: Callable[[str], list[Hit]]) -> list[tuple[float, float]]:
    """Return the milliseconds that each search takes, and those of them that it computes."""
    taken = []
    for query in queries:
        start, computed = time.perf_counter(), time.process_time()
        if not search(query):
            raise AssertionError("nothing was found")
        taken.append((1000 * (time.perf_counter() - start), 1000 * (time.process_time() - computed)))
    return taken


def _spread(taken: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Return medians, and the 95th percentile of what was waited for."""
    wall, computed = zip(*taken, strict=True)
    return {
        "p50_ms": statistics.median(wall),
        "p95_ms": statistics.quantiles(wall, n=20)[-1],
        "p50_cpu_ms": statistics.median(computed),
    }


def _exactness(folder: str, queries: int, seed: int) -> dict[str, Any]:
    """Compare hits with those of a search that compares all vectors as they are."""
    from trimem.store.search import HybridSearch

    store, encoder = _store(Path(folder)), Vectors()
    try:
        searches = HybridSearch(store.reader), HybridSearch(store.reader, exact_slots=10**9)
        shares = []
        for query in _queries(store, queries, seed):
            quick, exact = (
                {hit.id for hit in search(query, encoder.encode_query(query), _K, NAMESPACE, None)}
                for search in searches
            )
            shares.append(len(quick & exact) / len(exact))
        for search in searches:
            search.close()
    finally:
        store.close()
    return {"same_hits": statistics.mean(shares)}
