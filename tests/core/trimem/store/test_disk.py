"""What a disk refuses is said in trimem's words, and costs nothing that was there."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest

from trimem import BankBusyError, CorruptDatabaseError, DiskError
from trimem.bench.durability import compare, open_store, put, slot_id
from trimem.store.integrity import verify
from trimem.store.metadata import MetadataStore

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
        "from trimem.bench.durability import open_store, put\n"
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
