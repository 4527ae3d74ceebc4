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
        self._splitter = MarkdownSplitter.from_callback(length, capacity)

    def __call__(self, text: str) -> list[Chunk]:
        """Return the chunks of ``text`` in order; none where there is nothing but white space."""
        return [
            Chunk(stretch, start, start + len(stretch), text.count("\n", 0, start) + 1)
            for start, stretch in self._splitter.chunk_indices(text)
        ]
