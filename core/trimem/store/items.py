"""Items as rows: documents that are objects, found by their keys and fields, and that may expire.

A document whose key somebody remembers as a text is no item any more. Items that have expired are neither read
nor listed, whether or not they are erased yet.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TypeAlias

from sqlalchemy import ColumnElement, or_, select, tuple_
from sqlalchemy.orm import Session, undefer

from trimem.reports import ErasureReceipt
from trimem.store.metadata import MetadataStore, replace_document
from trimem.store.reader import in_batches
from trimem.store.rows import Document, NewSlot
from trimem.store.schema import DocumentRow, ItemRow, SlotRow
from trimem.store.scope import Where, format_path, having, parse_path, under
from trimem.store.shards import ShardChange
from trimem.types import Item, Namespace, SlotId

ItemKey: TypeAlias = tuple[Namespace, str]
"""What an item is held by: its namespace and its key in it."""

_ITEM = select(DocumentRow, ItemRow).join(ItemRow, ItemRow.document_id == DocumentRow.id)


@dataclass(frozen=True, slots=True)
class NewItem:
    """An item on its way into the store.

    Attributes:
        namespace: Whose it is.
        document: Its key, its object as metadata, and the text it is found by.
        slots: The stretches of that text; none where it is found by its key and fields only.
        ttl: How long it lives after it was last written or read; None is for ever.
    """

    namespace: Namespace
    document: Document
    slots: Sequence[NewSlot] = field(repr=False)
    ttl: timedelta | None


class ItemRows:
    """The items of a bank.

    Args:
        store: Of the bank.
    """

    def __init__(self, store: MetadataStore) -> None:
        self._store = store

    def get(self, keys: Collection[ItemKey]) -> dict[ItemKey, Item]:
        """Return those of the items that exist."""
        found: dict[ItemKey, Item] = {}
        with self._store.session() as session:
            for condition in _among(keys):
                rows = session.execute(_ITEM.where(condition, self._alive())).all()
                found.update(((item.namespace, item.key), item) for item in (_item(*row) for row in rows))
        return found

    def newest(self, namespace: Namespace, where: Where | None, limit: int, offset: int) -> list[Item]:
        """Return items in a namespace and below, the one that was written last first. O(items of the namespace)."""
        statement = _ITEM.where(under(DocumentRow.namespace, namespace), self._alive(), *having(where))
        with self._store.session() as session:
            rows = session.execute(statement.order_by(DocumentRow.id.desc()).limit(limit).offset(offset)).all()
            return [_item(*row) for row in rows]

    def namespaces(self, namespace: Namespace) -> list[Namespace]:
        """Return the namespaces, this one and below it, that hold items, in their order. O(items)."""
        statement = (
            select(DocumentRow.namespace)
            .join(ItemRow, ItemRow.document_id == DocumentRow.id)
            .where(under(DocumentRow.namespace, namespace), self._alive())
        )
        with self._store.session() as session:
            return sorted(parse_path(path) for path in session.scalars(statement.distinct()))

    def write(self, puts: Sequence[NewItem], deletes: Collection[ItemKey]) -> list[SlotId]:
        """Store items, replacing those of the same keys, and erase others, in one transaction.

        Returns:
            The slots that are gone.
        """
        now = self._store.now()
        gone: list[SlotId] = []
        with self._store.changing() as (session, change):
            born = {
                (parse_path(path), key): created
                for condition in _among([(each.namespace, each.document.key) for each in puts])
                for path, key, created in session.execute(
                    select(DocumentRow.namespace, DocumentRow.key, ItemRow.created_at)
                    .join(ItemRow, ItemRow.document_id == DocumentRow.id)
                    .where(condition, self._alive())
                )
            }
            for each in puts:
                dies = None if each.ttl is None else now + each.ttl
                mortal = replace(each.document, expires_at=dies)
                document, replaced = replace_document(
                    session, change, self._store.reader.vectors, each.namespace, mortal, each.slots, now
                )
                gone += replaced
                session.flush()
                seconds = None if each.ttl is None else each.ttl.total_seconds()
                row = ItemRow(document.id, born.get((each.namespace, each.document.key), now), seconds, dies)
                row.checksum = row.digest()
                session.add(row)
            doomed = [
                (parse_path(path), row)
                for condition in _among(deletes)
                for path, row in session.execute(
                    select(DocumentRow.namespace, DocumentRow.id)
                    .join(ItemRow, ItemRow.document_id == DocumentRow.id)
                    .where(condition)
                )
            ]
            for receipt in self._erase(session, change, doomed, "forgotten"):
                gone += receipt.slots
        if doomed:
            self._store.finish_erasures()
        elif gone:
            self._store.erase_beside()
        return gone

    def refresh(self, keys: Collection[ItemKey]) -> None:
        """Let items live as long again as when they were written."""
        now = self._store.now()
        with self._store.changing() as (session, _):
            for condition in _among(keys):
                for document, item in session.execute(_ITEM.where(condition, self._alive(), ItemRow.ttl.is_not(None))):
                    item.expires_at = now + timedelta(seconds=item.ttl or 0)
                    item.checksum = item.digest()
                    slots = select(SlotRow).where(SlotRow.document_id == document.id)
                    for slot in session.scalars(slots.options(undefer(SlotRow.vector), undefer(SlotRow.sentences))):
                        slot.expires_at = item.expires_at
                        slot.checksum = slot.digest()

    def sweep(self, namespace: Namespace) -> list[ErasureReceipt]:
        """Erase what has expired in a namespace and below; nothing is written where nothing has."""
        expired = (
            select(DocumentRow.namespace, DocumentRow.id)
            .join(ItemRow, ItemRow.document_id == DocumentRow.id)
            .where(under(DocumentRow.namespace, namespace), ItemRow.expires_at <= self._store.now())
        )
        with self._store.session(expired=True) as session:
            if session.execute(expired.limit(1)).first() is None:
                return []
        with self._store.changing() as (session, change):
            doomed = [(parse_path(path), row) for path, row in session.execute(expired)]
            receipts = self._erase(session, change, doomed, "expired")
        self._store.finish_erasures()
        return receipts

    def _erase(
        self, session: Session, change: ShardChange, doomed: Sequence[tuple[Namespace, int]], reason: str
    ) -> list[ErasureReceipt]:
        """Erase documents, with a receipt for each namespace."""
        by_namespace: dict[Namespace, list[int]] = {}
        for namespace, row in doomed:
            by_namespace.setdefault(namespace, []).append(row)
        return [
            self._store.erase_documents(session, change, namespace, rows, reason)
            for namespace, rows in by_namespace.items()
        ]

    def _alive(self) -> ColumnElement[bool]:
        return or_(ItemRow.expires_at.is_(None), ItemRow.expires_at > self._store.now())


def _among(keys: Collection[ItemKey]) -> list[ColumnElement[bool]]:
    """Return conditions that take a document of one of these keys, each fit for one statement."""
    paths = [(format_path(namespace), key) for namespace, key in keys]
    return [tuple_(DocumentRow.namespace, DocumentRow.key).in_(some) for some in in_batches(paths)]


def _item(document: DocumentRow, item: ItemRow) -> Item:
    return Item(
        parse_path(document.namespace),
        document.key,
        document.meta,
        item.created_at,
        document.created_at,
        item.expires_at,
    )
