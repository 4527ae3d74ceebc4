"""Erasing rows and tensors, so that no byte of them stays on the disk."""

from __future__ import annotations

import random
import time
from collections.abc import Collection, Iterable, Sequence
from contextlib import closing
from uuid import uuid4

from sqlalchemy import delete, or_, select, text, update
from sqlalchemy.orm import Session

from trimem.errors import BankBusyError, DiskError
from trimem.reports import ErasureReceipt
from trimem.store.capacity import Capacity, excess, overflow
from trimem.store.database import touch
from trimem.store.engine import empty_log, rewrite
from trimem.store.reader import in_batches
from trimem.store.reading import ReadableStore
from trimem.store.rows import hash_text
from trimem.store.schema import SEARCH_TABLE, DocumentRow, ErasureRow, ItemRow, SlotRow
from trimem.store.scope import Where, format_path, having, in_scope, parse_path, under
from trimem.store.shards import ShardChange
from trimem.types import Namespace, SlotId

BUSY_SECONDS = 30.0
"""How long to wait for others to let go of the log."""

_MILLISECONDS = 200  # that are waited for others where what is left can be done the next time

_NO_SLOTS = ~select(SlotRow.id).where(SlotRow.document_id == DocumentRow.id).exists()
_MERGE_INDEX = f"INSERT INTO {SEARCH_TABLE}({SEARCH_TABLE}) VALUES ('optimize')"  # noqa: S608 - a constant


