"""Many processes on one bank: writers that must lose nothing, and readers that must never see half of anything."""

from __future__ import annotations

import multiprocessing
import random
import time
from collections import Counter
from collections.abc import Sequence
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from trimem.bench.numbered import compare, open_store, put, slot_id
from trimem.store.integrity import verify

_KEYS = 4  # documents that every writer writes again and again


def run(folder: Path, writers: int = 12, readers: int = 12, seconds: float = 60.0, seed: int = 0) -> dict[str, Any]:
    """Let processes write and read one bank for a time, and count what went wrong.

    Each writer replaces and forgets documents of its own; every write also adds one to the bank's revision, by which
    a lost one shows. Each reader takes any document and compares text and tensors with its number.

    Args:
        folder: Of the bank.
        writers: How many.
        readers: How many.
        seconds: For how long.
        seed: Of what they do.

    Returns:
        Writes and reads a second, errors by kind, writes lost, and what a check of the bank finds.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    open_store(folder).close()
    results: Queue[tuple[str, dict[str, int], dict[str, int]]] = context.Queue()
    together = context.Barrier(writers + readers)
    processes = [
        context.Process(target=target, args=(str(folder), results, seed * 1000 + i, together, seconds), daemon=True)
        for i, target in enumerate([_write] * writers + [_read] * readers)
    ]
    for process in processes:
        process.start()
    told = [results.get(timeout=seconds + 300) for _ in processes]
    for process in processes:
        process.join()
    return _summed(folder, told, seconds)


def _summed(folder: Path, told: Sequence[tuple[str, dict[str, int], dict[str, int]]], seconds: float) -> dict[str, Any]:
    counts: Counter[str] = Counter()
    held: dict[str, int] = {}
    for name, done, documents in told:
        counts.update(done)
        held.update({f"{name}/{key}": number for key, number in documents.items()})
    errors = {name.removeprefix("error "): count for name, count in counts.items() if name.startswith("error ")}
    store = open_store(folder)
    try:
        lost = counts["writes"] - store.revision()
        for name, number in held.items():
            writer, key = name.split("/")
            compare(store, slot_id(("w", writer), key, number), there=True)
        there = len(store.ids(("w",), None))
        report = verify(store)
    finally:
        store.close()
    return {
        "seconds": seconds,
        "writes": counts["writes"],
        "reads": counts["reads"],
        "writes_per_second": round(counts["writes"] / seconds, 1),
        "reads_per_second": round(counts["reads"] / seconds, 1),
        "errors": errors,
        "lost_updates": lost,
        "documents_too_many": there - len(held),
        "problems": len(report.problems),
    }


def _write(folder: str, results: Queue[Any], seed: int, together: Barrier, seconds: float) -> None:
    name, counts, held = str(seed), Counter[str](), dict[str, int]()
    rng = random.Random(seed)  # noqa: S311 - not for secrets
    store = open_store(Path(folder))
    together.wait()
    end = time.monotonic() + seconds
    number = seed * 100_000
    while time.monotonic() < end:
        number += 1
        key = f"d{rng.randrange(_KEYS)}"
        try:
            if rng.random() < 0.2:
                store.delete(("w", name), [key], None)
                held.pop(key, None)
            else:
                put(store, key, number, ("w", name))
                held[key] = number
            counts["writes"] += 1
        except Exception as error:  # noqa: BLE001 - each is counted, and none may be
            counts[f"error {type(error).__name__}: {error}"] += 1
    store.close()
    results.put((name, dict(counts), held))


def _read(folder: str, results: Queue[Any], seed: int, together: Barrier, seconds: float) -> None:
    counts, rng = Counter[str](), random.Random(seed)  # noqa: S311
    store = open_store(Path(folder))
    together.wait()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            for slot in rng.sample(slots, 1) if (slots := store.ids(("w",), None)) else ():
                compare(store, slot)
                counts["reads"] += 1
        except Exception as error:  # noqa: BLE001
            counts[f"error {type(error).__name__}: {error}"] += 1
    store.close()
    results.put((str(seed), dict(counts), {}))
