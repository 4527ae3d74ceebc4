"""The rows of a bank: documents and slots, found by namespace, filter, words or id.

Every statement that reads or deletes slots is built on :mod:`trimem.store.scope`. A transaction is
one public method, and takes the files of tensors with it (:mod:`trimem.store.shards`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session, selectinload

from trimem.store.capacity import Capacity
from trimem.store.database import touch, utc_now
from trimem.store.erasing import ErasableStore
from trimem.store.reader import in_batches
from trimem.store.rows import Document, NewSlot, Terms, hash_text
from trimem.store.schema import BankRow, DocumentRow, ItemRow, ShardRow, SlotRow
from trimem.store.scope import format_path, scope_words
from trimem.store.shards import ShardChange
from trimem.store.tensors import StagedShard
from trimem.store.vector_codec import RowVectors
from trimem.types import Metadata, Namespace, SlotId

__all__ = ["Document", "MetadataStore", "NewSlot", "hash_text", "utc_now"]


class MetadataStore(ErasableStore):
    """The database of one bank, read, erased from and written to; see :class:`trimem.store.database.Database`.

    Attributes:
        made_from: The bank that this one is made from anew; nothing is put here that it does not hold.
    """

    made_from: MetadataStore | None = None

    def put(
        self,
        namespace: Namespace,
        documents: Sequence[tuple[Document, Sequence[NewSlot]]],
        staged: Iterable[StagedShard] = (),
        capacity: Capacity | None = None,
    ) -> list[SlotId]:
        """Store documents with their slots and tensors, replacing those of exactly this namespace and the same key.

        Where there are more slots then than there may be, others are erased in the same transaction, each with a
        receipt in its namespace whose reason is ``"evicted"``.

        Args:
            namespace: Of exactly which the documents are.
            documents: What is stored; where it is too much by itself, the first of it goes, too.
            staged: Their tensors.
            capacity: How much there may be; None is as much as comes.

        Returns:
            The slots that are gone: replaced and not stored again, or erased to make room.

        Raises:
            InvalidInputError: A document is more than the capacity; nothing is stored then.
            FingerprintMismatch: The bank was brought to another model, encoder or codec since it was opened.
        """
        now = self.now()
        replaced: list[SlotId] = []
        with self.changing() as (session, change):
            self.check_made_by(session)
            for document, slots in self._admitted(namespace, documents):
                replaced += replace_document(session, change, self.reader.vectors, namespace, document, slots, now)[1]
            session.flush()
            for shard in staged:
                change.enter(shard)
            change.merge_ripe()
            kept = {slot.slot_id for _, slots in documents for slot in slots}
            evicted = self.make_room(session, change, capacity, [namespace], kept)
            touch(session)
        if evicted:
            self.finish_erasures(wait=0, thorough=False)  # it may happen at every write
        if replaced:
            self.erase_beside()
        gone = [slot for receipt in evicted for slot in receipt.slots]
        return [*(slot_id for slot_id in replaced if slot_id not in kept), *gone]

    def _admitted(
        self, namespace: Namespace, documents: Sequence[tuple[Document, Sequence[NewSlot]]]
    ) -> Sequence[tuple[Document, Sequence[NewSlot]]]:
        """Leave out what the bank that this one is made from does not hold (any more)."""
        if self.made_from is None:
            return documents
        with self.made_from.session(expired=True) as session:
            there = select(DocumentRow.key, DocumentRow.content_hash).where(
                DocumentRow.namespace == format_path(namespace),
                DocumentRow.key.in_([document.key for document, _ in documents]),
            )
            held = {(key, content) for key, content in session.execute(there)}
        return [each for each in documents if (each[0].key, each[0].content_hash) in held]

    def update(
        self, namespace: Namespace, keys: Collection[str], metadata: Mapping[str, Metadata], terms: Terms
    ) -> list[str]:
        """Replace what stands beside the texts of documents, and leave what is not given as it was.

        Args:
            namespace: Of exactly which they are.
            keys: Of the documents; those that do not exist, or have expired, do not matter.
            metadata: By key.
            terms: Of all of them.

        Returns:
            The keys of those that exist.
        """
        found: list[str] = []
        living = (SlotRow.expires_at > self.now()).is_not(False)
        with self.changing() as (session, _):
            for some in in_batches(keys):
                rows = session.scalars(
                    select(DocumentRow)
                    .where(DocumentRow.namespace == format_path(namespace), DocumentRow.key.in_(some))
                    .where(DocumentRow.slots.any(living))
                    .options(selectinload(DocumentRow.slots).undefer(SlotRow.vector).undefer(SlotRow.sentences))
                )
                for row in rows:
                    found.append(row.key)
                    if row.key in metadata:
                        row.meta = dict(metadata[row.key])
                        row.checksum = row.digest()
                    for slot in row.slots if terms else ():
                        for name, value in terms.items():
                            setattr(slot, name, value)
                        slot.checksum = slot.digest()
                    if "expires_at" in terms and (item := session.get(ItemRow, row.id)) is not None:
                        item.expires_at = terms["expires_at"]
                        item.checksum = item.digest()
                session.flush()
                session.expunge_all()
            touch(session)
        return found

    def recode(
        self,
        codes: Mapping[SlotId, tuple[bytes, bytes | None]],
        staged: Iterable[StagedShard],
        codec: StagedShard,
        made_by: tuple[str, str],
        config: Mapping[str, Any],
    ) -> list[SlotId]:
        """Put other codes in the place of those that all slots have, with the codec that made them; all or nothing.

        Args:
            codes: What rows are to hold of vector and sentences, by slot.
            staged: The slots' tensors.
            codec: The shard of the new codec; it takes the place of what slots share.
            made_by: Its name and fingerprint.
            config: The bank's.

        Returns:
            Slots that others have written meanwhile, for which there are no codes: then nothing has changed.
        """
        with self.changing() as (session, change):
            held = session.scalars(select(SlotRow.slot_id)).all()
            if missing := [slot for slot in held if slot not in codes]:
                return missing
            change.leave(held)
            old = session.scalars(select(ShardRow).where(ShardRow.records == 0)).all()
            for shared in old:
                change.removed.append(shared.name)
                session.delete(shared)
            session.flush()
            change.share(codec)
            for some in in_batches(held):
                for row in session.scalars(select(SlotRow).where(SlotRow.slot_id.in_(some))):
                    row.vector, row.sentences = codes[row.slot_id]
                    row.checksum = row.digest()
                session.flush()
                session.expunge_all()
            for shard in staged:
                change.enter(shard)
            bank = session.get_one(BankRow, 1)
            (bank.model_name, bank.model_fingerprint), bank.config = made_by, dict(config)
            bank.checksum = bank.digest()
            touch(session)
            encoder = bank.encoder_fingerprint
        self.made_by = made_by[1], encoder
        return []

    def set_tensors(self, staged: Iterable[StagedShard]) -> None:
        """Give slots that have none their tensors; slots that were erased meanwhile get none."""
        with self.changing() as (session, change):
            self.check_made_by(session)
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


def replace_document(
    session: Session,
    change: ShardChange,
    vectors: RowVectors,
    namespace: Namespace,
    document: Document,
    slots: Sequence[NewSlot],
    now: datetime,
) -> tuple[DocumentRow, list[SlotId]]:
    """Store a document with its slots in place of that of the same key, as a part of a change.

    Returns:
        The document's row, and the slots that are gone with the one it replaces.
    """
    path = format_path(namespace)
    replaced: list[SlotId] = []
    old = session.scalars(
        select(DocumentRow).where(DocumentRow.namespace == path, DocumentRow.key == document.key)
    ).one_or_none()
    if old is not None:
        replaced = [slot.slot_id for slot in old.slots]
        change.leave(replaced)
        session.delete(old)
        session.flush()
    row = DocumentRow(path, document.key, document.content_hash, document.text, dict(document.metadata), now)
    row.slots = [
        SlotRow(
            slot.slot_id,
            path,
            slot.text,
            slot.start,
            slot.stop,
            slot.line,
            slot.tokens,
            vectors.pack(slot.vector),
            now,
            scope=scope_words(namespace),
            sentences=None if slot.sentences is None else vectors.pack(slot.sentences, sentences=True),
            expires_at=document.expires_at,
            provenance=document.provenance,
            trust=document.trust,
        )
        for slot in slots
    ]
    row.checksum = row.digest()
    for each in row.slots:
        each.checksum = each.digest()
    session.add(row)
    return row, replaced
