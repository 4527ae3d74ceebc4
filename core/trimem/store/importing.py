"""An export taken into a bank: each group of documents whole or not at all, and only what is whole.

A document that is there already is left alone, so the same import, repeated, goes on where it was interrupted. A
document that differs under the same key is replaced, as remembering it would.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from trimem.errors import FingerprintMismatch, InvalidInputError, SchemaVersionError, StoreError
from trimem.progress import track
from trimem.reports import ImportReport
from trimem.store.archive import ArchiveReader
from trimem.store.capacity import Capacity, newest_slot
from trimem.store.database import become, touch
from trimem.store.exporting import FORMAT, MANIFEST, RECEIPTS, VERSION, group_name
from trimem.store.lines import document_row, moment_of, parse, receipt_row
from trimem.store.metadata import MetadataStore
from trimem.store.reader import in_batches
from trimem.store.schema import CODED, ITEMS, BankRow, DocumentRow, ErasureRow, ItemRow, SlotRow
from trimem.store.scope import parse_path
from trimem.store.shards import ShardChange
from trimem.store.tensors import Tensors, staging
from trimem.types import Namespace, SlotId

_BANK = ("mechanism", "model_name", "model_fingerprint", "encoder_fingerprint")
_MOST = 2**62  # of what is counted: SQLite counts to twice as many
_COUNTS = ("groups", "documents", "slots", "records", "receipts")
_PART = re.compile(r"(documents/\d{6})\.tensors-\d{3,}\.safetensors")
_SHARED = re.compile(r"[A-Za-z0-9_-]+")
_WRONG = (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError, RuntimeError)

Outcome = Literal["added", "replaced", "unchanged"]


@dataclass
class _Done:
    """What has been stored so far, which slots it took the place of, and which are there of it."""

    added: int = 0
    replaced: int = 0
    unchanged: int = 0
    slots: int = 0
    records: int = 0
    gone: list[SlotId] = field(default_factory=list)
    new: set[SlotId] = field(default_factory=set)


@dataclass(frozen=True)
class _Group:
    """Documents on their way in, in order, with the checksums of their tensors by slot."""

    documents: list[tuple[DocumentRow, ItemRow | None, dict[SlotId, str]]]


class Export:
    """A file that :func:`trimem.store.exporting.export_bank` wrote, or that somebody else made; use it in ``with``.

    Args:
        path: The file.

    Raises:
        CorruptExportError: It is none, or not whole.
        SchemaVersionError: A newer trimem wrote it.
    """

    def __init__(self, path: Path) -> None:
        self.archive = ArchiveReader(path)
        try:
            with self.distrust(MANIFEST):
                self.manifest = self._read_manifest()
                self.bank = self._read_bank()
                if self.bank.mechanism == ITEMS and self.manifest["records"]:
                    raise self.archive.corrupt("items have no tensors")
        except BaseException:
            self.archive.__exit__(None, None, None)
            raise

    def __enter__(self) -> Export:
        return self

    def __exit__(self, *error: object) -> None:
        self.archive.__exit__(None, None, None)

    @contextmanager
    def distrust(self, name: str) -> Iterator[None]:
        """Turn whatever is wrong with an entry into one error that names it."""
        try:
            yield
        except StoreError:
            raise
        except (*_WRONG, SafetensorError) as error:
            raise self.archive.corrupt(f"{name} holds what an export does not: {error}") from error

    def group(self, number: int, newest: int) -> _Group:
        """Return the documents of a group, with their vectors.

        Args:
            number: Of the group, from 1 on.
            newest: What the newest row of a slot will be when all of the export is stored.
        """
        name = group_name(number)
        with self.distrust(f"{name}.jsonl"):
            lines = self.archive.read(f"{name}.jsonl").splitlines(keepends=True)
            documents = [document_row(line, newest) for line in _whole_lines(lines)]
        with self.distrust(f"{name}.vectors.safetensors"):
            slots = [slot for row, *_ in documents for slot in row.slots]
            _give_vectors(slots, load(self.archive.read(f"{name}.vectors.safetensors")))
            if slots and not self.bank.encoder_fingerprint:
                raise ValueError("it has vectors and names no encoder")
            if self.bank.mechanism != CODED:
                _check_vectors(slots)
        for row, *_ in documents:
            row.checksum = row.digest()
            for slot in row.slots:
                slot.checksum = slot.digest()
        return _Group(documents)

    def parts(self, number: int) -> Iterator[tuple[dict[SlotId, Tensors], dict[str, str]]]:
        """Yield the records of a group with what they were made by, as much at once as was written at once."""
        for name in self.archive.names():
            if name.startswith(f"{group_name(number)}.tensors-"):
                with self.distrust(name):
                    data = self.archive.read(name)
                    records: dict[SlotId, dict[str, torch.Tensor]] = {}
                    for each, tensor in load(data).items():
                        slot, _, part = each.partition("/")
                        records.setdefault(slot, {})[part] = tensor
                    header = parse(data[8 : 8 + int.from_bytes(data[:8], "little")])
                    made_by = dict(header.get("__metadata__", {}))
                yield dict(records), made_by

    def receipts(self) -> list[ErasureRow]:
        """Return the receipts of erasures."""
        with self.distrust(RECEIPTS):
            return [receipt_row(line) for line in _whole_lines(self.archive.read(RECEIPTS).splitlines(keepends=True))]

    def shared(self) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
        """Yield what all slots are read with."""
        for name in self.manifest["shared"]:
            entry = f"shared/{name}.safetensors"
            with self.distrust(entry):
                yield name, load(self.archive.read(entry))

    def _read_manifest(self) -> dict[str, Any]:
        manifest = parse(self.archive.read(MANIFEST))
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            raise self.archive.corrupt("it says that it is something else")
        version = manifest.get("version")
        if isinstance(version, int) and version > VERSION:
            raise SchemaVersionError(
                f"{self.archive.path} is an export of version {version}, this trimem reads version {VERSION}: import "
                "it with the trimem that wrote it, or a newer one (pip install --upgrade trimem)"
            )
        if version != VERSION or isinstance(version, bool):
            raise self.archive.corrupt(f"its version is {version!r}")
        for name in _COUNTS:
            count = manifest[name]
            if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count < _MOST:
                raise self.archive.corrupt(f"{name} is no number")
        if not all(isinstance(name, str) and _SHARED.fullmatch(name) for name in manifest["shared"]):
            raise self.archive.corrupt("shared is no list of names")
        expected = {MANIFEST, RECEIPTS, *(f"shared/{name}.safetensors" for name in manifest["shared"])}
        for number in range(1, manifest["groups"] + 1):
            group = {f"{group_name(number)}{kind}" for kind in (".jsonl", ".vectors.safetensors")}
            if not all(name in self.archive for name in group):
                raise self.archive.corrupt(f"group {number} is missing")
            expected |= group
        for name in self.archive.names():
            part = _PART.fullmatch(name)
            if name not in expected and (part is None or f"{part[1]}.jsonl" not in expected):
                raise self.archive.corrupt(f"{name} belongs to nothing")
        return manifest

    def _read_bank(self) -> BankRow:
        told = self.manifest["bank"]
        names = [told[name] for name in _BANK]
        needed = names[:1] if names[0] == ITEMS else names
        if not all(isinstance(name, str) for name in names) or not all(needed) or not isinstance(told["config"], dict):
            raise self.archive.corrupt("it does not say what bank it is of")
        created = moment_of(told["created_at"])
        row = BankRow(names[0], names[1], names[2], names[3], told["config"], created)
        row.checksum = row.digest()
        return row


def check_fits(path: Path, folder: Path, row: BankRow, export: BankRow) -> None:
    """Raise unless what is exported was made as the bank is; items fit where their encoder does.

    Raises:
        FingerprintMismatch: Another model or encoder made it.
        InvalidInputError: It is of another mechanism or configuration.
    """
    items_alone = ITEMS in (row.mechanism, export.mechanism)
    if items_alone and CODED in (row.mechanism, export.mechanism) and export.encoder_fingerprint:
        raise InvalidInputError(
            f"{path} and the bank in {folder} are one of transit memory, the other of items with texts, for which it "
            "is no place: import it into a new folder"
        )
    if row.mechanism != export.mechanism and not items_alone:
        raise InvalidInputError(
            f"{path} is of {export.mechanism} memory, the bank in {folder} is of {row.mechanism} memory: import "
            "it into a new folder"
        )
    for what, ours, theirs in (
        ("model", row.model_fingerprint, export.model_fingerprint),
        ("encoder", row.encoder_fingerprint, export.encoder_fingerprint),
    ):
        if ours != theirs and not (items_alone and (what == "model" or not theirs)):
            raise FingerprintMismatch(
                f"{path} is of a bank made with the {what} {theirs}, the bank in {folder} is made with {ours}: import "
                "it into a new folder, and bring that to the other model (trimem recompile)"
            )
    if row.config != export.config and not items_alone:
        raise InvalidInputError(
            f"{path} is of a bank made with {export.config}, the bank in {folder} was made with {row.config}: import "
            "it into a new folder"
        )


def import_bank(
    store: MetadataStore, export: Export, progress: bool | None = None, capacity: Capacity | None = None
) -> tuple[ImportReport, list[SlotId]]:
    """Store what an export holds, a group at a time. O(its bytes), in the memory of one group.

    Args:
        store: Of the bank, which is made as the export says where nothing was remembered yet.
        export: What to store.
        progress: Whether to show a bar; None leaves that to the terminal.
        capacity: How much the bank may hold: what comes in makes room, as what is remembered does, group by group.

    Returns:
        What was done, and the slots that are gone: replaced, or erased to make room.

    Raises:
        CorruptExportError: A part of it is not whole; the groups before stay.
        FingerprintMismatch: Another model or encoder made it than the bank.
        InvalidInputError: It is of another mechanism or configuration, or has codebooks that the bank has not, or one
            of its documents is more than the capacity; the groups before stay.
        DiskError: The disk is full or cannot be written to.
    """
    last = export.receipts()  # they are small, and nothing is stored of an export whose last entry is broken
    _begin(store, export)
    for name, tensors in export.shared():
        _share(store, export, name, tensors)
    done = _Done()
    with store.session() as session:
        newest = newest_slot(session) + export.manifest["slots"]
    with track("importing documents", export.manifest["documents"], progress) as advance:
        for number in range(1, export.manifest["groups"] + 1):
            group = export.group(number, newest)
            _store_group(store, export, number, group, done, capacity)
            advance(len(group.documents))
    receipts = _store_receipts(store, last)
    return ImportReport(done.added, done.replaced, done.unchanged, done.slots, done.records, receipts), done.gone


def _begin(store: MetadataStore, export: Export) -> None:
    with store.changing() as (session, _):
        row, theirs = session.get(BankRow, 1), export.bank
        if row is not None:
            check_fits(export.archive.path, store.path.parent, row, theirs)
            if row.mechanism == ITEMS:
                become(row, theirs.mechanism, theirs.model_name, theirs.model_fingerprint, theirs.config)
        elif theirs.encoder_fingerprint:  # else it is items that are found by their keys alone
            session.add(theirs)
            session.flush()
            session.expunge(theirs)


def _share(store: MetadataStore, export: Export, name: str, tensors: Tensors) -> None:
    row = store.shard(name)
    with export.distrust(name):
        staged = store.tensors.stage({name: tensors}, {}, name)
    try:
        if row is None:
            store.share(staged)
        elif row.checksum != staged.checksum:
            raise InvalidInputError(
                f"{export.archive.path} is read with another {name} than the bank in {store.path.parent}: import it "
                "into a new folder"
            )
    finally:
        staged.discard()


def _store_group(
    store: MetadataStore, export: Export, number: int, group: _Group, done: _Done, capacity: Capacity | None
) -> None:
    """Store the documents of a group that are not there, in one transaction."""
    with store.session() as session:
        wanted = {
            slot: checksum
            for row, item, tensors in group.documents
            if _outcome(session, row, item, tensors) != "unchanged"
            for slot, checksum in tensors.items()
        }
    with staging() as staged:
        for records, made_by in export.parts(number):
            if chosen := {slot: tensors for slot, tensors in records.items() if slot in wanted}:
                with export.distrust(f"a part of group {number}"):
                    staged.append(store.tensors.stage(chosen, made_by))
        sums = {slot: record.checksum for shard in staged for slot, record in shard.records.items()}
        if sums != wanted:
            raise export.archive.corrupt(f"the tensors of group {number} are not those of its slots")
        with store.changing() as (session, change):
            namespaces = _put(session, change, export, group, done)
            for shard in staged:
                change.enter(shard)
            change.merge_ripe()
            evicted = store.make_room(session, change, capacity, namespaces, done.new)
            touch(session)
        done.records += len(sums)
    if evicted:
        gone = [slot for receipt in evicted for slot in receipt.slots]
        done.gone += gone
        done.new.difference_update(gone)
        store.finish_erasures(wait=0, thorough=False)  # it may happen at every group


def _put(session: Session, change: ShardChange, export: Export, group: _Group, done: _Done) -> set[Namespace]:
    """Store the documents of a group that are not there, and return their namespaces."""
    namespaces: set[Namespace] = set()
    dim = session.scalars(select(func.length(SlotRow.vector)).limit(1)).one_or_none()
    for row, item, tensors in group.documents:
        outcome = _outcome(session, row, item, tensors)
        setattr(done, outcome, getattr(done, outcome) + 1)
        if outcome == "unchanged":
            continue
        old = _held(session, row)
        if old is not None:
            gone = [slot.slot_id for slot in old.slots]
            change.leave(gone)
            done.gone += gone
            session.delete(old)
            session.flush()
        ids = [slot.slot_id for slot in row.slots]
        taken = [
            slot
            for some in in_batches(ids)
            for slot in session.scalars(select(SlotRow.slot_id).where(SlotRow.slot_id.in_(some)))
        ]
        if taken or len(set(ids)) < len(ids):
            raise export.archive.corrupt(f"it has slots of one id in several documents: {taken or ids}")
        if dim is not None and any(len(slot.vector) != dim for slot in row.slots):
            raise export.archive.corrupt(f"its vectors are not of {dim} bytes each, as the bank's")
        session.add(row)
        session.flush()
        if item is not None:
            item.document_id = row.id
            session.add(item)
            session.flush()
        namespaces.add(parse_path(row.namespace))
        done.new.update(ids)
        done.slots += len(ids)
    return namespaces


def _outcome(session: Session, row: DocumentRow, item: ItemRow | None, tensors: Mapping[SlotId, str]) -> Outcome:
    """Return whether a document is new, as it is already, or another under the same key."""
    old = _held(session, row)
    if old is None:
        return "added"
    ours = [(slot.slot_id, slot.checksum, slot.tensor_checksum) for slot in old.slots]
    theirs = [(slot.slot_id, slot.checksum, tensors.get(slot.slot_id)) for slot in row.slots]
    same = len(ours) == len(theirs) and all(
        mine[:2] == given[:2] and given[2] in (None, mine[2]) for mine, given in zip(ours, theirs, strict=True)
    )
    was = session.get(ItemRow, old.id)
    same = same and (was and was.checksum) == (item and item.checksum)
    return "unchanged" if same and old.checksum == row.checksum else "replaced"


def _held(session: Session, row: DocumentRow) -> DocumentRow | None:
    statement = select(DocumentRow).where(DocumentRow.namespace == row.namespace, DocumentRow.key == row.key)
    return session.scalars(statement).one_or_none()


def _store_receipts(store: MetadataStore, receipts: Sequence[ErasureRow]) -> int:
    new = 0
    with store.changing() as (session, _):
        for row in receipts:
            if session.get(ErasureRow, row.id) is None:
                session.add(row)
                session.flush()
                new += 1
    return new


def _give_vectors(slots: Sequence[SlotRow], tensors: Mapping[str, torch.Tensor]) -> None:
    """Give slots their vectors, in order.

    Raises:
        ValueError: There are not as many, or they are no vectors.
    """
    for name in ("vector", "sentences"):
        held, sizes = tensors[name], tensors[f"{name}_bytes"]
        if (held.dtype, sizes.dtype, sizes.shape) != (torch.uint8, torch.int64, (len(slots),)) or (sizes < 0).any():
            raise ValueError(f"it has no {name} for each slot")
        alike = not slots or (len(sizes.unique()) == 1 and len(held))
        if held.shape != (int(sizes.sum()),) or (name == "vector" and not alike):
            raise ValueError(f"its {name} are of other lengths than it says")
        data, start = held.numpy().tobytes(), 0
        for slot, size in zip(slots, sizes.tolist(), strict=True):
            setattr(slot, name, data[start : start + size] or None)
            start += size


_LONG = 1e6  # no number of a vector is so large, and the squares of none are too large for float32


def _check_vectors(slots: Sequence[SlotRow]) -> None:
    """Raise unless rows hold vectors as most mechanisms do: in float32, those of sentences in float16.

    Raises:
        ValueError: They do not.
    """
    whole = np.frombuffer(b"".join(slot.vector for slot in slots), np.float32)
    parts = np.frombuffer(b"".join(slot.sentences or b"" for slot in slots), np.float16)
    if not (np.isfinite(whole).all() and np.isfinite(parts).all() and (np.abs(whole) < _LONG).all()):
        raise ValueError("its vectors hold numbers that are too large")
    if any(2 * len(slot.sentences or b"") % len(slot.vector) for slot in slots):
        raise ValueError("its sentences have vectors of another length")


def _whole_lines(lines: list[bytes]) -> list[bytes]:
    """Return lines that all end.

    Raises:
        ValueError: One does not.
    """
    if any(not line.endswith(b"\n") for line in lines):
        raise ValueError("its last line is cut off")
    return lines
