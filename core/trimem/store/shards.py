"""Which records lie in which shard: files and rows change in one transaction.

New shards are published while the database is locked for writing, before the rows that name them are
committed; old ones are removed after that. So whatever interrupts a change, each row names a file that is
there, and a file that no row names is waste, which is swept up when the bank is next opened.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import bindparam, delete, func, select, update
from sqlalchemy.orm import Session

from trimem.store.reader import in_batches
from trimem.store.schema import ShardRow, SlotRow
from trimem.store.tensors import StagedShard, Tensors, TensorStore
from trimem.types import SlotId

SHARD_BYTES = 64 << 20
"""About the most that a shard grows to when shards are merged."""

FAN = 16
"""How many shards of about the same number of records are left before they become one."""

SHARD_RECORDS = FAN * FAN
"""The most records it then holds: its header is read whenever one of them is."""


class ShardChange:
    """What happens to shards in one transaction of a session.

    Args:
        session: In a transaction that has the database locked for writing.
        tensors: The files.

    Attributes:
        removed: Shards whose files are to be deleted once the transaction is committed.
        erased: Slots of which nothing is to be held in memory then.
    """

    def __init__(self, session: Session, tensors: TensorStore) -> None:
        self._session = session
        self._tensors = tensors
        self._staged: list[StagedShard] = []
        self.removed: list[str] = []
        self.erased: list[SlotId] = []

    def undo(self) -> None:
        """Remove what was staged and not published, after a failure."""
        for shard in self._staged:
            shard.discard()

    def withdraw(self) -> None:
        """Remove what was staged or published, while the transaction that was to name it still has the lock."""
        for shard in self._staged:
            shard.withdraw()

    def enter(self, staged: StagedShard) -> None:
        """Give slots the records of a staged shard; those that are gone, or have theirs already, are left out."""
        self._staged.append(staged)
        waiting = [
            slot
            for some in in_batches(staged.records)
            for slot in self._session.scalars(
                select(SlotRow.slot_id).where(SlotRow.slot_id.in_(some), SlotRow.shard_id.is_(None))
            )
        ]
        if len(waiting) == len(staged.records):
            self._publish(staged)
        elif waiting:
            staged.publish()
            metadata = self._tensors.metadata(staged.name)
            checksums = {slot: staged.records[slot].checksum for slot in waiting}
            self._stage(self._tensors.read_many(staged.name, checksums), metadata)
            self.removed.append(staged.name)

    def share(self, staged: StagedShard) -> None:
        """Take in a shard that belongs to no slot."""
        self._staged.append(staged)
        staged.publish()
        self._session.add(ShardRow(staged.name, staged.bytes, staged.checksum, 0))

    def leave(self, slots: Collection[SlotId]) -> tuple[int, int]:
        """Take the records of slots out of their shards, and return how many there were and their bytes.

        Costs O(bytes of those shards): what stays is written anew.
        """
        records = freed = 0
        touched: set[int] = set()
        for some in in_batches(slots):
            having = (SlotRow.slot_id.in_(some), SlotRow.shard_id.is_not(None))
            count, total = self._session.execute(
                select(func.count(), func.coalesce(func.sum(SlotRow.tensor_bytes), 0)).where(*having)
            ).one()
            touched.update(self._session.scalars(select(SlotRow.shard_id).where(*having).distinct()))
            self._uncompile(SlotRow.slot_id.in_(some))
            records, freed = records + count, freed + (total or 0)
        for shard in sorted(touched):
            self.rewrite([shard])
        return records, freed

    def merge_ripe(self) -> None:
        """Merge small shards where there are many of about the same size.

        So a bank that is written slot by slot has a file for every :data:`SHARD_RECORDS` slots and some dozen more,
        and each record is written three times at most.
        """
        for most in (FAN, SHARD_RECORDS):
            small = (ShardRow.records >= most // FAN, ShardRow.records < most, ShardRow.bytes <= SHARD_BYTES // FAN)
            ripe = self._session.scalars(select(ShardRow.id).where(*small).order_by(ShardRow.id).limit(FAN)).all()
            if len(ripe) == FAN:
                self.rewrite(ripe)

    def rewrite(self, shards: Sequence[int]) -> list[SlotId]:
        """Put the records of some shards together in one new shard, and return the slots whose could not be read.

        Those have none then, and are compiled again when they are next read.
        """
        rows = self._session.execute(
            select(SlotRow.slot_id, ShardRow.name, SlotRow.tensor_checksum)
            .join(ShardRow, ShardRow.id == SlotRow.shard_id)
            .where(SlotRow.shard_id.in_(shards))
            .order_by(SlotRow.id)
        ).all()
        checksums: dict[str, dict[SlotId, str | None]] = {}
        for slot, name, checksum in rows:
            checksums.setdefault(name, {})[slot] = checksum
        kept: dict[SlotId, Tensors] = {}
        metadata: dict[str, str] = {}
        for name, records in checksums.items():
            kept |= self._tensors.read_many(name, records)
        old = self._session.execute(select(ShardRow.id, ShardRow.name).where(ShardRow.id.in_(shards))).all()
        for _, name in old:
            metadata |= self._tensors.metadata(name)
        self._uncompile(SlotRow.shard_id.in_(shards))
        self._session.execute(delete(ShardRow).where(ShardRow.id.in_(shards)))
        self.removed += [name for _, name in old]
        if kept:
            self._stage(kept, metadata)
        return [slot for slot, *_ in rows if slot not in kept]

    def _stage(self, records: dict[SlotId, Tensors], metadata: dict[str, str]) -> None:
        staged = self._tensors.stage(records, metadata)
        self._staged.append(staged)
        self._publish(staged)

    def _publish(self, staged: StagedShard) -> None:
        staged.publish()
        row = ShardRow(staged.name, staged.bytes, staged.checksum, len(staged.records))
        self._session.add(row)
        self._session.flush()
        self._session.connection().execute(
            update(SlotRow)
            .where(SlotRow.slot_id == bindparam("slot"))
            .values(shard_id=row.id, tensor_bytes=bindparam("size"), tensor_checksum=bindparam("sum")),
            [{"slot": slot, "size": record.bytes, "sum": record.checksum} for slot, record in staged.records.items()],
        )

    def _uncompile(self, condition: object) -> None:
        self._session.execute(
            update(SlotRow)
            .where(condition)  # type: ignore[arg-type]
            .values(shard_id=None, tensor_bytes=None, tensor_checksum=None)
            .execution_options(synchronize_session=False)
        )


def mergeable(session: Session) -> list[int]:
    """Return shards that are better off as one, as many as one shard holds; nothing if there are not two."""
    rows = session.execute(
        select(ShardRow.id, ShardRow.bytes, ShardRow.records)
        .where(ShardRow.records.between(1, SHARD_RECORDS // 2), ShardRow.bytes <= SHARD_BYTES // 2)
        .order_by(ShardRow.records, ShardRow.id)
    ).all()
    taken: list[int] = []
    total = records = 0
    for shard, size, count in rows:
        if total + size > SHARD_BYTES or records + count > SHARD_RECORDS:
            break
        taken.append(shard)
        total, records = total + size, records + count
    return taken if len(taken) > 1 else []
