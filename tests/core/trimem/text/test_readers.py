"""Files become text; what cannot is reported and holds nothing else up."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest
from pypdf import PdfWriter
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

from trimem import FileTooLargeError, InvalidInputError, UnreadableFileError
from trimem.reports import Unreadable
from trimem.text.readers import SourceText, read_file, read_paths


def write_pdf(path: Path, text: str) -> None:
    """Write a PDF of one page that says ``text``."""
    writer = PdfWriter()
    page = writer.add_blank_page(300, 300)
    stream = DecodedStreamObject()
    stream.set_data(f"BT /F1 12 Tf 20 200 Td ({text}) Tj ET".encode())
    font = DictionaryObject(
        {
            NameObject("/Type"): NameObject("/Font"),
            NameObject("/Subtype"): NameObject("/Type1"),
            NameObject("/BaseFont"): NameObject("/Helvetica"),
        }
    )
    fonts = DictionaryObject({NameObject("/F1"): writer._add_object(font)})
    page[NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): fonts})
    page[NameObject("/Contents")] = writer._add_object(stream)
    with path.open("wb") as file:
        writer.write(file)


def test_a_folder_of_all_kinds(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "no.md").write_text("never read")
    (tmp_path / "a.md").write_text("# Title\n\nA *fact*.\n")
    (tmp_path / "b.txt").write_text("Grüße", encoding="utf-8-sig")
    (tmp_path / "deep" / "c.html").write_text(
        "<html><head><title>no</title><style>p{}</style></head><body><h1>Big</h1><p>It is <b>so</b>, "
        "<a href='x'>yes</a>.</p><script>no()</script></body></html>"
    )
    write_pdf(tmp_path / "d.pdf", "The pump is red.")
    (tmp_path / "e.bin").write_bytes(b"\0\1\2")
    (tmp_path / "f.md").write_bytes(b"caf\xe9 au lait")
    (tmp_path / "g.txt").write_text(" \n")
    (tmp_path / "h.pdf").write_bytes(b"%PDF-1.4 broken")
    read = list(read_paths([tmp_path]))
    texts = {Path(one.source).name: one.text for one in read if isinstance(one, SourceText)}
    assert texts == {
        "a.md": "# Title\n\nA *fact*.\n",
        "b.txt": "Grüße",
        "c.html": "# Big\n\nIt is **so**, yes.",
        "d.pdf": "The pump is red.",
    }
    failed = {Path(one.source).name: one for one in read if isinstance(one, Unreadable)}
    assert set(failed) == {"e.bin", "f.md", "g.txt", "h.pdf"}
    assert not failed["e.bin"].unexpected, "an unknown kind in a folder is passed over"
    assert all(failed[name].unexpected for name in ("f.md", "g.txt", "h.pdf"))
    assert "UTF-8" in failed["f.md"].reason


def test_a_file_that_is_named_should_be_readable(tmp_path: Path) -> None:
    binary = tmp_path / "x.bin"
    binary.write_bytes(b"\0")
    assert list(read_paths([binary])) == [Unreadable(binary.as_posix(), "is a binary file", unexpected=True)]


def test_order_is_that_of_names(tmp_path: Path) -> None:
    for name in ("b.md", "a.md", "c.md"):
        (tmp_path / name).write_text(name)
    assert [Path(one.source).name for one in read_paths([tmp_path])] == ["a.md", "b.md", "c.md"]


def test_a_path_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="no file or folder"):
        list(read_paths([tmp_path / "absent"]))


def test_a_file_that_cannot_be_opened_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFileError, match="cannot be opened: Is a directory"):
        read_file(tmp_path)


def test_code_without_a_known_ending_is_plain_text(tmp_path: Path) -> None:
    file = tmp_path / "Makefile"
    file.write_text("all:\n\ttrue\n")
    assert read_file(file) == "all:\n\ttrue\n"


def test_parsers_may_fail_in_any_way(tmp_path: Path) -> None:
    write_pdf(tmp_path / "whole.pdf", "The pump is red.")
    whole = (tmp_path / "whole.pdf").read_bytes()
    broken = {
        "filter.pdf": whole.replace(b"/Length", b"/Filter /Flat4Decode /Length", 1),
        "deep.html": b"<b>" * 20_000,
    }
    for name, data in broken.items():
        assert data != whole
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UnreadableFileError, match=r"readable PDF|nested too deeply"):
            read_file(tmp_path / name)


def test_what_a_database_does_not_keep_is_replaced(tmp_path: Path) -> None:
    write_pdf(tmp_path / "nul.pdf", r"It is \000 red.")
    assert "\0" not in read_file(tmp_path / "nul.pdf")
    assert "red." in read_file(tmp_path / "nul.pdf")


def test_text_of_two_bytes_a_letter_is_read_by_its_mark(tmp_path: Path) -> None:
    (tmp_path / "wide.txt").write_text("Grüße", encoding="utf-16")
    assert read_file(tmp_path / "wide.txt") == "Grüße"
    (tmp_path / "odd.txt").write_bytes(b"\xff\xfe\x00\xd8\x00")
    with pytest.raises(UnreadableFileError, match="binary"):
        read_file(tmp_path / "odd.txt")


def test_large_files_are_refused_before_they_are_read(tmp_path: Path) -> None:
    for name, head in (("large.txt", b"word " * 2000), ("film.mp4", b"\0\1\2")):
        (tmp_path / name).write_bytes(head)
        os.truncate(tmp_path / name, 10**12)  # no disk holds it; what is not written takes no room
    tracemalloc.start()
    with pytest.raises(FileTooLargeError, match=r"1,000,000.0 MB, and at most 16.0 MB are read.*max_bytes"):
        read_file(tmp_path / "large.txt")
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()
    with pytest.raises(UnreadableFileError, match="binary"):
        read_file(tmp_path / "film.mp4")
    (tmp_path / "small.txt").write_text("12345")
    assert read_file(tmp_path / "small.txt", max_bytes=5) == "12345"
    with pytest.raises(FileTooLargeError):
        read_file(tmp_path / "small.txt", max_bytes=4)
    assert [one.error for one in read_paths([tmp_path / "small.txt"], max_bytes=4) if isinstance(one, Unreadable)] == [
        "FileTooLargeError"
    ]


def test_a_file_that_changes_all_the_time_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log.txt"
    log.write_text("line\n" * 3000)
    fstat = os.fstat
    writes: list[int] = []

    def written_to(descriptor: int) -> os.stat_result:
        if len(writes) < most:
            writes.append(descriptor)
            with log.open("a") as file:
                file.write("line\n")
        return fstat(descriptor)

    monkeypatch.setattr("trimem.text.readers.os.fstat", written_to)
    most = 3
    assert read_file(log).count("line") == 3003, "it is read again until it holds still"
    writes.clear()
    most = 99
    with pytest.raises(UnreadableFileError, match="changes while it is read"):
        read_file(log)
