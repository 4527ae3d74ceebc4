"""Whether a bank is what was written, and making it so again.

Every bit that is read is covered: files by their checksums and those of their records, rows by theirs,
the full-text index by comparison with the slots, and the pages of the database by SQLite's own check.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import func, select, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, joinedload, undefer

from trimem.errors import CorruptDatabaseError
from trimem.reports import IntegrityReport, Problem
from trimem.store.metadata import MetadataStore
from trimem.store.rows import Document, Terms
from trimem.store.schema import SEARCH_TABLE, BankRow, DocumentRow, ItemRow, ShardRow, SlotRow
from trimem.store.scope import parse_path
from trimem.types import Namespace, SlotId

_AT_ONCE = 1024  # rows read in one go


def verify(store: MetadataStore) -> IntegrityReport:
    """Compare all that a bank holds with its checksums. O(bytes of the bank).

    It may be used meanwhile: what others change is not taken for damage.
    """
    try:
        with store.session(expired=True) as session:
            problems = [*_database(store, session), *_rows(store, session)]
            documents = session.scalars(select(func.count()).select_from(DocumentRow)).one()
            slots = session.scalars(select(func.count()).select_from(SlotRow)).one()
            shards = session.scalars(select(ShardRow.name)).all()
        problems += _index(store)
    except (CorruptDatabaseError, SQLAlchemyError, ValueError, TypeError, OverflowError) as error:
        return IntegrityReport(0, 0, 0, (Problem("database", str(store.path), f"cannot be read: {error}"),))
    problems += [problem for name in shards for problem in _shard(store, name)]
    problems += [Problem("stray", str(path), "belongs to no row") for path in store.strays()]
    return IntegrityReport(documents, slots, len(shards), tuple(problems))


def repair_shards(store: MetadataStore) -> list[SlotId]:
    """Write damaged shards anew with what is whole of them, and return the slots whose tensors are lost.

    O(bytes of the tensors). The tensors can be made again from the slots' texts.
    """
    with store.session(expired=True) as session:
        shards = session.scalars(select(ShardRow.name)).all()
    lost: list[SlotId] = []
    for name in shards:
        if list(_shard(store, name)):
            with store.changing() as (session, change):
                lost += change.rewrite(session.scalars(select(ShardRow.id).where(ShardRow.name == name)).all())
    return lost


def repair_indexes(store: MetadataStore) -> None:
    """Build the full-text index anew from the slots, and all other indexes from their tables. O(rows)."""
    with store.changing() as (session, _):
        session.execute(text("REINDEX"))
        session.execute(text(f"INSERT INTO {SEARCH_TABLE}({SEARCH_TABLE}) VALUES ('rebuild')"))  # noqa: S608


@dataclass(frozen=True, slots=True)
class Rewrite:
    """A document that is whole but has slots that are not.

    Attributes:
        namespace: Its own.
        document: As it is to be written again.
        item: What it is beside that, if it is an item.
    """

    namespace: Namespace
    document: Document
    item: ItemRow | None


def documents_to_rewrite(store: MetadataStore) -> list[Rewrite]:
    """Return the documents that are whole but have slots that are not."""
    with store.session(expired=True) as session:
        found = {slot.document_id: slot.document for slot in _damaged_slots(session)}
        whole = [(row, session.get(ItemRow, row.id)) for row in found.values() if row.checksum == row.digest()]
        return [
            Rewrite(parse_path(row.namespace), Document(row.key, row.text, row.meta, **_terms_of(row)), item)
            for row, item in whole
            if item is None or item.expires_at is None or item.expires_at > store.now()  # else it is erased soon
        ]


def _terms_of(document: DocumentRow) -> Terms:
    """Return on what terms a document is held: what its slots agree on, those that are whole before those that are not.

    Where they do not agree, the shortest time and the least trust.
    """
    whole = [slot for slot in document.slots if slot.checksum == slot.digest()] or document.slots
    expiries = [slot.expires_at for slot in whole if slot.expires_at is not None]
    return {
        "expires_at": min(expiries, default=None),
        "provenance": next((slot.provenance for slot in whole if slot.provenance is not None), None),
        "trust": min(max(min((slot.trust for slot in whole), default=1.0), 0.0), 1.0),
    }


def _database(store: MetadataStore, session: Session) -> Iterator[Problem]:
    said = session.scalars(text("PRAGMA integrity_check(20)")).all()
    if said != ["ok"]:
        yield Problem("database", str(store.path), "; ".join(map(str, said)))
    for table, row, *_ in session.execute(text("PRAGMA foreign_key_check")):
        yield Problem("database", str(store.path), f"row {row} of {table} names a row that is not there")


def _rows(store: MetadataStore, session: Session) -> Iterator[Problem]:
    for bank in session.scalars(select(BankRow)):
        if bank.checksum != bank.digest():
            yield Problem("bank", str(store.path), "what the bank was made with is not what was written")
    for row in session.scalars(select(DocumentRow).execution_options(yield_per=_AT_ONCE)):
        if row.checksum != row.digest():
            ids = tuple(session.scalars(select(SlotRow.slot_id).where(SlotRow.document_id == row.id)))
            yield Problem("document", f"{row.namespace}{row.key}", "is not what was written", ids)
    for item, document in session.execute(
        select(ItemRow, DocumentRow).join(DocumentRow, DocumentRow.id == ItemRow.document_id)
    ):
        if item.checksum != item.digest():
            yield Problem("item", f"{document.namespace}{document.key}", "is not what was written")
    for slot in _damaged_slots(session):
        document = slot.document
        yield Problem("slot", f"{document.namespace}{document.key}", "is not what was written", (slot.slot_id,))


def _damaged_slots(session: Session) -> Iterator[SlotRow]:
    statement = select(SlotRow).options(
        undefer(SlotRow.vector), undefer(SlotRow.sentences), joinedload(SlotRow.document)
    )
    for slot in session.scalars(statement.execution_options(yield_per=_AT_ONCE)):
        if slot.checksum != slot.digest() or slot.namespace != slot.document.namespace:
            yield slot


def _index(store: MetadataStore) -> Iterator[Problem]:
    try:
        with store.changing() as (session, _):
            session.execute(text(f"INSERT INTO {SEARCH_TABLE}({SEARCH_TABLE}, rank) VALUES ('integrity-check', 1)"))  # noqa: S608
    except CorruptDatabaseError as error:
        yield Problem("index", str(store.path), f"the full-text index differs from the slots: {error}")


def _shard(store: MetadataStore, name: str) -> Iterator[Problem]:
    row = store.shard(name)
    if row is None:
        return  # others removed it meanwhile
    what = store.tensors.damage(name, row.checksum)
    with store.session(expired=True) as session:
        statement = select(SlotRow.slot_id, SlotRow.tensor_checksum).where(SlotRow.shard_id == row.id)
        records = {slot: checksum for slot, checksum in session.execute(statement)}  # noqa: C416 - rows are no pairs
    whole = store.tensors.read_many(name, records)
    lost = [slot for slot in records if slot not in whole]
    if (what or lost) and store.shard(name) is not None:
        yield Problem("shard", str(store.tensors.path(name)), what or "lacks records", tuple(lost))
