"""Files on their way into memory: Markdown, plain text, HTML (as Markdown) and PDF become text with a source."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from trimem.errors import InvalidInputError, UnreadableFileError

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class SourceText:
    """The text of one file.

    Attributes:
        source: The file's path as it was given, with ``/`` between its parts.
        text: Its text; offsets of what is remembered refer to this.
    """

    source: str
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A file that gave no text.

    Attributes:
        source: The file's path as it was given.
        reason: Why, in a phrase.
        unexpected: Whether it should have been readable, by its name or because it was named itself.
    """

    source: str
    reason: str
    unexpected: bool


def read_paths(paths: Iterable[str | Path]) -> Iterator[SourceText | Unreadable]:
    """Read files, and folders with all below them but hidden ones, in the order of their names.

    What cannot be read is reported in its place and nothing else is held up by it.

    Raises:
        InvalidInputError: A path does not exist.
    """
    for path in map(Path, paths):
        if not path.exists():
            raise InvalidInputError(f"there is no file or folder {path}")
        for file in _files(path):
            try:
                yield SourceText(file.as_posix(), read_file(file))
            except UnreadableFileError as error:
                known = file.suffix.lower() in _READERS
                yield Unreadable(file.as_posix(), str(error), unexpected=known or file == path)


def read_file(path: Path) -> str:
    """Return the text of a file; of which kind it is goes by its ending, all others are plain text.

    Raises:
        UnreadableFileError: It is binary, damaged, empty, or not to be opened.
    """
    try:
        text = _READERS.get(path.suffix.lower(), _read_plain)(path)
    except OSError as error:
        raise UnreadableFileError(f"cannot be opened: {error.strerror or error}") from error
    if not text.strip():
        raise UnreadableFileError("holds no text")
    return text


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = (file for file in path.rglob("*") if file.is_file())
    return sorted(file for file in files if not any(part.startswith(".") for part in file.relative_to(path).parts))


def _read_plain(path: Path) -> str:
    data = path.read_bytes()
    if b"\0" in data:
        raise UnreadableFileError("is a binary file")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnreadableFileError(
            f"is not text in UTF-8 (byte {error.start}): convert it, or give its text to remember()"
        ) from error


def _read_html(path: Path) -> str:
    from bs4 import BeautifulSoup
    from markdownify import MarkdownConverter

    soup = BeautifulSoup(path.read_bytes(), "html.parser")  # finds the encoding by itself
    for hidden in soup(["head", "script", "style", "template", "noscript"]):
        hidden.decompose()
    markdown: str = MarkdownConverter(heading_style="ATX", strip=["a", "img"]).convert_soup(soup)
    return markdown.strip()


def _read_pdf(path: Path) -> str:
    from pypdf import PdfReader
    from pypdf.errors import PyPdfError

    try:
        return "\n\n".join(page.extract_text() for page in PdfReader(path).pages)
    except (PyPdfError, ValueError, KeyError) as error:
        raise UnreadableFileError(f"is no readable PDF: {error}") from error


_READERS: dict[str, Callable[[Path], str]] = {
    ".md": _read_plain,
    ".markdown": _read_plain,
    ".txt": _read_plain,
    ".html": _read_html,
    ".htm": _read_html,
    ".pdf": _read_pdf,
}
