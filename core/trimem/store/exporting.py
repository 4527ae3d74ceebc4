"""A bank, or a part of it, as one file.

Documents are written in groups, each as it is at one moment: what changes while the export runs is in the file as it
was or as it is, and whoever writes or forgets meanwhile is not kept waiting.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from sqlalchemy import func, select
from sqlalchemy.orm import selectinload, undefer
from torch import Tensor

from trimem.errors import BankNotFoundError, CorruptDatabaseError, InvalidInputError
from trimem.progress import track
from trimem.reports import ExportReport
from trimem.store.archive import ArchiveWriter, writing_archive
from trimem.store.capacity import newest_slot
from trimem.store.checksums import checksum_of_tensors
from trimem.store.lines import document_line, receipt_line
from trimem.store.metadata import MetadataStore
from trimem.store.schema import ITEMS, BankRow, DocumentRow, ErasureRow, ItemRow, SlotRow
from trimem.store.scope import under
from trimem.store.tensors import Tensors
from trimem.types import Namespace, SlotId

FORMAT = "trimem-export"
VERSION = 1
MANIFEST = "manifest.json"
RECEIPTS = "receipts.jsonl"

GROUP_SLOTS = 256
"""Slots in a group, at least where there are more; a document stays in one piece."""

PART_BYTES = 32 << 20
"""Tensors held in memory at once, about."""


def group_name(group: int) -> str:
    """Return how the entries of a group begin."""
    return f"documents/{group:06}"


def export_bank(
    store: MetadataStore, path: Path, namespace: Namespace | None, progress: bool | None = None
) -> ExportReport:
    """Write documents, slots, vectors, tensors and receipts into a file. O(bytes), in the memory of one group.

    Args:
        store: Of the bank.
        path: The file, which has its name once it is whole; one of that name is replaced.
        namespace: Which, with all below; None is all.
        progress: Whether to show a bar; None leaves that to the terminal.

    Raises:
        BankNotFoundError: Nothing was ever remembered there.
        CorruptDatabaseError: A row is not what was written.
        CorruptTensorError: Tensors are not what was written.
        DiskError: The file cannot be written.
        InvalidInputError: The path names no file.
    """
    if not path.name:
        raise InvalidInputError(f"file must name the file to write, got {str(path)!r}, which is a folder")
    bank = store.origin() or _of_keys_alone(store)
    if bank.checksum != bank.digest():
        raise CorruptDatabaseError(f"what the bank in {store.path.parent} was made with is damaged: run trimem verify")
    export = _Export(store, namespace)
    with writing_archive(path) as archive, track("exporting documents", export.total, progress) as advance:
        for rows in export.groups():
            export.write(archive, rows)
            advance(len(rows))
        export.finish(archive, bank)
    return ExportReport(export.documents, export.slots, export.records, export.receipts, path.stat().st_size)


def _of_keys_alone(store: MetadataStore) -> BankRow:
    """Return what stands for the row of a database that has none: it holds items that are found by their keys alone.

    Raises:
        BankNotFoundError: It holds nothing at all.
    """
    with store.session() as session:
        first = session.scalars(select(func.min(ItemRow.created_at))).one()
    if first is None:
        raise BankNotFoundError(f"nothing was ever remembered in {store.path.parent}: there is nothing to export")
    row = BankRow(ITEMS, "", "", "", {}, first)
    row.checksum = row.digest()
    return row


class _Export:
    """One run over the documents of a bank."""

    def __init__(self, store: MetadataStore, namespace: Namespace | None) -> None:
        self._store = store
        self._namespace = namespace
        self._scope = [] if namespace is None else [under(DocumentRow.namespace, namespace)]
        self._groups = self.documents = self.slots = self.records = self.receipts = 0
        with store.session() as session:
            self.total = session.scalars(select(func.count()).select_from(DocumentRow).where(*self._scope)).one()
            self._newest = newest_slot(session)

    def groups(self) -> Iterator[Sequence[int]]:
        """Yield the row ids of the documents of each group."""
        last = 0
        while True:
            with self._store.session() as session:
                statement = (
                    select(DocumentRow.id, func.count(SlotRow.id))
                    .outerjoin(DocumentRow.slots)
                    .where(DocumentRow.id > last, *self._scope)
                    .group_by(DocumentRow.id)
                    .order_by(DocumentRow.id)
                    .limit(GROUP_SLOTS)
                )
                found = session.execute(statement).all()
            if not found:
                return
            group: list[int] = []
            slots = 0
            for row, count in found:
                if group and slots + count > GROUP_SLOTS:
                    break
                group.append(row)
                slots += count
            last = group[-1]
            yield group

    def write(self, archive: ArchiveWriter, rows: Sequence[int]) -> None:
        """Write a group, of which some documents may be gone by now."""
        documents, items = self._read(rows)
        if not documents:
            return
        self._groups += 1
        name = group_name(self._groups)
        sums: dict[SlotId, str] = {}
        part: dict[SlotId, Tensors] = {}
        made_by: dict[str, str] = {}
        parts = held = 0
        for slot in (slot for document in documents for slot in document.slots):
            tensors, about = self._tensors(slot.slot_id)
            if tensors is None:
                continue  # not compiled, or forgotten a moment ago
            size = sum(tensor.nbytes for tensor in tensors.values())
            if part and held + size > PART_BYTES:
                parts += 1
                archive.add(f"{name}.tensors-{parts:03}.safetensors", _flat(part, made_by))
                part, held = {}, 0
            part[slot.slot_id] = tensors
            made_by |= about
            sums[slot.slot_id] = checksum_of_tensors(tensors)
            held += size
        if part:
            archive.add(f"{name}.tensors-{parts + 1:03}.safetensors", _flat(part, made_by))
        archive.add(f"{name}.vectors.safetensors", _vectors([slot for each in documents for slot in each.slots]))
        archive.add(
            f"{name}.jsonl", b"".join(document_line(each, self._newest, items.get(each.id), sums) for each in documents)
        )
        self.documents += len(documents)
        self.slots += sum(len(document.slots) for document in documents)
        self.records += len(sums)

    def finish(self, archive: ArchiveWriter, bank: BankRow) -> None:
        """Write what belongs to no document."""
        with self._store.session() as session:
            scope = [] if self._namespace is None else [under(ErasureRow.namespace, self._namespace)]
            receipts = session.scalars(
                select(ErasureRow).where(*scope).order_by(ErasureRow.erased_at, ErasureRow.id)
            ).all()
        archive.add(RECEIPTS, b"".join(map(receipt_line, receipts)))
        self.receipts = len(receipts)
        shared = [row.name for row in self._store.shared()]
        for name in shared:
            archive.add(f"shared/{name}.safetensors", save(self._store.read_shared(name)))
        archive.add(MANIFEST, json.dumps(self._manifest(bank, shared), indent=2).encode())

    def _manifest(self, bank: BankRow, shared: list[str]) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "version": VERSION,
            "namespace": self._namespace,
            "bank": {
                "mechanism": bank.mechanism,
                "model_name": bank.model_name,
                "model_fingerprint": bank.model_fingerprint,
                "encoder_fingerprint": bank.encoder_fingerprint,
                "config": bank.config,
                "created_at": bank.created_at.isoformat(),
            },
            "groups": self._groups,
            "documents": self.documents,
            "slots": self.slots,
            "records": self.records,
            "receipts": self.receipts,
            "shared": shared,
        }

    def _read(self, rows: Sequence[int]) -> tuple[list[DocumentRow], dict[int, ItemRow]]:
        slots = selectinload(DocumentRow.slots).options(undefer(SlotRow.vector), undefer(SlotRow.sentences))
        with self._store.session() as session:
            documents = session.scalars(
                select(DocumentRow).where(DocumentRow.id.in_(rows)).order_by(DocumentRow.id).options(slots)
            ).all()
            found = session.scalars(select(ItemRow).where(ItemRow.document_id.in_(rows))).all()
            session.expunge_all()
        items = {item.document_id: item for item in found}
        for document in documents:
            item = items.get(document.id)
            whole = document.checksum == document.digest() and (item is None or item.checksum == item.digest())
            if not whole or any(slot.checksum != slot.digest() for slot in document.slots):
                raise CorruptDatabaseError(
                    f"the document {document.namespace}{document.key} is damaged: run trimem "
                    "repair, which says what it cannot mend, and export again"
                )
        return [document for document in documents if document.slots or document.id in items], items

    def _tensors(self, slot: SlotId) -> tuple[dict[str, Tensor] | None, dict[str, str]]:
        place = self._store.places([slot]).get(slot)
        if place is None:
            return None, {}
        return self._store.read(slot, place), self._store.tensors.metadata(place.shard)


def _flat(records: dict[SlotId, Tensors], made_by: dict[str, str]) -> bytes:
    """Return a file of records, laid out as a shard is."""
    return save(
        {
            f"{slot}/{name}": tensor.contiguous()
            for slot, tensors in records.items()
            for name, tensor in tensors.items()
        },
        made_by,
    )


def _vectors(slots: Sequence[SlotRow]) -> bytes:
    """Return the vectors of slots, and all those of their sentences, as their rows hold them, with their bytes each."""
    held = {"vector": [slot.vector for slot in slots], "sentences": [slot.sentences or b"" for slot in slots]}
    tensors = {}
    for name, parts in held.items():
        tensors[name] = torch.from_numpy(np.array(bytearray().join(parts), np.uint8))
        tensors[f"{name}_bytes"] = torch.tensor([len(part) for part in parts], dtype=torch.int64)
    return save(tensors)
