"""The rows of a bank: documents and slots, found by namespace, filter, words or id.

Every statement that reads or deletes slots is built on :mod:`trimem.store.scope`. A transaction is
one public method, and takes the files of tensors with it (:mod:`trimem.store.shards`).
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import PoolProxiedConnection, delete, func, or_, select, text, update
from sqlalchemy.orm import Session
from torch import Tensor

from trimem.errors import BankBusyError, CorruptTensorError
from trimem.store.engine import open_engine, writing
from trimem.store.reader import SearchReader, in_batches
from trimem.store.schema import SEARCH_TABLE, BankRow, ChangeRow, DocumentRow, ErasureRow, ShardRow, SlotRow
from trimem.store.scope import Where, format_path, in_scope, parse_path, scope_words, under
from trimem.store.shards import ShardChange
from trimem.store.tensors import Place, StagedShard, TensorStore
from trimem.types import BankStats, ErasureReceipt, Metadata, Namespace, Slot, SlotId, StoredText

BUSY_SECONDS = 30.0
"""How long to wait for others to let go of the log."""

CHANGES_KEPT = 100_000
"""Changes that are noted; who was away for longer reads all slots again."""

_MERGE_INDEX = f"INSERT INTO {SEARCH_TABLE}({SEARCH_TABLE}) VALUES ('optimize')"  # noqa: S608 - a constant


@dataclass(frozen=True)
class Document:
    """A text as it is given.

    Attributes:
        key: Unique in its namespace.
        text: The text.
        metadata: What is stored beside it; what JSON can hold.
    """

    key: str
    text: str = field(repr=False)
    metadata: Metadata = field(repr=False)

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of the text."""
        return hash_text(self.text)


@dataclass(frozen=True, slots=True)
class NewSlot:
    """A stretch of a document on its way into the store; the attributes are those of a slot's row.

    Attributes:
        vector: (dim,), of length 1.
        sentences: (sentences, dim), of length 1, or None where there is but one.
    """

    slot_id: SlotId
    text: str = field(repr=False)
    start: int
    stop: int
    line: int
    tokens: int
    vector: NDArray[np.float32] = field(repr=False)
    sentences: NDArray[np.float32] | None = field(default=None, repr=False)