class ErasableStore(ReadableStore):
    """A bank's database that is read and erased from."""

    def delete(
        self,
        namespace: Namespace,
        ids: Collection[str] | None,
        where: Where | None,
        *,
        siblings: bool = False,
    ) -> ErasureReceipt:
        """Delete slots, and documents that have none left, so that no byte of text or tensors stays.

        Costs O(bytes of the database), since the full-text index is merged, which drops the deleted words for good, and
        the database is written anew, which drops what SQLite had moved; and O(bytes) of the shards that held the
        slots, which are written anew without them.

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
                change.erased += (others := _siblings(session, doomed))
                change.leave(others)
            bare = _bare_documents(session, namespace, ids, where)
            receipt = self._erase(session, change, namespace, doomed, "forgotten", bare)
        self.finish_erasures()
        return receipt

    def erase_expired(self, wait: float = BUSY_SECONDS) -> list[ErasureReceipt]:
        """Erase what has expired, as :meth:`delete` does; nothing is written where nothing has.

        Args:
            wait: See :meth:`finish_erasures`.

        Returns:
            A receipt for each namespace, with the reason ``"expired"``.
        """
        expired = select(SlotRow.namespace, SlotRow.slot_id).where(SlotRow.expires_at <= self.now())
        bare = (
            select(DocumentRow.namespace, DocumentRow.id)
            .join(ItemRow, ItemRow.document_id == DocumentRow.id)
            .where(ItemRow.expires_at <= self.now(), _NO_SLOTS)
        )
        with self.session(expired=True) as session:
            if not any(session.execute(some.limit(1)).first() for some in (expired, bare)):
                return []
        doomed: dict[str, tuple[list[SlotId], list[int]]] = {}
        with self.changing() as (session, change):
            for path, slot in session.execute(expired.order_by(SlotRow.namespace, SlotRow.id)):
                doomed.setdefault(path, ([], []))[0].append(slot)
            for path, document in session.execute(bare.order_by(DocumentRow.namespace, DocumentRow.id)):
                doomed.setdefault(path, ([], []))[1].append(document)
            receipts = [
                self._erase(session, change, parse_path(path), slots, "expired", documents)
                for path, (slots, documents) in doomed.items()
            ]
        self.finish_erasures(wait, thorough=wait > 0)
        return receipts

    def erase_excess(self, capacity: Capacity, wait: float = BUSY_SECONDS) -> list[ErasureReceipt]:
        """Erase what is more than a capacity, as :meth:`delete` does; nothing is written where nothing is.

        Args:
            capacity: Of the bank.
            wait: See :meth:`finish_erasures`.

        Returns:
            A receipt for each namespace, with the reason ``"evicted"``.
        """
        with self.session(expired=True) as session:
            paths = session.scalars(select(SlotRow.namespace).distinct()).all()
            tenants = sorted({parse_path(path)[:1] for path in paths})[: 1 if capacity.per == "bank" else None]
            if all(max(excess(session, capacity, tenant)) <= 0 for tenant in tenants):
                return []
        with self.changing() as (session, change):
            receipts = self.make_room(session, change, capacity, tenants, ())
        self.finish_erasures(wait, thorough=wait > 0)
        return receipts

    def make_room(
        self,
        session: Session,
        change: ShardChange,
        capacity: Capacity | None,
        written: Iterable[Namespace],
        new: Collection[SlotId],
    ) -> list[ErasureReceipt]:
        """Erase what is more than a capacity, as a part of a change; :meth:`finish_erasures` follows it.

        Args:
            session: In a transaction that writes.
            change: Its files.
            capacity: Of the bank; None is as much as comes.
            written: The namespaces that were written to.
            new: The slots that were, which go last.

        Returns:
            A receipt for each namespace, with the reason ``"evicted"``.

        Raises:
            InvalidInputError: A single document is more than the capacity.
        """
        if capacity is None:
            return []
        tenants = sorted({namespace[:1] for namespace in written})[: 1 if capacity.per == "bank" else None]
        return [
            self._erase(session, change, parse_path(path), slots, "evicted")
            for tenant in tenants
            for path, slots in overflow(session, capacity, tenant, new).items()
        ]

    def erase_documents(
        self, session: Session, change: ShardChange, namespace: Namespace, documents: Collection[int], reason: str
    ) -> ErasureReceipt:
        """Delete documents with all their slots, as a part of a change; :meth:`finish_erasures` follows it."""
        slots = [
            slot
            for some in in_batches(documents)
            for slot in session.scalars(select(SlotRow.slot_id).where(SlotRow.document_id.in_(some)))
        ]
        return self._erase(session, change, namespace, slots, reason, documents)

    def _erase(
        self,
        session: Session,
        change: ShardChange,
        namespace: Namespace,
        doomed: Sequence[SlotId],
        reason: str,
        bare: Collection[int] = (),
    ) -> ErasureReceipt:
        """Delete slots, those of their documents that have none left, and documents that never had any."""
        change.erased += doomed
        touched = _documents_of(session, doomed)
        records, freed = change.leave(doomed)
        _blank(session, doomed)
        for some in in_batches(doomed):
            session.execute(delete(SlotRow).where(SlotRow.slot_id.in_(some)))
        documents = 0
        for few in in_batches(touched | set(bare)):
            empty = delete(DocumentRow).where(DocumentRow.id.in_(few), _NO_SLOTS).returning(DocumentRow.id)
            documents += len(session.scalars(empty).all())
        row = ErasureRow(
            uuid4().hex, format_path(namespace), reason, documents, list(doomed), records, freed, self.now()
        )
        if doomed or documents:
            session.execute(text(_MERGE_INDEX))
            session.add(row)
        touch(session)
        return _receipt(row)

    def finish_erasures(self, wait: float = BUSY_SECONDS, *, thorough: bool = True) -> None:
        """Write the database anew, empty its log, and note that this is done; nothing where nothing was erased.

        What a crash interrupted after its rows were gone is finished so at the next opening. O(bytes of the database),
        of memory and of room on the disk, too.

        Args:
            wait: Most seconds to try while others read or empty the log; 0 leaves it to the next time after one short
                try, and what the disk refuses, too.
            thorough: False only empties the log, and leaves the rest to the next time: what is deleted is overwritten
                as it is, and what may be left is what SQLite once moved elsewhere.

        Raises:
            BankBusyError: Somebody reads what is in the log, or writes, for longer than that, and ``wait`` is not 0.
            DiskError: There is no room to write the database anew, and ``wait`` is not 0.
        """
        until = time.monotonic() + wait
        rewritten = not thorough
        own = self._unfinished()
        if own:
            self.erase_beside()
        while open_ones := own & self._unfinished():
            try:
                emptied = self._overwrite(wait, anew=not rewritten)
                rewritten = True
                if thorough and emptied:
                    with Session(self._writing) as session, session.begin():
                        session.execute(update(ErasureRow).where(ErasureRow.id.in_(open_ones)).values(finished=True))
                    continue
            except (BankBusyError, DiskError) as error:
                if not wait:
                    return
                raise type(error)(
                    f"what was forgotten in {self.path} is gone from its rows and files, but could not be overwritten "
                    f"on the disk: {error.__cause__ or error}. Make room for the database once more, or wait for who "
                    "writes, and forget anything, or open the bank, again"
                ) from error
            if not thorough or not wait:
                return
            if time.monotonic() > until:
                raise BankBusyError(
                    f"what was forgotten in {self.path} is gone from its rows and files, but still stands in the log "
                    "that another process reads: close or restart that process, and forget anything, or open the "
                    "bank, again"
                )
            time.sleep(random.uniform(0.005, 0.05))  # noqa: S311 - others empty it at the same time

    def _overwrite(self, wait: float, *, anew: bool) -> bool:
        """Write the database anew if that is wanted, empty its log, and return whether that is empty."""
        with closing(self.raw_connection()) as connection:  # outside any transaction
            cursor = connection.cursor()
            (patience,) = cursor.execute("PRAGMA busy_timeout").fetchone()
            cursor.execute(f"PRAGMA busy_timeout={min(patience, max(_MILLISECONDS, round(1000 * wait)))}")
            try:
                if anew:
                    rewrite(self.path, cursor)
                return empty_log(self.path, cursor)
            finally:
                cursor.execute(f"PRAGMA busy_timeout={patience}")
                cursor.close()

    def erase_beside(self) -> None:
        """Erase what is gone from the bank that is made anew beside this one, too; nothing where there is none."""
        from trimem.store.building import database_beside, forget_what_is_gone

        if database_beside(self.path.parent).exists():
            forget_what_is_gone(self)

    def _unfinished(self) -> set[str]:
        with self.session() as session:
            return set(session.scalars(select(ErasureRow.id).where(~ErasureRow.finished)))

    def receipts(self, namespace: Namespace) -> list[ErasureReceipt]:
        """Return the receipts of erasures in a namespace and below, oldest first."""
        rows = select(ErasureRow).where(under(ErasureRow.namespace, namespace)).order_by(ErasureRow.erased_at)
        with self.session() as session:
            return [_receipt(row) for row in session.scalars(rows)]


def _documents_of(session: Session, slots: Collection[SlotId]) -> set[int]:
    """Return the row ids of the documents of slots."""
    found: set[int] = set()
    for some in in_batches(slots):
        found.update(session.scalars(select(SlotRow.document_id).where(SlotRow.slot_id.in_(some))))
    return found


def _bare_documents(
    session: Session, namespace: Namespace, ids: Collection[str] | None, where: Where | None
) -> list[int]:
    """Return the row ids of the documents in scope that have no slots: items that are found by their keys only."""
    bare = select(DocumentRow.id).where(under(DocumentRow.namespace, namespace), _NO_SLOTS, *having(where))
    chosen = [bare] if ids is None else [bare.where(DocumentRow.key.in_(some)) for some in in_batches(ids)]
    return [row for statement in chosen for row in session.scalars(statement)]


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
