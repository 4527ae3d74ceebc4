"""Cutting a text into chunks that a model can take in one piece, on sentence borders."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from semantic_text_splitter import MarkdownSplitter

LONGEST = 65_536
"""Most characters that the splitter is given at once: its time grows with their square."""

LONGEST_RUN = 2048
"""Most of them that may have no white space: there it is much slower."""

_RUN = re.compile(rf"\S{{{LONGEST_RUN}}}")
_BORDERS = (
    ("\n#",),
    ("\n\n",),
    ("\n",),
    (". ", "! ", "? ", "\u3002", "\uff01", "\uff1f"),
    (" ",),
    (",", ";", ".", "\uff0c", "\u3001", "\uff1b"),
)
"""Where a very long text is cut beforehand, each after its first character: the best comes first."""


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
    Markdown without headings. Time is linear in the text, whatever it is made of: very long texts, and
    shorter ones without white space, are cut beforehand, at a border where there is one.

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
        chunks: list[Chunk] = []
        translated, line, counted = text.translate(curly), 1, 0
        for begin, end in _segments(text):
            for offset, stretch in splitter.chunk_indices(translated[begin:end]):
                start = begin + offset
                stop = start + len(stretch)
                line, counted = line + text.count("\n", counted, start), start
                chunks.append(Chunk(text[start:stop], start, stop, line))
        return chunks


def _segments(text: str) -> Iterator[tuple[int, int]]:
    """Return begin and end of each part of a text that is short enough for the splitter."""
    begin = 0
    while (limit := _limit(text, begin)) < len(text):
        half = (begin + limit) // 2
        at = (max(text.rfind(mark, half, limit) for mark in marks) for marks in _BORDERS)
        end = next((border + 1 for border in at if border >= 0), limit)
        yield begin, end
        begin = end
    yield begin, len(text)


def _limit(text: str, begin: int) -> int:
    limit = min(begin + LONGEST, len(text))
    run = _RUN.search(text, begin, limit)
    return limit if run is None else min(limit, run.end())


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
