"""The rows of a bank: documents and slots, found by namespace, filter, words or id.

Every statement that reads or deletes slots is built on :mod:`trimem.store.scope`. A transaction is
one public method.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import delete, func, or_, select, text, update
from sqlalchemy.orm import Session

from trimem.store.engine import open_engine, writing
from trimem.store.reader import SearchReader, in_batches
from trimem.store.schema import SEARCH_TABLE, BankRow, ChangeRow, DocumentRow, SlotRow
from trimem.store.scope import Where, format_path, in_scope, parse_path, scope_words, under
from trimem.types import BankStats, Metadata, Namespace, Slot, SlotId

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
    tensor_bytes: int | None
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

    Attributes:
        reader: What search reads.

    Raises:
        SchemaVersionError: It was written by a newer trimem.
    """

    def __init__(self, path: Path, clock: Callable[[], datetime] = utc_now) -> None:
        self.path = path
        self._clock = clock
        self._engine = open_engine(path)
        self._writing = writing(self._engine)
        self.reader = SearchReader(self._engine)

    def close(self) -> None:
        self._engine.dispose()

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
                database_bytes=sum(f.stat().st_size for f in self.path.parent.glob(f"{self.path.name}*")),
                namespaces={parse_path(path): count for path, count in by_namespace},
            )

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

    def put(self, namespace: Namespace, documents: Sequence[tuple[Document, Sequence[NewSlot]]]) -> list[SlotId]:
        """Store documents with their slots, replacing those of exactly this namespace and the same key.

        Returns:
            The slots that were replaced and are not stored again: their tensors are to be removed.
        """
        now = self._clock()
        path = format_path(namespace)
        replaced: list[SlotId] = []
        with Session(self._writing) as session, session.begin():
            for document, slots in documents:
                old = session.scalars(
                    select(DocumentRow).where(DocumentRow.namespace == path, DocumentRow.key == document.key)
                ).one_or_none()
                if old is not None:
                    replaced += [slot.slot_id for slot in old.slots]
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
                        slot.tensor_bytes,
                        scope_words(namespace),
                        None if slot.sentences is None else slot.sentences.astype(np.float16).tobytes(),
                    )
                    for slot in slots
                ]
                session.add(row)
            _touch(session)
        kept = {slot.slot_id for _, slots in documents for slot in slots}
        return [slot_id for slot_id in replaced if slot_id not in kept]

    def update_metadata(self, namespace: Namespace, metadata: Mapping[str, Metadata]) -> None:
        """Replace the metadata of documents of exactly this namespace, by their keys."""
        with Session(self._writing) as session, session.begin():
            for key, value in metadata.items():
                session.execute(
                    update(DocumentRow)
                    .where(DocumentRow.namespace == format_path(namespace), DocumentRow.key == key)
                    .values(meta=dict(value))
                )
            _touch(session)

    def set_tensor_bytes(self, sizes: Mapping[SlotId, int]) -> None:
        """Note that slots have been compiled, with the sizes of their tensor files."""
        with Session(self._writing) as session, session.begin():
            for slot_id, size in sizes.items():
                session.execute(update(SlotRow).where(SlotRow.slot_id == slot_id).values(tensor_bytes=size))

    def delete(
        self, namespace: Namespace, ids: Collection[str] | None, where: Where | None
    ) -> tuple[int, list[SlotId]]:
        """Delete slots, and documents that have none left, so that no byte of their text stays.

        Costs O(index): the full-text index is merged, which drops the deleted words for good.

        Args:
            namespace: Where, and below.
            ids: Slot ids or document keys; None is all.
            where: Filter on metadata; None is all.

        Returns:
            How many documents went, and the slots.
        """
        with Session(self._writing) as session, session.begin():
            targets = [select(SlotRow.slot_id).join(SlotRow.document).where(*in_scope(namespace, where))]
            if ids is not None:
                targets = [
                    targets[0].where(or_(SlotRow.slot_id.in_(some), DocumentRow.key.in_(some)))
                    for some in in_batches(ids)
                ]
            doomed = sorted({slot_id for target in targets for slot_id in session.scalars(target)})
            for some in in_batches(doomed):
                session.execute(delete(SlotRow).where(SlotRow.slot_id.in_(some)))
            empty = (
                delete(DocumentRow)
                .where(under(DocumentRow.namespace, namespace))
                .where(~select(SlotRow.id).where(SlotRow.document_id == DocumentRow.id).exists())
                .returning(DocumentRow.id)
            )
            documents = len(session.scalars(empty).all())
            if doomed:
                session.execute(text(_MERGE_INDEX))
            _touch(session)
        with closing(self._engine.raw_connection()) as connection:  # outside any transaction
            connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").close()
        return documents, doomed

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

    def ids(self, namespace: Namespace, where: Where | None) -> list[SlotId]:
        """Return the ids of all slots in scope, oldest first."""
        statement = select(SlotRow.slot_id).join(SlotRow.document).where(*in_scope(namespace, where))
        with Session(self._engine) as session:
            return list(session.scalars(statement.order_by(SlotRow.id)))


def _touch(session: Session) -> None:
    session.execute(update(BankRow).values(revision=BankRow.revision + 1))
    oldest = select(func.max(ChangeRow.id) - CHANGES_KEPT).scalar_subquery()
    session.execute(delete(ChangeRow).where(ChangeRow.id <= oldest))
