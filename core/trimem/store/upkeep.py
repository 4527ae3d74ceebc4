"""What a bank needs from time to time: waste swept up, small shards merged, files of old banks taken in."""

from __future__ import annotations

from contextlib import closing

from safetensors import SafetensorError, safe_open
from sqlalchemy import select, update

from trimem.reports import CompactReport
from trimem.store.engine import empty_log, rewrite
from trimem.store.metadata import MetadataStore
from trimem.store.schema import SlotRow
from trimem.store.shards import mergeable
from trimem.store.tensors import SUFFIX, Swept, Tensors
from trimem.types import SlotId

_GROUP = 64  # files of single records that become one shard
_FREE = 0.25  # share of free pages from which on the database is written anew


def tend(store: MetadataStore) -> Swept:
    """Bring what a crash or an older trimem left into order; done whenever a bank is opened. O(files).

    Erasures are finished that were interrupted after their rows were gone, and files that no row names
    are removed.
    """
    if any(path.is_dir() for path in store.tensors.folder.glob("*")):
        _adopt(store)
    swept = Swept()
    if store.tensors.strays(store.shard_names()):
        with store.changing():  # nobody is publishing now
            swept = store.tensors.sweep(store.shard_names())
    store.finish_erasures(wait=0)
    return swept


def compact(store: MetadataStore) -> CompactReport:
    """Merge small shards, remove waste, and give free pages of the database back. O(bytes of small shards).

    A shard at a time is merged while others wait to write; readers go on.
    """
    shards, size = _size(store)
    while True:
        with store.changing() as (session, change):
            chosen = mergeable(session)
            if chosen:
                change.rewrite(chosen)
        if not chosen:
            break
    tend(store)
    with closing(store.raw_connection()) as connection:
        cursor = connection.cursor()
        pages, free = (cursor.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count"))
        if free > _FREE * pages:
            rewrite(store.path, cursor)
        empty_log(store.path, cursor)
        cursor.close()
    return CompactReport(shards, _size(store)[0], size, _size(store)[1])


def _size(store: MetadataStore) -> tuple[int, int]:
    files = [path.stat().st_size for path in store.tensors.folder.glob(f"*{SUFFIX}")]
    return len(files), sum(files) + store.database_bytes()


def _adopt(store: MetadataStore) -> None:
    """Take the files of a bank that had one a record into shards; what cannot be read is compiled again."""
    waiting = (SlotRow.shard_id.is_(None), SlotRow.tensor_bytes.is_not(None))
    while True:
        with store.session(expired=True) as session:
            slots = list(session.scalars(select(SlotRow.slot_id).where(*waiting).order_by(SlotRow.id).limit(_GROUP)))
        if not slots:
            break
        records, metadata = _single_records(store, slots)
        staged = store.tensors.stage(records, metadata) if records else None
        with store.changing() as (session, change):
            if staged is not None:
                change.enter(staged)
            session.execute(update(SlotRow).where(SlotRow.slot_id.in_(slots), *waiting).values(tensor_bytes=None))
    for shared in store.tensors.folder.glob(f"co/codebook{SUFFIX}"):
        with safe_open(shared, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
        store.share(store.tensors.stage({"codebook": tensors}, {}, "codebook"))


def _single_records(store: MetadataStore, slots: list[SlotId]) -> tuple[dict[SlotId, Tensors], dict[str, str]]:
    records: dict[SlotId, Tensors] = {}
    metadata: dict[str, str] = {}
    for slot in slots:
        try:
            with safe_open(store.tensors.folder / slot[:2] / f"{slot}{SUFFIX}", framework="pt") as file:
                records[slot] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                metadata |= file.metadata() or {}
        except (OSError, SafetensorError):
            continue
    return records, metadata
