"""A bank follows a folder: each document as it was or as it is, whatever happens in between."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding

from tests.contracts.bank import BOAT, CAKE, PUMP
from trimem import (
    ExplicitBank,
    InvalidInputError,
    InvalidNamespaceError,
    LanguageModel,
    SlotNotFoundError,
    SyncReport,
    Unreadable,
)
from trimem.store.tensors import Place
from trimem.text.readers import read_bytes

ROOT = Path(__file__).parents[4]

Open = Callable[[], ExplicitBank]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    (folder / "deep").mkdir(parents=True)
    (folder / "pump.md").write_text(PUMP)
    (folder / "deep" / "boat.md").write_text(BOAT)
    return folder


@pytest.fixture
def open_bank(tmp_path: Path, tiny_llama: LanguageModel) -> Iterator[Open]:
    """Opens the same bank as often as wanted; its vectors mean nothing, which is quick."""
    opened: list[ExplicitBank] = []

    def open_it() -> ExplicitBank:
        encoder = DeterministicFakeEmbedding(size=16)
        opened.append(ExplicitBank.open(tmp_path / "bank", model=tiny_llama, encoder=encoder))
        return opened[-1]

    yield open_it
    for one in opened:
        one.close()


@pytest.fixture
def bank(open_bank: Open) -> ExplicitBank:
    return open_bank()


def counted(report: SyncReport) -> tuple[int, int, int, int, int]:
    return tuple(map(len, (report.added, report.changed, report.removed, report.unchanged, report.skipped)))  # type: ignore[return-value]


def texts(bank: ExplicitBank, namespace: str = "a") -> set[str]:
    return {hit.text for hit in bank.recall("what?", 999, namespace=namespace)}


def tensors(bank: ExplicitBank) -> dict[str, Place]:
    """Return where the tensors of each slot lie, all of which must be readable."""
    places = bank._store.places(bank._store.ids(("a",), None))
    for slot, place in places.items():
        bank._store.tensors.read(place, slot)
    return places


def test_the_bank_follows_the_folder(bank: ExplicitBank, folder: Path) -> None:
    first = bank.sync(folder, namespace="a")
    assert first.added == ((folder / "deep" / "boat.md").as_posix(), (folder / "pump.md").as_posix())
    assert counted(first) == (2, 0, 0, 0, 0)
    assert texts(bank) == {PUMP, BOAT}
    assert {hit.source for hit in bank.recall("pump", 9, namespace="a")} == set(first.added)
    made = tensors(bank)

    assert counted(bank.sync(folder, namespace="a")) == (0, 0, 0, 2, 0)
    assert tensors(bank) == made, "nothing was compiled again"

    (folder / "pump.md").write_text(CAKE)
    (folder / "deep" / "boat.md").unlink()
    (folder / "new.txt").write_text(f"{BOAT} It is new.")
    report = bank.sync(folder, namespace="a")
    assert counted(report) == (1, 1, 1, 0, 0)
    assert report.added == ((folder / "new.txt").as_posix(),)
    assert report.changed == ((folder / "pump.md").as_posix(),)
    assert report.removed == ((folder / "deep" / "boat.md").as_posix(),)
    assert texts(bank) == {CAKE, f"{BOAT} It is new."}
    assert len(tensors(bank)) == bank.stats().slots == bank.stats().documents == 2, "nothing old stays on the disk"


def test_nothing_changed_needs_no_model(bank: ExplicitBank, folder: Path, tmp_path: Path) -> None:
    bank.sync(folder, namespace="a")
    with ExplicitBank.open(
        bank.folder, model=tmp_path / "absent", encoder=DeterministicFakeEmbedding(size=16)
    ) as other:
        assert counted(other.sync(folder, namespace="a")) == (0, 0, 0, 2, 0)


def test_a_change_is_seen_though_size_and_time_stay(bank: ExplicitBank, folder: Path) -> None:
    bank.sync(folder, namespace="a")
    file = folder / "pump.md"
    before = file.stat()
    file.write_text(PUMP.replace("blue", "grey"))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert bank.sync(folder, namespace="a").changed == (file.as_posix(),)


def test_a_file_that_is_touched_is_unchanged(bank: ExplicitBank, folder: Path) -> None:
    bank.sync(folder, namespace="a")
    revision = bank._store.revision()
    os.utime(folder / "pump.md", (1, 1))
    assert counted(bank.sync(folder, namespace="a")) == (0, 0, 0, 2, 0)
    assert bank._store.revision() == revision, "not even a row is written"


def test_other_bytes_of_the_same_text_are_not_compiled_again(bank: ExplicitBank, folder: Path) -> None:
    bank.sync(folder, namespace="a")
    made = tensors(bank)
    (folder / "pump.md").write_text(PUMP, encoding="utf-8-sig")
    for _ in range(2):
        assert counted(bank.sync(folder, namespace="a")) == (0, 0, 0, 2, 0)
    assert tensors(bank) == made


def test_the_same_folder_by_another_path_is_the_same(
    bank: ExplicitBank, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank.sync(folder, namespace="a")
    made = tensors(bank)
    monkeypatch.chdir(folder.parent)
    assert counted(bank.sync("docs", namespace="a")) == (0, 0, 0, 2, 0)
    assert tensors(bank) == made
    assert {hit.source for hit in bank.recall("pump", 9, namespace="a")} == {"docs/pump.md", "docs/deep/boat.md"}
    monkeypatch.chdir(folder)
    assert bank.sync(".", namespace="a").unchanged == ("deep/boat.md", "pump.md")
    (folder / "pump.md").unlink()
    assert bank.sync(folder.parent / "docs" / "deep" / "..", namespace="a").removed == ("pump.md",)


def test_what_sync_did_not_bring_stays(bank: ExplicitBank, folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "docs2"
    other.mkdir()
    (other / "pump.md").write_text(f"{PUMP} Two.")
    source = (folder / "pump.md").as_posix()
    bank.remember(f"{PUMP} By hand.", namespace="a", ids=source, metadata={"source": source})
    bank.sync(folder, namespace="a")
    bank.sync(other, namespace="a")
    bank.sync(folder / "deep", namespace="a")
    bank.sync(folder, namespace=("a", "below"))
    bank.sync(folder, namespace="b")
    for file in folder.rglob("*.md"):
        file.unlink()
    report = bank.sync(folder, namespace="a")
    assert report.removed == ((folder / "deep" / "boat.md").as_posix(), source)
    assert texts(bank) == {f"{PUMP} By hand.", f"{PUMP} Two.", PUMP, BOAT}
    below = {hit.text for hit in bank.recall("what?", 9, namespace=("a", "below"))}
    assert below == texts(bank, "b") == {PUMP, BOAT}
    assert bank.stats(namespace="a").documents == 5, "and the file of the folder below is still another document"


def test_what_cannot_be_read_is_reported_and_what_it_said_stays(bank: ExplicitBank, folder: Path) -> None:
    (folder / "big.txt").write_text(CAKE)
    (folder / "latin.md").write_text("It is as it was.")
    (folder / "empty.md").write_text("Not empty yet.")
    bank.sync(folder, namespace="a")
    with (folder / "big.txt").open("w") as file:
        file.write("word " * 3000)
        file.truncate(1_000_000_000)
    (folder / "latin.md").write_bytes(b"caf\xe9")
    (folder / "empty.md").write_text(" \n")
    (folder / "picture.png").write_bytes(b"\x89PNG\0\0")
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4 nothing")
    (folder / "wide.txt").write_text("Wide letters.", encoding="utf-16")
    report = bank.sync(folder, namespace="a")
    assert report.added == ((folder / "wide.txt").as_posix(),)
    assert report.removed == ((folder / "empty.md").as_posix(),)
    skipped = {Path(one.source).name: one for one in report.skipped}
    assert {name: (one.error, one.unexpected) for name, one in skipped.items()} == {
        "big.txt": ("FileTooLargeError", True),
        "broken.pdf": ("UnreadableFileError", True),
        "empty.md": ("UnreadableFileError", True),
        "latin.md": ("UnreadableFileError", True),
        "picture.png": ("UnreadableFileError", False),
    }
    assert "1,000.0 MB, and at most 16.0 MB" in skipped["big.txt"].reason
    assert "max_bytes (--max-mb)" in skipped["big.txt"].reason
    assert texts(bank) == {PUMP, BOAT, CAKE, "It is as it was.", "Wide letters."}
    (folder / "big.txt").unlink()
    assert bank.sync(folder, namespace="a").removed == ((folder / "big.txt").as_posix(),)


def test_the_limit_can_be_raised(bank: ExplicitBank, folder: Path) -> None:
    report = bank.sync(folder, namespace="a", max_bytes=45)
    assert (report.added, [one.error for one in report.skipped]) == (
        ((folder / "pump.md").as_posix(),),
        ["FileTooLargeError"],
    )
    assert len(PUMP) == 45
    assert counted(bank.sync(folder, namespace="a", max_bytes=len(BOAT))) == (1, 0, 0, 1, 0)
    for wrong in (0, -1, 1.5, True):
        with pytest.raises(InvalidInputError, match="max_bytes"):
            bank.sync(folder, namespace="a", max_bytes=wrong)  # type: ignore[arg-type]


def test_links_are_followed_to_files_and_not_in_circles(bank: ExplicitBank, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "outside.md").write_text(CAKE)
    (folder / "link.md").symlink_to(tmp_path / "outside.md")
    (folder / "deep" / "up").symlink_to(folder, target_is_directory=True)
    (folder / "loop.md").symlink_to(folder / "loop.md")
    (folder / "nowhere.md").symlink_to(folder / "absent.md")
    report = bank.sync(folder, namespace="a")
    assert texts(bank) == {PUMP, BOAT, CAKE}
    assert {Path(one.source).name: one.reason for one in report.skipped} == {
        "up": "is a link to a folder, not followed",
        "loop.md": "is a link that leads to itself",
        "nowhere.md": "is a link to nothing",
    }
    (tmp_path / "outside.md").unlink()
    assert bank.sync(folder, namespace="a").removed == ((folder / "link.md").as_posix(),)


def test_what_cannot_be_looked_into_is_not_taken_for_gone(
    bank: ExplicitBank, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "deeper.md").write_text(CAKE)
    bank.sync(folder, namespace="a")
    scandir, closed = os.scandir, folder / "deep"

    def forbidden(path: Path) -> object:  # as the system does it to all but the superuser, who runs tests in containers
        if path == closed:
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", forbidden)
    (folder / "pump.md").unlink()
    report = bank.sync(folder, namespace="a")
    reason = "cannot be listed: Permission denied"
    assert report.skipped == (Unreadable(closed.as_posix(), reason, unexpected=True),)
    assert report.removed == ((folder / "pump.md").as_posix(),)
    assert texts(bank) == {BOAT, CAKE}
    closed = folder
    (folder / "deeper.md").unlink()
    assert counted(bank.sync(folder, namespace="a")) == (0, 0, 0, 0, 1)
    assert texts(bank) == {BOAT, CAKE}


def test_a_file_that_goes_while_it_is_looked_at_is_gone(
    bank: ExplicitBank, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank.sync(folder, namespace="a")
    (folder / "z.md").write_text(CAKE)

    def removes_what_comes_next(path: Path, max_bytes: int) -> bytes:
        for name in ("pump.md", "z.md"):
            (folder / name).unlink(missing_ok=True)
        return read_bytes(path, max_bytes)

    monkeypatch.setattr("trimem.explicit.sync.read_bytes", removes_what_comes_next)
    report = bank.sync(folder, namespace="a")
    assert report.removed == ((folder / "pump.md").as_posix(),)
    assert counted(report) == (0, 0, 1, 1, 0)
    assert texts(bank) == {BOAT}


def test_a_folder_that_is_gone_forgets_nothing(bank: ExplicitBank, folder: Path, tmp_path: Path) -> None:
    bank.sync(folder, namespace="a")
    folder.rename(tmp_path / "moved")
    with pytest.raises(InvalidInputError, match=f"no folder .*folder={folder.as_posix()}"):
        bank.sync(folder, namespace="a")
    with pytest.raises(InvalidInputError, match="no folder"):
        bank.sync(tmp_path / "moved" / "pump.md", namespace="a")
    with pytest.raises(InvalidNamespaceError):
        bank.sync(tmp_path / "moved", namespace="")
    assert texts(bank) == {PUMP, BOAT}
    assert len(bank.forget(namespace="a", where={"folder": folder.as_posix()}).slots) == 2, "as the error says"


def test_a_bank_inside_the_folder_does_not_read_itself(folder: Path, tiny_llama: LanguageModel) -> None:
    encoder = DeterministicFakeEmbedding(size=16)
    with ExplicitBank.open(folder / "bank", model=tiny_llama, encoder=encoder) as bank:
        for wanted in ((2, 0, 0, 0, 0), (0, 0, 0, 2, 0)):
            assert counted(bank.sync(folder, namespace="a")) == wanted


def test_names_that_are_no_utf8(bank: ExplicitBank, folder: Path) -> None:
    strange = os.fsdecode(os.fsencode(folder) + b"/caf\xe9.md")
    Path(strange).write_text(CAKE)
    assert bank.sync(folder, namespace="a").added[0] == f"{folder.as_posix()}/caf\\xe9.md"
    assert counted(bank.sync(folder, namespace="a")) == (0, 0, 0, 3, 0)
    Path(strange).unlink()
    assert bank.sync(folder, namespace="a").removed == (f"{folder.as_posix()}/caf\\xe9.md",)


def test_a_line_without_end_is_a_document_like_others(bank: ExplicitBank, folder: Path) -> None:
    (folder / "endless.txt").write_text("x7" * 20_000)
    assert len(bank.sync(folder, namespace="a").added) == 3
    assert bank.stats().tokens > 40_000


def numbered(folder: Path, version: int) -> None:
    """Write files of several references each, that all say of which version they are."""
    for name in ("one", "two"):
        lines = [f"Sentence {i} of {name} is of version {version}." for i in range(12)]
        temporary = folder / f".{name}"
        temporary.write_text("\n".join(lines))
        temporary.replace(folder / f"{name}.txt")


def test_a_reader_always_finds_one_version(open_bank: Open, tmp_path: Path) -> None:
    folder = tmp_path / "numbered"
    folder.mkdir()
    numbered(folder, 0)
    writer, reader = open_bank(), open_bank()
    writer.sync(folder, namespace="a")
    slots = writer.stats().slots
    assert slots > 4
    done = Event()

    def write() -> None:
        try:
            for version in range(1, 25):
                numbered(folder, version)
                assert len(writer.sync(folder, namespace="a").changed) == 2
        finally:
            done.set()

    thread = Thread(target=write)
    thread.start()
    seen: set[str] = set()
    asked = 0
    while not done.is_set():
        hits = reader.recall("Which version?", 99, namespace="a")
        for source in ("one.txt", "two.txt"):
            versions = {hit.text.split()[-1] for hit in hits if hit.source.endswith(source)}
            assert len(versions) == 1, f"{source} is of {versions}"
            seen |= versions
        assert len(hits) == slots, "and it is there as a whole"
        answer = reader.ask("Which version?", namespace="a", k=2, max_new_tokens=1)
        asked += len(answer.hits) == 2
    thread.join()
    assert len(seen) > 5
    assert asked > 5
    assert len(tensors(writer)) == slots


def test_what_is_replaced_during_a_search_is_found_as_it_was(
    open_bank: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "numbered"
    folder.mkdir()
    numbered(folder, 0)
    writer, reader = open_bank(), open_bank()
    writer.sync(folder, namespace="a")
    candidates = reader._store.reader.candidates

    def candidates_and_be_overtaken(*arguments: Any) -> Any:
        found = candidates(*arguments)
        numbered(folder, 1)
        writer.sync(folder, namespace="a")
        return found

    monkeypatch.setattr(reader._store.reader, "candidates", candidates_and_be_overtaken)
    overtaken = reader.recall("Which version?", 99, namespace="a")
    assert {hit.text.split()[-1] for hit in overtaken} == {"0."}
    monkeypatch.undo()
    with pytest.raises(SlotNotFoundError, match="does not hold"), reader.attach(hits=overtaken):
        pass
    assert {hit.text.split()[-1] for hit in reader.recall("Which version?", 99, namespace="a")} == {"1."}
    assert len(overtaken) == reader.stats().slots


def test_what_is_forgotten_while_it_is_compiled_leaves_no_tensors(
    open_bank: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    forgetter, reader = open_bank(), open_bank()
    forgetter.remember(PUMP, namespace="a", compile=False)
    hits = reader.recall("pump", namespace="a")
    compile_batch = reader.compiler.compile

    def compile_and_be_overtaken(*arguments: Any) -> Any:
        forgetter.forget(namespace="a")
        return compile_batch(*arguments)

    monkeypatch.setattr(reader.compiler, "compile", compile_and_be_overtaken)
    with pytest.raises(SlotNotFoundError), reader.attach(hits=hits):
        pass
    assert tensors(reader) == {}


def test_two_at_once_wait_for_one_another(open_bank: Open, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for i in range(30):
        (folder / f"{i}.txt").write_text(f"{PUMP} It is number {i}.")
    with ThreadPoolExecutor(4) as pool:
        banks = [open_bank() for _ in range(4)]
        reports = list(pool.map(lambda bank: bank.sync(folder, namespace="a"), banks))
    assert sorted(map(counted, reports)) == [(0, 0, 0, 30, 0)] * 3 + [(30, 0, 0, 0, 0)]
    assert banks[0].stats().documents == 30


CHILD = """
import sys
from langchain_core.embeddings import DeterministicFakeEmbedding
from tests import tiny
from trimem import ExplicitBank
bank = ExplicitBank.open(sys.argv[1], model=tiny.build("llama"), encoder=DeterministicFakeEmbedding(size=16))
print("ready", flush=True)
bank.sync(sys.argv[2], namespace="a")
"""


def test_a_killed_sync_loses_nothing_and_is_finished_by_the_next(open_bank: Open, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    wanted = {f"{i:03}.txt": [f"Sentence {j} of text {i}, which is the newest." for j in range(24)] for i in range(60)}
    for name, lines in wanted.items():
        (folder / name).write_text("\n".join(lines))
    bank = open_bank()
    bank.remember(PUMP, namespace="a")
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(bank.folder), str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    while bank.stats().documents < 4:
        assert child.poll() is None, "it was done before it was killed"
        time.sleep(0.002)
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()

    stored = bank.stats().documents
    assert 4 <= stored < 61
    made = tensors(bank)
    held = {hit.id for hit in bank.recall("text", 9999, namespace="a")}
    report = bank.sync(folder, namespace="a")
    assert len(report.unchanged) == stored - 1, "what was stored is not compiled again"
    assert len(report.added) == 61 - stored
    now = tensors(bank)
    assert all(now[slot].checksum == place.checksum for slot, place in made.items() if slot in held)
    hits = bank.recall("text", 9999, namespace="a")
    for name, lines in wanted.items():
        cut = sorted((hit for hit in hits if hit.source.endswith(name)), key=lambda hit: hit.slot.start)
        assert "\n".join(hit.text for hit in cut) == "\n".join(lines)
    assert len(tensors(bank)) == len(hits) == bank.stats().compiled, "no tensors are missing"
    assert not open_bank()._store.strays(), "and none are left over"