def hash_text(text: str) -> str:
    """Return the SHA-256 of a text in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def utc_now() -> datetime:
    """Return this moment."""
    return datetime.now(UTC)


class MetadataStore:
    """The database of one bank.

    Args:
        path: The SQLite file; created if it does not exist.
        clock: Tells the moment, with its time zone.
        tensors: The files of the slots' tensors; None is ``tensors`` beside the database.

    Attributes:
        reader: What search reads.
        tensors: The files.

    Raises:
        SchemaVersionError: It was written by a newer trimem.
    """

    def __init__(self, path: Path, clock: Callable[[], datetime] = utc_now, tensors: TensorStore | None = None) -> None:
        self.path = path
        self.tensors = tensors or TensorStore(path.parent / "tensors")
        self._clock = clock
        self._engine = open_engine(path)
        self._writing = writing(self._engine)
        self.reader = SearchReader(self._engine)

    def close(self) -> None:
        self._engine.dispose()

    def session(self) -> Session:
        """Return a session to read in; use it in a ``with`` block."""
        return Session(self._engine)

    def raw_connection(self) -> PoolProxiedConnection:
        """Return a connection outside any transaction; close it."""
        return self._engine.raw_connection()

    @contextmanager
    def changing(self) -> Iterator[tuple[Session, ShardChange]]:
        """Change rows and shards, in one transaction that waits for its turn at its beginning.

        Raises:
            BankBusyError: Others wrote for so long that the turn did not come.
            DiskError: The disk is full, read-only or failing; nothing has changed then.
        """
        with Session(self._writing) as session:
            change = ShardChange(session, self.tensors)
            try:
                with session.begin():
                    session.connection()  # takes the lock, before any file is published
                    yield session, change
            except BaseException:
                change.undo()
                raise
        self.tensors.delete(change.removed)

    # The bank as a whole

    def bank(self) -> BankRow | None:
        """Return the bank's row, or None in a new database."""
        with Session(self._engine, expire_on_commit=False) as session:
            return session.get(BankRow, 1)

    def create_bank(
        self,
        *,
        mechanism: str,
        model_name: str,
        model_fingerprint: str,
        encoder_fingerprint: str,
        config: Mapping[str, Any],
    ) -> BankRow:
        """Store the bank's row unless there is one already, and return the one there is."""
        with Session(self._writing, expire_on_commit=False) as session, session.begin():
            row = session.get(BankRow, 1)
            if row is None:
                row = BankRow(
                    mechanism, model_name, model_fingerprint, encoder_fingerprint, dict(config), self._clock()
                )
                row.checksum = row.digest()
                session.add(row)
            return row

    def revision(self) -> int:
        """Return a number that grows with every write to this bank, by whichever process."""
        with Session(self._engine) as session:
            return session.scalars(select(BankRow.revision)).one_or_none() or 0

    def stats(self, namespace: Namespace | None) -> BankStats:
        """Count what is stored, in all or under one namespace."""
        scope = [] if namespace is None else [under(SlotRow.namespace, namespace)]
        documents = [] if namespace is None else [under(DocumentRow.namespace, namespace)]
        with Session(self._engine) as session:
            slots, compiled, tokens, tensor_bytes = session.execute(
                select(
                    func.count(),
                    func.count(SlotRow.tensor_bytes),
                    func.coalesce(func.sum(SlotRow.tokens), 0),
                    func.coalesce(func.sum(SlotRow.tensor_bytes), 0),
                ).where(*scope)
            ).one()
            by_namespace = session.execute(
                select(SlotRow.namespace, func.count()).where(*scope).group_by(SlotRow.namespace)
            ).all()
            return BankStats(
                documents=session.scalars(select(func.count()).select_from(DocumentRow).where(*documents)).one(),
                slots=slots,
                compiled=compiled,
                tokens=tokens,
                tensor_bytes=tensor_bytes or 0,
                database_bytes=self.database_bytes(),
                namespaces={parse_path(path): count for path, count in by_namespace},
            )

    def database_bytes(self) -> int:
        """Return the bytes of the database with its log."""
        return sum(file.stat().st_size for file in self.path.parent.glob(f"{self.path.name}*"))

    # Writing

    def documents(self, namespace: Namespace, keys: Collection[str]) -> dict[str, tuple[str, list[SlotId]]]:
        """Return content hash and slot ids of those documents, of exactly this namespace, that exist."""
        found: dict[str, tuple[str, list[SlotId]]] = {}
        with Session(self._engine) as session:
            for some in in_batches(keys):
                rows = session.execute(
                    select(DocumentRow.key, DocumentRow.content_hash, SlotRow.slot_id)
                    .outerjoin(DocumentRow.slots)
                    .where(DocumentRow.namespace == format_path(namespace), DocumentRow.key.in_(some))
                    .order_by(DocumentRow.id, SlotRow.start)
                )
                for key, content_hash, slot_id in rows:
                    slots = found.setdefault(key, (content_hash, []))[1]
                    if slot_id is not None:
                        slots.append(slot_id)
        return found

    def documents_under(self, namespace: Namespace, prefix: str) -> dict[str, tuple[str, Metadata]]:
        """Return content hash and metadata of the documents, of exactly this namespace, whose keys begin so."""
        after = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        with Session(self._engine) as session:
            rows = session.execute(
                select(DocumentRow.key, DocumentRow.content_hash, DocumentRow.meta)
                .where(DocumentRow.namespace == format_path(namespace))
                .where(DocumentRow.key >= prefix, DocumentRow.key < after)
            )
            return {key: (content_hash, meta) for key, content_hash, meta in rows}

    def texts(self, namespace: Namespace, keys: Collection[str]) -> list[StoredText]:
        """Return those documents, of this namespace and below, that exist, in the order of their keys."""
        found: dict[str, list[StoredText]] = {}
        with Session(self._engine) as session:
            for some in in_batches(keys):
                rows = session.execute(
                    select(DocumentRow.key, DocumentRow.namespace, DocumentRow.text, DocumentRow.meta)
                    .where(under(DocumentRow.namespace, namespace), DocumentRow.key.in_(some))
                    .order_by(DocumentRow.id)
                )
                for key, path, told, meta in rows:
                    found.setdefault(key, []).append(StoredText(key, parse_path(path), told, meta))
        return [each for key in keys for each in found.get(key, ())]

    def put(
        self,
        namespace: Namespace,
        documents: Sequence[tuple[Document, Sequence[NewSlot]]],
        staged: Iterable[StagedShard] = (),
    ) -> list[SlotId]:
        """Store documents with their slots and tensors, replacing those of exactly this namespace and the same key.

        Returns:
            The slots that were replaced and are not stored again.
        """
        now = self._clock()
        path = format_path(namespace)
        replaced: list[SlotId] = []
        with self.changing() as (session, change):
            for document, slots in documents:
                old = session.scalars(
                    select(DocumentRow).where(DocumentRow.namespace == path, DocumentRow.key == document.key)
                ).one_or_none()
                if old is not None:
                    gone = [slot.slot_id for slot in old.slots]
                    change.leave(gone)
                    replaced += gone
                    session.delete(old)
                    session.flush()
                row = DocumentRow(
                    path, document.key, document.content_hash, document.text, dict(document.metadata), now
                )
                row.slots = [
                    SlotRow(
                        slot.slot_id,
                        path,
                        slot.text,
                        slot.start,
                        slot.stop,
                        slot.line,
                        slot.tokens,
                        np.ascontiguousarray(slot.vector, np.float32).tobytes(),
                        now,
                        scope=scope_words(namespace),
                        sentences=None if slot.sentences is None else slot.sentences.astype(np.float16).tobytes(),
                    )
                    for slot in slots
                ]
                row.checksum = row.digest()
                for each in row.slots:
                    each.checksum = each.digest()
                session.add(row)
            session.flush()
            for shard in staged:
                change.enter(shard)
            change.merge_ripe()
            _touch(session)
        kept = {slot.slot_id for _, slots in documents for slot in slots}
        return [slot_id for slot_id in replaced if slot_id not in kept]

    def update_metadata(self, namespace: Namespace, metadata: Mapping[str, Metadata]) -> None:
        """Replace the metadata of documents of exactly this namespace, by their keys."""
        with self.changing() as (session, _):
            for some in in_batches(metadata):
                rows = session.scalars(
                    select(DocumentRow).where(
                        DocumentRow.namespace == format_path(namespace), DocumentRow.key.in_(some)
                    )
                )
                for row in rows:
                    row.meta = dict(metadata[row.key])
                    row.checksum = row.digest()
            _touch(session)

    def set_tensors(self, staged: Iterable[StagedShard]) -> None:
        """Give slots that have none their tensors; slots that were erased meanwhile get none."""
        with self.changing() as (_, change):
            for shard in staged:
                change.enter(shard)
            change.merge_ripe()

    def forsake(self, slots: Collection[SlotId]) -> None:
        """Let slots count as not compiled that lie in shards whose files somebody removed, with all others there."""
        gone = {place.shard for place in self.places(slots).values() if not self.tensors.path(place.shard).exists()}
        if gone:
            with self.changing() as (session, change):
                for some in in_batches(gone):
                    change.rewrite(session.scalars(select(ShardRow.id).where(ShardRow.name.in_(some))).all())

    def share(self, staged: StagedShard) -> None:
        """Take in a shard that belongs to no slot, unless there is one of its name."""
        with self.changing() as (session, change):
            if session.scalars(select(ShardRow).where(ShardRow.name == staged.name)).one_or_none() is None:
                change.share(staged)
            else:
                staged.discard()

    def delete(
        self,
        namespace: Namespace,
        ids: Collection[str] | None,
        where: Where | None,
        *,
        siblings: bool = False,
    ) -> ErasureReceipt:
        """Delete slots, and documents that have none left, so that no byte of text or tensors stays.

        Costs O(index), since the full-text index is merged, which drops the deleted words for good, and O(bytes)
        of the shards that held the slots, which are written anew without them.

        Args:
            namespace: Where, and below.
            ids: Slot ids or document keys; None is all.
            where: Filter on metadata; None is all.
            siblings: Whether the tensors of other slots of the same documents know of those that are deleted: they
                go then, too, and are compiled again when they are next read.

        Raises:
            BankBusyError: The rows are gone, but somebody reads for so long that the log could not be emptied.
        """
        with self.changing() as (session, change):
            targets = [select(SlotRow.slot_id).join(SlotRow.document).where(*in_scope(namespace, where))]
            if ids is not None:
                targets = [
                    targets[0].where(or_(SlotRow.slot_id.in_(some), DocumentRow.key.in_(some)))
                    for some in in_batches(ids)
                ]
            doomed = sorted({slot_id for target in targets for slot_id in session.scalars(target)})
            if siblings:
                change.leave(_siblings(session, doomed))
            receipt = self._erase(session, change, namespace, doomed, "forgotten")
        self.finish_erasures()
        return receipt

    def _erase(
        self, session: Session, change: ShardChange, namespace: Namespace, doomed: Sequence[SlotId], reason: str
    ) -> ErasureReceipt:
        records, freed = change.leave(doomed)
        _blank(session, doomed)
        for some in in_batches(doomed):
            session.execute(delete(SlotRow).where(SlotRow.slot_id.in_(some)))
        empty = (
            delete(DocumentRow)
            .where(under(DocumentRow.namespace, namespace))
            .where(~select(SlotRow.id).where(SlotRow.document_id == DocumentRow.id).exists())
            .returning(DocumentRow.id)
        )
        documents = len(session.scalars(empty).all())
        row = ErasureRow(
            uuid4().hex, format_path(namespace), reason, documents, list(doomed), records, freed, self._clock()
        )
        if doomed or documents:
            session.execute(text(_MERGE_INDEX))
            session.add(row)
        _touch(session)
        return _receipt(row)

    def finish_erasures(self, wait: float = BUSY_SECONDS) -> None:
        """Empty the log of what was erased, and note that this is done; nothing where nothing was.

        An erasure that a crash interrupted after its rows were gone is finished so at the next opening.

        Args:
            wait: Most seconds to try while others read or empty the log; 0 leaves it to them after one try.

        Raises:
            BankBusyError: Somebody reads what is in the log for longer than that, and ``wait`` is not 0.
        """
        until = time.monotonic() + wait
        own = self._unfinished()
        while open_ones := own & self._unfinished():
            with closing(self.raw_connection()) as connection:  # outside any transaction
                cursor = connection.cursor()
                busy = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
                cursor.close()
            if not busy:
                with Session(self._writing) as session, session.begin():
                    session.execute(update(ErasureRow).where(ErasureRow.id.in_(open_ones)).values(finished=True))
            elif not wait:
                return
            elif time.monotonic() > until:
                raise BankBusyError(
                    f"what was forgotten in {self.path} is gone from its rows and files, but still stands in the log "
                    "that another process reads: close or restart that process, and forget anything, or open the "
                    "bank, again"
                )
            else:
                time.sleep(random.uniform(0.005, 0.05))  # noqa: S311 - others empty it at the same time

    def _unfinished(self) -> set[str]:
        with Session(self._engine) as session:
            return set(session.scalars(select(ErasureRow.id).where(~ErasureRow.finished)))

    def receipts(self, namespace: Namespace) -> list[ErasureReceipt]:
        """Return the receipts of erasures in a namespace and below, oldest first."""
        rows = select(ErasureRow).where(under(ErasureRow.namespace, namespace)).order_by(ErasureRow.erased_at)
        with Session(self._engine) as session:
            return [_receipt(row) for row in session.scalars(rows)]

    # Reading

    def slots(self, ids: Sequence[SlotId]) -> list[Slot]:
        """Return slots in the order of ``ids``; those that do not exist are left out."""
        with self.reader.session() as session:
            return self.reader.slots(session, ids)

    def whole(self, ids: Sequence[SlotId]) -> list[dict[SlotId, str]]:
        """Return the texts of all slots of the documents that these slots are of, by document and in order."""
        found: dict[int, dict[SlotId, str]] = {}
        with Session(self._engine) as session:
            for some in in_batches(ids):
                of = select(SlotRow.document_id).where(SlotRow.slot_id.in_(some))
                rows = session.execute(
                    select(SlotRow.document_id, SlotRow.slot_id, SlotRow.text)
                    .where(SlotRow.document_id.in_(of))
                    .order_by(SlotRow.document_id, SlotRow.start)
                )
                for document, slot_id, said in rows:
                    found.setdefault(document, {})[slot_id] = said
        return list(found.values())

    def places(self, ids: Iterable[SlotId]) -> dict[SlotId, Place]:
        """Return where the tensors of those slots lie that have any."""
        found: dict[SlotId, Place] = {}
        with Session(self._engine) as session:
            for some in in_batches(ids):
                rows = session.execute(
                    select(SlotRow.slot_id, ShardRow.name, SlotRow.tensor_checksum)
                    .join(ShardRow, ShardRow.id == SlotRow.shard_id)
                    .where(SlotRow.slot_id.in_(some))
                )
                found.update((slot, Place(name, checksum or "")) for slot, name, checksum in rows)
        return found

    def read(self, slot: SlotId, place: Place | None = None) -> dict[str, Tensor] | None:
        """Read the tensors of a slot, from wherever others have moved them meanwhile.

        Args:
            slot: Whose.
            place: Where they lay a moment ago; None looks it up.

        Returns:
            The tensors; None where the slot has none (any more).

        Raises:
            CorruptTensorError: They are not what was written.
        """
        place = place or self.places([slot]).get(slot)
        while place is not None:
            try:
                return self.tensors.read(place, slot)
            except CorruptTensorError:
                now = self.places([slot]).get(slot)
                if now == place:
                    raise
                place = now
        return None

    def shard_names(self) -> set[str]:
        """Return the names of all shards."""
        with Session(self._engine) as session:
            return set(session.scalars(select(ShardRow.name)))

    def strays(self) -> list[Path]:
        """Return the files of tensors that no row names."""
        if not self.tensors.strays(self.shard_names()):
            return []
        with self.changing():  # nobody is publishing now
            return self.tensors.strays(self.shard_names())

    def shard(self, name: str) -> ShardRow | None:
        """Return the row of a shard."""
        with Session(self._engine, expire_on_commit=False) as session:
            return session.scalars(select(ShardRow).where(ShardRow.name == name)).one_or_none()

    def read_shared(self, name: str) -> dict[str, Tensor]:
        """Read the tensors of a shard that belongs to no slot.

        Raises:
            CorruptTensorError: There is none, or it is not what was written.
        """
        row = self.shard(name)
        return self.tensors.read_shared(name, "" if row is None else row.checksum)

    def ids(self, namespace: Namespace, where: Where | None) -> list[SlotId]:
        """Return the ids of all slots in scope, oldest first."""
        statement = select(SlotRow.slot_id).join(SlotRow.document).where(*in_scope(namespace, where))
        with Session(self._engine) as session:
            return list(session.scalars(statement.order_by(SlotRow.id)))


