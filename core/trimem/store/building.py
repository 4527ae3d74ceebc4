"""A bank made anew beside the one that is in use, and the switch from one to the other in one transaction.

The new one is a bank of its own in a folder inside the bank's, so that what was made of it outlives a crash. It is
made from the documents of the old one, follows it while others write and forget, and becomes its slots and tensors
when it holds the same documents: readers see all of the old or all of the new.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from sqlalchemy import inspect, select, text
from sqlalchemy.orm import Session, joinedload, undefer

from trimem.errors import InvalidInputError, StoreError
from trimem.store.capacity import newest_slot
from trimem.store.database import Database, touch
from trimem.store.metadata import Document, MetadataStore
from trimem.store.schema import BankRow, DocumentRow, ItemRow, ShardRow, SlotRow
from trimem.store.scope import parse_path
from trimem.store.shards import ShardChange
from trimem.store.upkeep import tend
from trimem.types import Namespace, SlotId

FOLDER = "recompiling"
DATABASE = "bank.sqlite"

GROUP = 16
"""Documents handed on to be made anew at once."""

ATTEMPTS = 4
"""To find a moment at which nobody has written; then others wait."""

CARRIED = ("created_at", "expires_at", "provenance", "trust")
"""What slots take over from those they stand in the place of."""

COUNTED = ("reads", "read_at", "warmth", "warmth_at")
"""Likewise, as of the moment of the switch."""

_KEPT = ("shard_id", "tensor_bytes", "tensor_checksum")  # by the slot of the same id, if the model stays

Write = Callable[[Namespace, list[Document]], object]
Hashes = dict[tuple[str, str], str]
"""Content hashes by namespace, as it is stored, and key."""

Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Target:
    """What a bank is to be made with.

    Attributes:
        model_name: What to call the model.
        model: Its fingerprint.
        encoder: That of the encoder.
        config: How it is made.
    """

    model_name: str
    model: str
    encoder: str
    config: Mapping[str, Any]

    def matches(self, row: BankRow) -> bool:
        """Return whether a bank is made so."""
        return (self.model, self.encoder) == (row.model_fingerprint, row.encoder_fingerprint)


def folder_beside(folder: Path) -> Path:
    """Return where a bank is made anew."""
    return folder / FOLDER


def database_beside(folder: Path) -> Path:
    """Return the database of a bank that is made anew."""
    return folder_beside(folder) / DATABASE


def target_of(made: BankRow) -> Target:
    """Return what a bank is made with."""
    return Target(made.model_name, made.model_fingerprint, made.encoder_fingerprint, made.config)


def forget_what_is_gone(old: Database) -> None:
    """Erase from the bank that is made anew what the old one holds no more; nothing if it is gone itself.

    Raises:
        StoreError: It cannot be erased.
    """
    beside = database_beside(old.path.parent)
    try:
        new = MetadataStore(beside)
        try:
            drop_gone(old, new)
            tend(new)
        finally:
            new.close()
    except StoreError:
        if beside.exists():
            raise


def sweep(store: MetadataStore) -> None:
    """Remove what a switch has left beside a bank; what can be gone on with stays, without what is gone.

    Call it while nobody is making the bank anew.
    """
    beside = database_beside(store.path.parent)
    if not beside.parent.exists():
        return
    with suppress(StoreError):
        other = MetadataStore(beside)
        row, made, begun = store.bank(), other.bank(), total(other)
        other.close()
        if row is not None and made is not None and begun and not target_of(made).matches(row):
            forget_what_is_gone(store)
            return
    remove(store.path.parent)


def remove(folder: Path) -> None:
    """Remove the bank that is made anew beside a bank."""
    shutil.rmtree(folder_beside(folder), ignore_errors=True)


def total(store: MetadataStore) -> int:
    """Return the number of documents."""
    return len(_hashes(store))


def follow(old: MetadataStore, new: MetadataStore, write: Write, advance: Advance = lambda _: None) -> None:
    """Make the new bank hold the documents of the old one. O(documents), and what making the missing ones costs.

    Args:
        old: The bank in use.
        new: The one beside it, whose ``made_from`` is the old one.
        write: Stores documents of a namespace in the new bank.
        advance: Called with the number of documents that the new bank has, as they come.

    Raises:
        InvalidInputError: A document cannot be made anew, because the bank does not keep its text.
    """
    theirs, ours = drop_gone(old, new)
    missing = [place for place in theirs if place not in ours]
    advance(len(theirs) - len(missing))
    for namespace, keys in _runs(missing):
        of = (DocumentRow.namespace == namespace, DocumentRow.key.in_(keys))
        with old.session(expired=True) as session:
            rows = {row.key: row for row in session.scalars(select(DocumentRow).where(*of))}
        if any(not row.text for row in rows.values()):
            raise InvalidInputError(
                f"the bank in {old.path.parent} does not keep the texts of some documents under "
                f"{'/'.join(parse_path(namespace))}: it cannot be made anew"
            )
        found = [Document(key, rows[key].text, rows[key].meta) for key in keys if key in rows]
        if found:
            write(parse_path(namespace), found)
        advance(len(keys))
    _carry(old, new)


def switch(
    old: MetadataStore, new: MetadataStore, target: Target, write: Write, advance: Advance = lambda _: None
) -> None:
    """Bring the new bank up to the old one and put its slots in the place of those of the old one.

    O(bytes of the rows) in the transaction, in which others wait to write and readers go on.

    Raises:
        DiskError: The disk is full; nothing has changed then.
    """
    for attempt in count():
        with nullcontext() if attempt < ATTEMPTS else old.changing():  # in which others wait
            revision = old.revision()
            follow(old, new, write, advance)
        with old.changing_beside(new.path) as (session, change):
            if session.get_one(BankRow, 1).revision == revision:
                _take_over(session, change, old, new, target)
                return


def drop_gone(old: Database, new: MetadataStore) -> tuple[Hashes, Hashes]:
    """Erase from the new bank what the old one holds no more, or otherwise, and return what both hold then."""
    while True:
        theirs, ours = _hashes(old), _hashes(new)
        gone: dict[str, list[str]] = {}
        for (namespace, key), content in ours.items():
            if theirs.get((namespace, key)) != content:
                gone.setdefault(namespace, []).append(key)
        if not gone:
            return theirs, ours
        for namespace, keys in gone.items():
            new.delete(parse_path(namespace), keys, None)


def _take_over(session: Session, change: ShardChange, old: MetadataStore, new: MetadataStore, target: Target) -> None:
    row = session.get_one(BankRow, 1)
    stays = row.model_fingerprint == target.model
    columns = [column.name for column in inspect(SlotRow).columns]
    copied = [name for name in columns if name not in {"id", "document_id", *COUNTED, *_KEPT}]
    if row.encoder_fingerprint != target.encoder and _items_have_slots(session):
        raise InvalidInputError(
            f"the bank in {old.path.parent} holds items, whose vectors stay those of its encoder: bring it to another "
            "model alone, or delete them"
        )
    if stays:
        change.leave(_only_in_old(session))
    newest = newest_slot(session)
    kept = f"document_id, start, slot_id, {_list(COUNTED)}, {_list(_KEPT)}"
    session.execute(text(f"CREATE TEMP TABLE was AS SELECT {kept} FROM main.slot"))  # noqa: S608
    session.execute(text("CREATE INDEX temp.was_there ON was(document_id, start)"))
    session.execute(text("CREATE INDEX temp.was_called ON was(slot_id)"))
    session.execute(text("DELETE FROM main.slot WHERE document_id NOT IN (SELECT document_id FROM main.item)"))
    if not stays:
        session.execute(text(f"UPDATE main.slot SET {' = NULL, '.join(_KEPT)} = NULL"))  # of items  # noqa: S608
        change.removed += session.scalars(select(ShardRow.name)).all()
        session.execute(text("DELETE FROM main.shard"))
        names = session.scalars(text("SELECT name FROM other.shard")).all()
        if taken := set(names) & set(change.removed):
            raise InvalidInputError(f"both banks have shards called {sorted(taken)}: remove {new.path.parent}")
        old.tensors.take([new.tensors.path(name) for name in names])  # which count once rows name them
        rest = "name, bytes, checksum, records"
        session.execute(text(f"INSERT INTO main.shard({rest}) SELECT {rest} FROM other.shard"))  # noqa: S608
        shard = "SELECT m.id FROM main.shard m JOIN other.shard o ON o.name = m.name WHERE o.id = s.shard_id"
        kept = f"({shard}), s.tensor_bytes, s.tensor_checksum"
    else:
        kept = ", ".join(f"(SELECT {name} FROM was WHERE was.slot_id = s.slot_id)" for name in _KEPT)  # noqa: S608
    first = "FROM was WHERE was.document_id = d.id AND was.start <= s.start ORDER BY was.start DESC LIMIT 1"
    counted = ", ".join(f"COALESCE((SELECT {name} {first}), s.{name})" for name in COUNTED)
    session.execute(
        text(
            f"INSERT INTO main.slot(document_id, {_list(copied)}, {_list(COUNTED)}, {_list(_KEPT)}) "  # noqa: S608
            f"SELECT d.id, {', '.join(f's.{name}' for name in copied)}, {counted}, {kept} "
            "FROM other.slot s JOIN other.document b ON b.id = s.document_id "
            "JOIN main.document d ON d.namespace = b.namespace AND d.key = b.key ORDER BY d.id, s.start"
        )
    )
    session.execute(text("DROP TABLE temp.was"))
    # Rows are numbered anew: uses stay as long ago as they were.
    later = {"later": newest_slot(session) - newest}
    session.execute(text("UPDATE main.slot SET warmth_at = warmth_at + :later"), later)
    row.model_name, row.model_fingerprint, row.encoder_fingerprint = target.model_name, target.model, target.encoder
    row.config = dict(target.config)
    row.checksum = row.digest()
    session.flush()
    touch(session)


def _only_in_old(session: Session) -> list[SlotId]:
    ours = "SELECT slot_id FROM main.slot WHERE document_id NOT IN (SELECT document_id FROM main.item)"
    return list(session.scalars(text(f"{ours} EXCEPT SELECT slot_id FROM other.slot")))  # noqa: S608


def _items_have_slots(session: Session) -> bool:
    return (
        session.scalars(select(SlotRow.id).where(SlotRow.document_id.in_(select(ItemRow.document_id))).limit(1)).first()
        is not None
    )


def _hashes(store: Database) -> Hashes:
    """Return those of all documents that are no items, what has expired included, oldest first."""
    with store.session(expired=True) as session:
        rows = session.execute(
            select(DocumentRow.namespace, DocumentRow.key, DocumentRow.content_hash)
            .where(DocumentRow.id.not_in(select(ItemRow.document_id)))
            .order_by(DocumentRow.id)
        )
        return {(namespace, key): content for namespace, key, content in rows}


def _runs(places: Sequence[tuple[str, str]]) -> Iterator[tuple[str, list[str]]]:
    """Split documents into runs of one namespace."""
    keys: list[str] = []
    for i, (namespace, key) in enumerate(places):
        keys.append(key)
        if len(keys) == GROUP or i + 1 == len(places) or places[i + 1][0] != namespace:
            yield namespace, keys
            keys = []


def _carry(old: MetadataStore, new: MetadataStore) -> None:
    """Give new slots what is known of the old ones that hold their beginnings. O(slots)."""
    last = 0
    while True:
        with new.changing() as (session, _):
            slots = session.scalars(
                select(SlotRow)
                .where(SlotRow.id > last)
                .order_by(SlotRow.id)
                .limit(4 * GROUP)
                .options(undefer(SlotRow.vector), undefer(SlotRow.sentences), joinedload(SlotRow.document))
            ).all()
            if not slots:
                return
            known = _known(old, {(slot.document.namespace, slot.document.key) for slot in slots})
            for slot in slots:
                held = known.get((slot.document.namespace, slot.document.key), ())
                if before := [each for each in held if each[0] <= slot.start]:
                    for name, value in zip(CARRIED, before[-1][1:], strict=True):
                        setattr(slot, name, value)
                    slot.checksum = slot.digest()
            last = slots[-1].id


def _known(old: Database, places: Collection[tuple[str, str]]) -> dict[tuple[str, str], list[tuple[Any, ...]]]:
    """Return where the slots of documents start, and what is carried over of each, in order."""
    found: dict[tuple[str, str], list[tuple[Any, ...]]] = {}
    carried = [getattr(SlotRow, name) for name in CARRIED]
    with old.session(expired=True) as session:
        for namespace in {namespace for namespace, _ in places}:
            keys = [key for path, key in places if path == namespace]
            rows = session.execute(
                select(DocumentRow.key, SlotRow.start, *carried)
                .join(DocumentRow.slots)
                .where(DocumentRow.namespace == namespace, DocumentRow.key.in_(keys))
                .order_by(DocumentRow.id, SlotRow.start)
            )
            for key, *told in rows:
                found.setdefault((namespace, key), []).append(tuple(told))
    return found


def _list(names: Sequence[str]) -> str:
    return ", ".join(names)
