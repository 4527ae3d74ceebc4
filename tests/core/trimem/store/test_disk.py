"""What a disk refuses is said in trimem's words, and costs nothing that was there."""

from __future__ import annotations

import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import select, update

from tests.core.trimem.store.test_metadata import document
from trimem import BankBusyError, Capacity, CorruptDatabaseError, DiskError
from trimem.bench.numbered import compare, open_store, put, slot_id
from trimem.store import upkeep
from trimem.store.integrity import verify
from trimem.store.items import ItemRows, NewItem
from trimem.store.metadata import Document, MetadataStore
from trimem.store.schema import ErasureRow

A = ("a",)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MetadataStore]:
    store = open_store(tmp_path / "bank")
    put(store, "d", 1)
    yield store
    store.close()


@contextmanager
def files_at_most(size: int) -> Iterator[None]:
    """Let the operating system refuse to write files beyond a size, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def fill(store: MetadataStore) -> None:
    """Write documents until the disk refuses."""
    for number in range(2, 500):
        put(store, f"e{number}", number)


def holds_what_it_held(store: MetadataStore) -> None:
    compare(store, slot_id(A, "d", 1), there=True)
    assert store.ids(A, None) == [slot_id(A, "d", 1)]
    assert verify(store).ok


def test_no_room_for_tensors(store: MetadataStore) -> None:
    with files_at_most(1000), pytest.raises(DiskError, match="call it again"):
        put(store, "e", 2)
    holds_what_it_held(store)
    put(store, "e", 2)


def test_no_room_for_rows(store: MetadataStore) -> None:
    with store.changing() as (session, _):
        pages = session.connection().exec_driver_sql("PRAGMA page_count").scalar_one()
    with store.session() as session:
        session.connection().exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(DiskError, match="disk is full"):
        fill(store)
    stored = len(store.ids(A, None))
    assert stored > 1
    report = verify(store)
    assert {problem.kind for problem in report.problems} <= {"stray"}
    store.close()
    with open_again(store) as again:
        assert len(again.ids(A, None)) == stored
        assert verify(again).ok


@contextmanager
def open_again(store: MetadataStore) -> Iterator[MetadataStore]:
    again = open_store(store.path.parent)
    try:
        yield again
    finally:
        again.close()


def write_again(store: MetadataStore) -> None:
    with open_again(store) as again:
        put(again, "e", 2)


def test_a_full_disk(tmp_path: Path) -> None:
    """On a file system of one megabyte, where this user may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    if os.geteuid() != 0 or mount is None:
        pytest.skip("needs to mount a file system")
    if subprocess.run([mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], check=False).returncode:
        pytest.skip("needs to mount a file system")
    try:
        store = open_store(disk / "bank")
        with pytest.raises(DiskError, match=r"No space left|disk is full|disk I/O error"):
            fill(store)
        stored = store.ids(A, None)
        assert stored
        for slot in stored:
            compare(store, slot, there=True)
        store.close()
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """Asked of another process, since root may write anywhere: it gives up being root first."""
    open_store(tmp_path / "bank").close()
    for path in (tmp_path / "bank", *(tmp_path / "bank").rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    for path in [tmp_path, *list(tmp_path.parents)[:2]]:
        path.chmod(path.stat().st_mode | 0o555)
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from trimem import DiskError\n"
        "from trimem.bench.numbered import open_store, put\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"
        "try:\n"
        "    put(open_store(Path(sys.argv[1])), 'd', 1)\n"
        "except DiskError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "bank")], capture_output=True, text=True, check=False
    )
    assert "cannot be written" in done.stdout, done.stderr


def test_what_is_no_database(store: MetadataStore) -> None:
    store.close()
    store.path.write_bytes(b"something else" * 1000)
    with pytest.raises(CorruptDatabaseError, match="damaged"):
        open_store(store.path.parent)


