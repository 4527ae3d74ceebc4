"""Reading the rows of a bank, and the tensors they name."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from sqlalchemy import func, select
from torch import Tensor

from trimem.errors import CorruptTensorError, SlotNotFoundError
from trimem.reports import BankStats
from trimem.store.database import Database
from trimem.store.reader import in_batches
from trimem.store.schema import DocumentRow, ShardRow, SlotRow
from trimem.store.scope import Where, format_path, in_scope, parse_path, under
from trimem.store.tensors import Place
from trimem.types import Metadata, Namespace, Slot, SlotId, StoredText


class ReadableStore(Database):
    """A bank's database that is read."""

    def stats(self, namespace: Namespace | None) -> BankStats:
        """Count what is stored, in all or under one namespace."""
        scope = [] if namespace is None else [under(SlotRow.namespace, namespace)]
        documents = [] if namespace is None else [under(DocumentRow.namespace, namespace)]
        with self.session() as session:
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

    def documents(self, namespace: Namespace, keys: Collection[str]) -> dict[str, tuple[str, list[SlotId]]]:
        """Return content hash and slot ids of those documents, of exactly this namespace, that exist."""
        found: dict[str, tuple[str, list[SlotId]]] = {}
        with self.session() as session:
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

    def texts(self, namespace: Namespace, keys: Collection[str]) -> list[StoredText]:
        """Return those documents, of this namespace and below, that exist, in the order of their keys."""
        found: dict[str, list[StoredText]] = {}
        with self.session() as session:
            for some in in_batches(keys):
                rows = session.execute(
                    select(DocumentRow.key, DocumentRow.namespace, DocumentRow.text, DocumentRow.meta)
                    .where(under(DocumentRow.namespace, namespace), DocumentRow.key.in_(some))
                    .order_by(DocumentRow.id)
                )
                for key, path, told, meta in rows:
                    found.setdefault(key, []).append(StoredText(key, parse_path(path), told, meta))
        return [each for key in keys for each in found.get(key, ())]

    def keys(self, namespace: Namespace, ids: Collection[str]) -> list[str]:
        """Return the keys of documents of exactly this namespace, by their keys or by slots of theirs."""
        found: set[str] = set()
        with self.session() as session:
            for some in in_batches(ids):
                statement = select(DocumentRow.key).where(DocumentRow.namespace == format_path(namespace))
                found.update(session.scalars(statement.where(DocumentRow.key.in_(some))))
                found.update(session.scalars(statement.join(DocumentRow.slots).where(SlotRow.slot_id.in_(some))))
        return sorted(found)

    def documents_under(self, namespace: Namespace, prefix: str) -> dict[str, tuple[str, Metadata]]:
        """Return content hash and metadata of the documents, of exactly this namespace, whose keys begin so."""
        after = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        with self.session() as session:
            rows = session.execute(
                select(DocumentRow.key, DocumentRow.content_hash, DocumentRow.meta)
                .where(DocumentRow.namespace == format_path(namespace))
                .where(DocumentRow.key >= prefix, DocumentRow.key < after)
            )
            return {key: (content_hash, meta) for key, content_hash, meta in rows}

    def all_slots(self) -> list[SlotId]:
        """Return the ids of all slots of the bank, oldest first."""
        with self.session() as session:
            return list(session.scalars(select(SlotRow.slot_id).order_by(SlotRow.id)))

    def slots(self, ids: Sequence[SlotId]) -> list[Slot]:
        """Return slots in the order of ``ids``; those that do not exist are left out."""
        with self.reader.session() as session:
            return self.reader.slots(session, ids)

    def check_held(self, ids: Collection[SlotId]) -> None:
        """Raise if the bank does not hold all of these slots.

        Raises:
            SlotNotFoundError: It does not.
        """
        held = {slot.id for slot in self.slots(list(ids))}
        if gone := [slot for slot in ids if slot not in held]:
            raise SlotNotFoundError(f"the bank in {self.path.parent} does not hold (any more) the slots {gone}")

    def whole(self, ids: Sequence[SlotId]) -> list[dict[SlotId, str]]:
        """Return the texts of all slots of the documents that these slots are of, by document and in order."""
        found: dict[int, dict[SlotId, str]] = {}
        with self.session() as session:
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
        with self.session() as session:
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
        with self.session() as session:
            return set(session.scalars(select(ShardRow.name)))

    def strays(self) -> list[Path]:
        """Return the files of tensors that no row names."""
        if not self.tensors.strays(self.shard_names()):
            return []
        with self.changing():  # nobody is publishing now
            return self.tensors.strays(self.shard_names())

    def shard(self, name: str) -> ShardRow | None:
        """Return the row of a shard."""
        with self.session() as session:
            return session.scalars(select(ShardRow).where(ShardRow.name == name)).one_or_none()

    def shared(self) -> list[ShardRow]:
        """Return the rows of the shards that belong to no slot."""
        with self.session() as session:
            return list(session.scalars(select(ShardRow).where(ShardRow.records == 0).order_by(ShardRow.name)))

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
        with self.session() as session:
            return list(session.scalars(statement.order_by(SlotRow.id)))

    def uncompiled(self) -> list[SlotId]:
        """Return the ids of all slots that have no tensors, oldest first."""
        with self.session() as session:
            return list(session.scalars(select(SlotRow.slot_id).where(SlotRow.shard_id.is_(None)).order_by(SlotRow.id)))