def _touch(session: Session) -> None:
    session.execute(update(BankRow).values(revision=BankRow.revision + 1))
    oldest = select(func.max(ChangeRow.id) - CHANGES_KEPT).scalar_subquery()
    session.execute(delete(ChangeRow).where(ChangeRow.id <= oldest))


def _siblings(session: Session, slots: Collection[SlotId]) -> list[SlotId]:
    """Return the other slots of the documents of slots."""
    found: set[SlotId] = set()
    for some in in_batches(slots):
        documents = select(SlotRow.document_id).where(SlotRow.slot_id.in_(some))
        found.update(session.scalars(select(SlotRow.slot_id).where(SlotRow.document_id.in_(documents))))
    return sorted(found - set(slots))


def _blank(session: Session, doomed: Collection[SlotId]) -> None:
    """Overwrite what slots say in the texts of their documents, where other slots of them stay."""
    going = set(doomed)
    for some in in_batches(_siblings(session, doomed)):
        kept = select(SlotRow.document_id).where(SlotRow.slot_id.in_(some))
        for document in session.scalars(select(DocumentRow).where(DocumentRow.id.in_(kept))).all():
            gone = [slot for slot in document.slots if slot.slot_id in going]
            for slot in gone:
                blank = " " * (slot.stop - slot.start)
                document.text = f"{document.text[: slot.start]}{blank}{document.text[slot.stop :]}"
            document.content_hash = hash_text(document.text)
            document.checksum = document.digest()
        session.flush()
        session.expunge_all()


def _receipt(row: ErasureRow) -> ErasureReceipt:
    return ErasureReceipt(
        row.id,
        parse_path(row.namespace),
        row.documents,
        tuple(row.slots),
        row.records,
        row.tensor_bytes,
        row.erased_at,
        row.reason,
    )