def test_a_truncated_database(store: MetadataStore) -> None:
    store.close()
    data = store.path.read_bytes()
    store.path.write_bytes(data[: len(data) // 2])
    with pytest.raises(CorruptDatabaseError, match="damaged"):
        write_again(store)


def test_a_writer_that_never_ends_is_named(store: MetadataStore) -> None:
    with open_again(store) as other:
        with other.session() as session:
            session.connection().exec_driver_sql("PRAGMA busy_timeout = 50")
        with store.changing(), pytest.raises(BankBusyError, match="call it again"):
            put(other, "e", 2)
    holds_what_it_held(store)


def test_a_reader_that_never_ends_is_said_when_something_is_forgotten(
    store: MetadataStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MetadataStore.finish_erasures, "__defaults__", (0.1,))
    with open_again(store) as other, other.session() as reading:
        assert store.ids(A, None)
        reading.connection().exec_driver_sql("SELECT * FROM document").fetchone()
        with store.session() as session:
            session.connection().exec_driver_sql("PRAGMA busy_timeout = 50")
        with pytest.raises(BankBusyError, match="still stands in the log"):
            store.delete(A, None, None)
    assert store.ids(A, None) == []
    with open_again(store):
        pass
    assert b"secret00000001x" not in b"".join(file.read_bytes() for file in store.path.parent.rglob("*.*"))


def bare(store: MetadataStore, key: str, size: int) -> None:
    """Store a document that is found by its key alone."""
    store.put(A, [(Document(key, "x" * size, {}), [])])


def test_no_room_to_write_the_database_anew_is_said_as_it_is(store: MetadataStore) -> None:
    """The rows are gone when that fails: nothing is to be called again, and nothing comes back."""
    bare(store, "long", 600_000)
    upkeep.compact(store)  # out of the log
    with files_at_most(300_000), pytest.raises(DiskError, match=r"gone from its rows.*Make room") as error:
        store.delete(A, ["d"], None)
    assert "Nothing of this call" not in str(error.value)
    assert store.ids(A, None) == []
    assert [receipt.slots for receipt in store.receipts(A)] == [(slot_id(A, "d", 1),)]
    with files_at_most(300_000):
        upkeep.tend(store)  # a full disk keeps nobody from opening the bank
        assert [one.key for one in store.texts(A, ["long"])] == ["long"]
    upkeep.tend(store)
    with store.session() as session:
        assert session.scalars(select(ErasureRow.finished)).all() == [True]
    assert b"secret00000001x" not in b"".join(file.read_bytes() for file in store.path.parent.rglob("*.*"))


def test_who_makes_room_does_not_wait_for_a_reader(store: MetadataStore) -> None:
    with open_again(store) as other, other.session() as reading:
        reading.connection().exec_driver_sql("SELECT * FROM document").fetchone()
        began = time.perf_counter()
        text = document("e", "room")
        assert store.put(A, [text], capacity=Capacity(slots=1)) == [slot_id(A, "d", 1)]
        ItemRows(store).write([NewItem(A, Document("i", "", {"n": 1}), [], None)], [])
        upkeep.tend(store)
        assert time.perf_counter() - began < 10, "as long as one waits for a reader who is to let go"
    upkeep.tend(store)
    assert b"secret00000001x" not in b"".join(file.read_bytes() for file in store.path.parent.rglob("*.*"))


def test_who_opens_a_bank_does_not_wait_for_a_writer(store: MetadataStore) -> None:
    """What was to be overwritten is left to the next time."""
    store.put(A, [document("e", "room")], capacity=Capacity(slots=1))
    with open_again(store) as other, closing(sqlite3.connect(store.path, isolation_level=None)) as writing:
        with other.changing() as (session, _):
            session.execute(update(ErasureRow).values(finished=False))
        writing.execute("BEGIN IMMEDIATE")
        began = time.perf_counter()
        upkeep.tend(other)
        assert time.perf_counter() - began < 10
        writing.execute("ROLLBACK")
        assert other.ids(A, None) == ["e-0"]


def test_a_clock_that_is_set_back_changes_nothing(tmp_path: Path) -> None:
    moments = (datetime(2026, 1, 2, tzinfo=UTC) - timedelta(days=i) for i in count())
    (tmp_path / "bank").mkdir()
    store = MetadataStore(tmp_path / "bank" / "bank.sqlite", clock=lambda: next(moments))
    try:
        for number in range(1, 6):
            put(store, "d", number)
        put(store, "e", 9)
        assert store.ids(A, None) == [slot_id(A, "d", 5), slot_id(A, "e", 9)]
        assert store.delete(A, ["e"], None).documents == 1
        compare(store, slot_id(A, "d", 5), there=True)
        assert verify(store).ok
    finally:
        store.close()
