"""Files become text; what cannot is reported and holds nothing else up."""

from __future__ import annotations

from pathlib import Path

import pytest
from pypdf import PdfWriter
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

from trimem import InvalidInputError, UnreadableFileError
from trimem.text.readers import SourceText, Unreadable, read_file, read_paths


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
