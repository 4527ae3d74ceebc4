"""Files on their way into memory: Markdown, plain text, HTML (as Markdown) and PDF become text with a source."""

from __future__ import annotations

import codecs
import io
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from trimem.checks import is_folder
from trimem.errors import FileTooLargeError, InvalidInputError, UnreadableFileError
from trimem.reports import Unreadable
from trimem.text.folders import list_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_BYTES = 16_000_000
"""The largest file that is read, unless another limit is given: five times War and Peace."""

_SNIFFED = 8192  # bytes that tell a binary file
_TRIES = 3  # to read a file that is being written

_BOMS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")  # what parsers let through and a database does not keep


@dataclass(frozen=True, slots=True)
class SourceText:
    """The text of one file.

    Attributes:
        source: The file's path as it was given, with ``/`` between its parts.
        text: Its text; offsets of what is remembered refer to this.
    """

    source: str
    text: str = field(repr=False)


def read_paths(paths: Iterable[str | Path], *, max_bytes: int = MAX_BYTES) -> Iterator[SourceText | Unreadable]:
    """Read files, and folders with all below them but hidden ones, in the order of their names.

    What cannot be read is reported in its place and nothing else is held up by it.

    Args:
        paths: Files and folders.
        max_bytes: The largest file to read.

    Raises:
        InvalidInputError: A path does not exist.
    """
    for path in map(Path, paths):
        folder = is_folder(path)
        if folder is None:
            raise InvalidInputError(f"there is no file or folder {path}")
        if not folder:
            yield _read(path, max_bytes, named=True)
            continue
        listing = list_folder(path)
        yield from not_listed(listing.links, listing.closed)
        for file in listing.files:
            yield _read(file, max_bytes)


def read_file(path: Path, *, max_bytes: int = MAX_BYTES) -> str:
    """Return the text of a file; of which kind it is goes by its ending, all others are plain text.

    Args:
        path: The file.
        max_bytes: The largest file to read.

    Raises:
        FileTooLargeError: It is larger.
        UnreadableFileError: It is binary, damaged, empty, or not to be opened.
    """
    text = to_text(path, read_bytes(path, max_bytes))
    if not text.strip():
        raise UnreadableFileError("holds no text")
    return text


def read_bytes(path: Path, max_bytes: int) -> bytes:
    """Return what is in a file at one moment; of what cannot be read, little is loaded.

    Raises:
        FileTooLargeError: It is larger than ``max_bytes``.
        UnreadableFileError: It is not to be opened, or changes all the time, or is binary by its beginning.
    """
    try:
        for _ in range(_TRIES):
            with path.open("rb") as file:
                before = os.fstat(file.fileno())
                data = file.read(min(_SNIFFED, max_bytes + 1))
                if _reader(path) is _read_plain and b"\0" in data and not data.startswith(tuple(_BOMS)):
                    raise UnreadableFileError("is a binary file")
                if before.st_size <= max_bytes:
                    data += file.read(max_bytes + 1 - len(data))
                if max(before.st_size, len(data)) > max_bytes:
                    raise FileTooLargeError(
                        f"is {max(before.st_size, len(data)) / 1e6:,.1f} MB, and at most {max_bytes / 1e6:,.1f} MB are "
                        "read: cut it into smaller files, or raise the limit by max_bytes (--max-mb)"
                    )
                after = os.fstat(file.fileno())
            if (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns):
                return data
        raise UnreadableFileError("changes while it is read")
    except OSError as error:
        raise UnreadableFileError(f"cannot be opened: {error.strerror or error}") from error


def to_text(path: Path, data: bytes) -> str:
    """Return the text that the bytes of a file hold, which may be empty.

    Raises:
        UnreadableFileError: They are binary or damaged.
    """
    return _UNSTORABLE.sub("\ufffd", _reader(path)(data))


def unreadable(path: Path, error: UnreadableFileError, *, named: bool = False) -> Unreadable:
    """Return the report on a file that could not be read.

    Args:
        path: As it was given.
        error: Why.
        named: Whether it was named itself, and not found in a folder.
    """
    return Unreadable(source(path), str(error), named or path.suffix.lower() in _READERS, type(error).__name__)


def not_listed(links: dict[Path, str], closed: dict[Path, str]) -> Iterator[Unreadable]:
    """Return the reports on what was found in a folder and not looked into."""
    for path, reason in links.items():
        yield Unreadable(source(path), reason, path.suffix.lower() in _READERS)
    for path, reason in closed.items():
        yield Unreadable(source(path), reason, unexpected=True)


def source(path: Path) -> str:
    """Return what a path is called: with ``/`` between its parts, and in UTF-8 even if it is not."""
    return os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace")


def _read(path: Path, max_bytes: int, *, named: bool = False) -> SourceText | Unreadable:
    try:
        return SourceText(source(path), read_file(path, max_bytes=max_bytes))
    except UnreadableFileError as error:
        return unreadable(path, error, named=named)


def _reader(path: Path) -> Callable[[bytes], str]:
    return _READERS.get(path.suffix.lower(), _read_plain)


def _read_plain(data: bytes) -> str:
    encoding = next((name for bom, name in _BOMS.items() if data.startswith(bom)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        if b"\0" in data:
            raise UnreadableFileError("is a binary file") from error
        raise UnreadableFileError(
            f"is not text in UTF-8 (byte {error.start}): convert it, or give its text to remember()"
        ) from error
    if "\0" in text:
        raise UnreadableFileError("is a binary file")
    return text


def _read_html(data: bytes) -> str:
    from bs4 import BeautifulSoup
    from markdownify import MarkdownConverter

    try:
        soup = BeautifulSoup(data, "html.parser")  # finds the encoding by itself
        for hidden in soup(["head", "script", "style", "template", "noscript"]):
            hidden.decompose()
        markdown: str = MarkdownConverter(heading_style="ATX", strip=["a", "img"]).convert_soup(soup)
    except RecursionError as error:
        raise UnreadableFileError("is HTML that is nested too deeply to be read") from error
    except Exception as error:
        raise UnreadableFileError(f"is no readable HTML: {error}") from error
    return markdown.strip()


def _read_pdf(data: bytes) -> str:
    from pypdf import PdfReader

    try:
        return "\n\n".join(page.extract_text() for page in PdfReader(io.BytesIO(data)).pages)
    except Exception as error:  # a damaged file fails anywhere, in any way
        raise UnreadableFileError(f"is no readable PDF: {error}") from error


_READERS: dict[str, Callable[[bytes], str]] = {
    ".md": _read_plain,
    ".markdown": _read_plain,
    ".txt": _read_plain,
    ".html": _read_html,
    ".htm": _read_html,
    ".pdf": _read_pdf,
}
