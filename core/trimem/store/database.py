"""The database of a bank: how it is opened, read, and changed in one transaction with the files of tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import PoolProxiedConnection, delete, func, select, update
from sqlalchemy.orm import Session

from trimem.checks import shown
from trimem.errors import DiskError, FingerprintMismatch, InvalidInputError
from trimem.store.checksums import checksum
from trimem.store.engine import open_engine, writing
from trimem.store.expiry import ForwardClock, LivingSession
from trimem.store.reader import SearchReader
from trimem.store.schema import CODED, ITEMS, BankRow, ChangeRow
from trimem.store.scope import as_written, check_key
from trimem.store.shards import ShardChange
from trimem.store.tensors import TensorStore
from trimem.types import SlotId

CHANGES_KEPT = 100_000
"""Changes that are noted; who was away for longer reads all slots again."""


def utc_now() -> datetime:
    """Return this moment."""
    return datetime.now(UTC)


class Database:
    """The database of one bank, without what is in it.

    Args:
        path: The SQLite file; created if it does not exist.
        clock: Tells the moment, with its time zone; while it runs back, the store's stands still.
        tensors: The files of the slots' tensors; None is ``tensors`` beside the database.

    Attributes:
        reader: What search reads.
        tensors: The files.
        made_by: Fingerprints of model and encoder, once it is known with what is written here; None is any.
        forgets: Called with slots that were erased a moment ago, so that whoever holds anything of them lets go of it.

    Raises:
        SchemaVersionError: It was written by a newer trimem.
    """

    def __init__(self, path: Path, clock: Callable[[], datetime] = utc_now, tensors: TensorStore | None = None) -> None:
        self.path = path
        self.tensors = tensors or TensorStore(path.parent / "tensors")
        self._clock = ForwardClock(clock)
        self._engine = open_engine(path)
        self._writing = writing(self._engine)
        self.reader = SearchReader(self._engine, self.now)
        self.made_by: tuple[str, str] | None = None
        self.forgets: Callable[[Sequence[SlotId]], None] = lambda _: None

    def close(self) -> None:
        self._engine.dispose()

    def now(self) -> datetime:
        """Return this moment, by the bank's clock."""
        return self._clock()

    def session(self, *, expired: bool = False) -> Session:
        """Return a session to read in; use it in a ``with`` block.

        Args:
            expired: Whether it sees what has expired and is not erased yet.
        """
        return Session(self._engine) if expired else LivingSession(self._engine, self.now)

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
        with self._changing(Session(self._writing)) as changing:
            yield changing

    @contextmanager
    def changing_beside(self, other: Path) -> Iterator[tuple[Session, ShardChange]]:
        """:meth:`changing`, with another database that can be read as ``other``."""
        with self._writing.connect() as connection:
            raw = connection.connection.cursor()  # outside any transaction, where alone this can be done
            raw.execute("ATTACH DATABASE ? AS other", (str(other),))
            try:
                with self._changing(Session(connection)) as changing:
                    yield changing
            finally:
                raw.execute("DETACH DATABASE other")
                raw.close()

    @contextmanager
    def _changing(self, opened: Session) -> Iterator[tuple[Session, ShardChange]]:
        with opened as session:
            change = ShardChange(session, self.tensors)
            try:
                with session.begin():
                    session.connection()  # takes the lock, before any file is published
                    try:
                        yield session, change
                    except BaseException:
                        change.withdraw()  # only here is it sure that no row will name them
                        raise
            except BaseException:
                change.undo()
                raise
        if change.erased:
            self.forgets(change.erased)  # first of all: what follows may fail
        try:
            self.tensors.delete(change.removed)
        except DiskError as error:
            raise DiskError(
                f"what changed in {self.path.parent} is stored, but files of before could not be removed: "
                f"{error.__cause__}. Let this user write there, and open the bank again, which removes them"
            ) from error

    def check_made_by(self, session: Session | None = None) -> None:
        """Raise if the bank was brought to another model or encoder since it was opened.

        Raises:
            FingerprintMismatch: It was.
        """
        if session is None:
            with self.session() as session:
                return self.check_made_by(session)
        statement = select(BankRow.model_fingerprint, BankRow.encoder_fingerprint, BankRow.model_name)
        found = session.execute(statement).one_or_none()
        if self.made_by is not None and found is not None and tuple(found[:2]) != self.made_by:
            raise FingerprintMismatch(
                f"the bank in {self.path.parent} was brought to {found[2]} ({found[0]}, encoded by {found[1]}) since "
                f"it was opened for {' and '.join(self.made_by)}: open it again"
            )
        return None

    def bank(self) -> BankRow | None:
        """Return the bank's row, or None in a new database, and in one that holds items alone."""
        row = self.origin()
        return None if row is None or row.mechanism == ITEMS else row

    def origin(self) -> BankRow | None:
        """Return the row that tells what the database was made with, be it a bank or items alone; None in a new one."""
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
        """Store the bank's row unless there is one already, and return the one there is.

        A database that holds items alone becomes a bank; its encoder stays what it was.

        Raises:
            InvalidInputError: It holds items with texts, and the mechanism has no place for them.
        """
        with Session(self._writing, expire_on_commit=False) as session, session.begin():
            row = session.get(BankRow, 1)
            if row is None:
                row = BankRow(mechanism, model_name, model_fingerprint, encoder_fingerprint, dict(config), self.now())
                row.checksum = row.digest()
                session.add(row)
            elif row.mechanism == ITEMS:
                if mechanism == CODED:
                    raise InvalidInputError(
                        f"{self.path.parent} holds items with texts, for which {mechanism} memory is no place: open "
                        "the bank in a folder of its own"
                    )
                become(row, mechanism, model_name, model_fingerprint, config)
            return row

    def revision(self) -> int:
        """Return a number that grows with every write to this bank, by whichever process."""
        with Session(self._engine) as session:
            return session.scalars(select(BankRow.revision)).one_or_none() or 0

    def index_metadata(self, key: str) -> None:
        """Find by metadata of this key in O(what is found) from now on, instead of O(slots). O(documents), once."""
        if not check_key(key).isprintable():  # as_written: it would not be used
            raise InvalidInputError(f"only a metadata key of printable characters can be indexed, got {shown(key)}")
        path = as_written(f'$."{key}"')
        name = f"ix_meta_{checksum(key)}"
        with Session(self._writing) as session, session.begin():
            statement = f"CREATE INDEX IF NOT EXISTS {name} ON document(json_extract(meta, {path}))"
            session.connection().exec_driver_sql(statement)  # text() would take a colon in the key for a parameter

    def database_bytes(self) -> int:
        """Return the bytes of the database with its log."""
        return sum(file.stat().st_size for file in self.path.parent.glob(f"{self.path.name}*"))


def become(row: BankRow, mechanism: str, model_name: str, model: str, config: Mapping[str, Any]) -> None:
    """Let a database that held items alone be a bank; its encoder stays what it was."""
    row.mechanism, row.model_name, row.model_fingerprint, row.config = mechanism, model_name, model, dict(config)
    row.checksum = row.digest()


def touch(session: Session) -> None:
    """Note that a transaction changes what the bank holds."""
    session.execute(update(BankRow).values(revision=BankRow.revision + 1))
    oldest = select(func.max(ChangeRow.id) - CHANGES_KEPT).scalar_subquery()
    session.execute(delete(ChangeRow).where(ChangeRow.id <= oldest))
