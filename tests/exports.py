"""A store that holds something of everything, its exports, and exports that were edited."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import torch
from sqlalchemy import inspect, select

from trimem.bench.numbered import open_store, put, slot_id
from trimem.reports import ImportReport
from trimem.store.archive import SUMS, ArchiveWriter
from trimem.store.exporting import MANIFEST
from trimem.store.importing import Export, import_bank
from trimem.store.metadata import MetadataStore
from trimem.store.schema import BankRow, DocumentRow, ErasureRow, ItemRow, SlotRow

A, B = ("a",), ("a", "b")


MOMENT = datetime(2999, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)


Edit = Callable[[dict[str, bytes]], None]


def filled(folder: Path) -> MetadataStore:
    """Return a bank in which every column of every row says something."""
    store = open_store(folder)
    for number in range(1, 8):
        put(store, f"d{number}", number, B if number % 2 else A)
    store.delete(A, ["d2"], None)
    store.share(store.tensors.stage({"shared": {"x": torch.arange(5)}}, {}, "shared"))
    for key in ("i1", "i2"):
        put(store, key, 50, B)
    with store.changing() as (session, change):
        change.leave([slot_id(A, "d4", 4)])
        items = session.scalars(select(DocumentRow).where(DocumentRow.key.startswith("i"))).all()
        for i, document in enumerate(items):
            item = ItemRow(document.id, MOMENT, 3600.5 if i else None, MOMENT + timedelta(days=9) if i else None)
            item.checksum = item.digest()
            session.add(item)
            if i:
                change.leave([slot.slot_id for slot in document.slots])
                document.slots.clear()
        session.flush()
        for i, slot in enumerate(session.scalars(select(SlotRow))):
            slot.expires_at, slot.provenance = MOMENT + timedelta(days=i), f"said by {i}"
            slot.trust, slot.reads, slot.read_at = 0.1 + i / 7, 3 * i, MOMENT
            slot.sentences = None if i % 2 else slot.vector[:16] * 3
            slot.checksum = slot.digest()
    return store


def rows(store: MetadataStore) -> dict[str, list[dict[str, Any]]]:
    """Return all rows of a bank, without what differs from file to file."""
    skipped = {"id", "document_id", "shard_id", "tensor_bytes", "revision", "finished"}
    found: dict[str, list[dict[str, Any]]] = {}
    with store.session() as session:
        for table, order in (
            (BankRow, "id"),
            (DocumentRow, "key"),
            (SlotRow, "slot_id"),
            (ErasureRow, "id"),
            (ItemRow, "created_at"),
        ):
            names = [name for name in columns(table) if name not in skipped]
            found[str(table.__tablename__)] = [
                {name: getattr(row, name) for name in names}
                for row in session.scalars(select(table).order_by(getattr(table, order)))
            ]
    return found


def columns(table: Any) -> list[str]:
    return [column.name for column in inspect(table).columns]


def tensors(store: MetadataStore) -> dict[str, Any]:
    held = {slot: store.read(slot) for slot in store.ids(A, None)}
    return {slot: {name: each.tolist() for name, each in (found or {}).items()} for slot, found in held.items()}


def taken_in(file: Path, folder: Path) -> ImportReport:
    """Import into a bank that is new or not, and return what that did."""
    folder.mkdir(exist_ok=True)
    with Export(file) as export:
        store = MetadataStore(folder / "bank.sqlite")
        try:
            return import_bank(store, export)[0]
        finally:
            store.close()


def all_of(file: Path) -> list[str]:
    """Return all that an import would read of an export."""
    with Export(file) as export:
        told = [repr(export.manifest), *map(repr, export.receipts())]
        told += [repr((name, sorted(tensors.items()))) for name, tensors in export.shared()]
        for number in range(1, export.manifest["groups"] + 1):
            for row, item, sums in export.group(number, 0).documents:
                told.append(repr((row, item, row.text, row.meta, sums, [(slot, slot.checksum) for slot in row.slots])))
            told += [repr((sorted(records), about)) for records, about in export.parts(number)]
    return told


def edited(file: Path, edit: Edit, **options: Any) -> Path:
    """Write an export anew with other entries, whose sums are right."""
    with zipfile.ZipFile(file) as archive:
        entries = {name: archive.read(name) for name in archive.namelist() if name != SUMS}
    edit(entries)
    with zipfile.ZipFile(file, "w", **options) as archive:
        writer = ArchiveWriter(archive)
        for name, data in entries.items():
            writer.add(name, data)
        writer.finish()
    return file


def manifest(**changes: Any) -> Edit:
    def edit(entries: dict[str, bytes]) -> None:
        entries[MANIFEST] = json.dumps({**json.loads(entries[MANIFEST]), **changes}).encode()

    return edit


def document(**changes: Any) -> Edit:
    """Change fields of the first document; those of its slot with ``slot_`` before them."""

    def edit(entries: dict[str, bytes]) -> None:
        name = "documents/000001.jsonl"
        first, *rest = entries[name].splitlines(keepends=True)
        data = json.loads(first)
        for field, value in changes.items():
            inner = field.removeprefix("slot_")
            (data if inner == field else data["slots"][0])[inner] = value
        entries[name] = json.dumps(data).encode() + b"\n" + b"".join(rest)

    return edit
