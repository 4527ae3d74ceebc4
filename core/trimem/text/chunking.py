"""Cutting a text into chunks that a model can take in one piece, on sentence borders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from semantic_text_splitter import MarkdownSplitter


@dataclass(frozen=True, slots=True)
class Chunk:
    """A stretch of a text.

    Attributes:
        text: The stretch, without white space around it.
        start: Offset of its first character in the whole text.
        stop: Offset just past its last character.
        line: Number of the line it starts on, from 1.
    """

    text: str
    start: int
    stop: int
    line: int


class Chunker:
    """Cuts texts into chunks as long as they may be.

    Cuts fall between sections, else between paragraphs, else between sentences, and inside a sentence
    only where one alone is too long. Markdown headings stay with what they head; plain text is
    Markdown without headings.

    Args:
        length: Tells how much of the capacity a stretch of text takes.
        capacity: The most that one chunk may take.
    """

    def __init__(self, length: Callable[[str], int], capacity: int) -> None:
        self._length = length
        self._capacity = capacity

    def __call__(self, text: str) -> list[Chunk]:
        """Return the chunks of ``text`` in order; none where there is nothing but white space."""
        curly = _curly(text)
        straight = {ord(to): quote for quote, to in curly.items()}
        splitter = MarkdownSplitter.from_callback(
            lambda stretch: self._length(stretch.translate(straight)), self._capacity
        )
        return [
            Chunk(text[start : start + len(stretch)], start, start + len(stretch), text.count("\n", 0, start) + 1)
            for start, stretch in splitter.chunk_indices(text.translate(curly))
        ]


def _curly(text: str) -> dict[int, str]:
    """Return what straight quotes are replaced by while a text is cut.

    The splitter takes them for Markdown that changes the style, where it cuts rather than between
    sentences: "do|n't". Each is replaced by one character that the text has nowhere else.
    """
    taken = {"'": "\u2019\u02bc\u2032", '"': "\u201d\u201f\u2033"}
    return {
        ord(quote): free
        for quote, choices in taken.items()
        if (free := next((choice for choice in choices if choice not in text), None)) is not None
    }
