"""Opening a bank's database: SQLite as a server would run it, brought to the schema of this code."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import ExceptionContext

from trimem.errors import BankBusyError, CorruptDatabaseError, DiskError, SchemaVersionError, StoreError
from trimem.store.schema import SCHEMA_VERSION
from trimem.store.scope import CANONICAL, MOMENT, canonical, moment

_PATIENCE = 30.0  # seconds a writer waits for its turn
_PRAGMAS = (
    f"busy_timeout={1000 * _PATIENCE:.0f}",
    "synchronous=FULL",  # what is committed survives a power cut
    "foreign_keys=ON",
    "secure_delete=ON",  # what is deleted is overwritten with zeros
    "temp_store=MEMORY",
)


def open_engine(path: Path) -> Engine:
    """Open the SQLite database at ``path``, creating it or bringing it to this code's schema.

    Raises:
        SchemaVersionError: It was written by a newer trimem.
        DiskError: The disk is full, read-only or failing; of this, all that the engine does later may tell, too.
        CorruptDatabaseError: It is no SQLite database any more; the same.
        BankBusyError: Others write for longer than a writer waits; the same.
    """
    engine = create_engine(f"sqlite:///{path}")
    event.listen(engine, "connect", _configure)
    event.listen(engine, "begin", _begin)
    event.listen(engine, "handle_error", partial(_translate, path), retval=True)
    try:
        _migrate(engine)
    except BaseException:
        engine.dispose()
        raise
    return engine


def writing(engine: Engine) -> Engine:
    """Return ``engine`` for transactions that write: they queue at their start instead of failing midway."""
    return engine.execution_options(sqlite_begin="IMMEDIATE")


def rewrite(path: Path, connection: Any) -> None:
    """Write the whole database anew, so that nothing is left of what was in it; readers go on. O(bytes).

    SQLite overwrites what it deletes, but not what stood where it moved a row away from before. Until it is done, it
    takes as much memory and as much room on the disk again as the database has bytes.

    Args:
        path: The database, for messages.
        connection: Of the driver, outside any transaction.

    Raises:
        StoreError: As :func:`open_engine` says.
    """
    with _translated(path):
        connection.execute("VACUUM")


def empty_log(path: Path, connection: Any) -> bool:
    """Move what is in the log into the database, and return whether that was done: not while somebody reads the log.

    Args:
        path: The database, for messages.
        connection: As of :func:`rewrite`.

    Raises:
        StoreError: As :func:`open_engine` says.
    """
    with _translated(path):
        return not connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise _said(path, error) or error from error


def _translate(path: Path, context: ExceptionContext) -> StoreError | None:
    """Return trimem's error for what SQLite says of disk, file or locks; None leaves SQLAlchemy's."""
    error = context.original_exception
    return _said(path, error) if isinstance(error, sqlite3.Error) else None


def _said(path: Path, error: sqlite3.Error) -> StoreError | None:
    said = str(error)
    if any(part in said for part in ("disk is full", "readonly", "disk I/O error", "unable to open")):
        return DiskError(
            f"{path} cannot be written: {said}. Nothing of this call was stored: make room, or let this user write in "
            "its folder, and call it again"
        )
    if any(part in said for part in ("malformed", "not a database")):
        return CorruptDatabaseError(
            f"{path} is damaged: {said}. Run trimem verify to see how far, and put back a copy or an export of it"
        )
    if "locked" in said or "busy" in said:
        return BankBusyError(f"others wrote to {path} for longer than a writer waits: call it again")
    return None


def _configure(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # pysqlite would begin transactions on its own terms
    cursor = connection.cursor()
    for pragma in _PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    _keep_a_log(cursor)
    cursor.close()
    connection.create_function(MOMENT, 1, moment, deterministic=True)
    connection.create_function(CANONICAL, 1, canonical, deterministic=True)


def _keep_a_log(cursor: sqlite3.Cursor) -> None:
    """Let readers go on while one writes; SQLite itself does not wait when several turn a new file's log on at once."""
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as busy:
            if "locked" not in str(busy) or time.monotonic() > until:
                raise
            time.sleep(0.01)


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql(f"BEGIN {connection.get_execution_options().get('sqlite_begin', 'DEFERRED')}")


def _migrate(engine: Engine) -> None:
    if _version(engine) == SCHEMA_VERSION:
        return  # without loading Alembic, which takes longer than opening the bank

    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    with writing(engine).begin() as connection:
        version = _version(connection)  # another process may have been first
        known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
        if version is not None and version not in known:
            raise SchemaVersionError(
                f"the bank has schema {version}, this trimem knows up to {SCHEMA_VERSION}: "
                "open it with the trimem that wrote it, or a newer one (pip install --upgrade trimem)"
            )
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _version(bind: Engine | Connection) -> str | None:
    if isinstance(bind, Engine):
        with bind.connect() as connection:
            return _version(connection)
    if not inspect(bind).has_table("alembic_version"):
        return None
    return bind.execute(text("SELECT version_num FROM alembic_version")).scalar()
