"""Chunks stay within their capacity, on sentence borders, and tell where they stood."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimem.text.chunking import LONGEST, Chunker

WORDS = Chunker(lambda text: len(text.split()), 12)


@settings(max_examples=100, deadline=None)
@given(st.text(st.sampled_from("ab .\n#-é字"), max_size=300))
def test_chunks_are_stretches_in_order_that_hold_everything(text: str) -> None:
    chunks = WORDS(text)
    end = 0
    for chunk in chunks:
        assert text[chunk.start : chunk.stop] == chunk.text
        assert chunk.line == text[: chunk.start].count("\n") + 1
        assert not text[end : chunk.start].strip(), "nothing but white space lies between chunks"
        assert len(chunk.text.split()) <= 12
        end = chunk.stop
    assert not text[end:].strip()


def test_sentences_stay_whole_where_they_fit() -> None:
    text = "One two three four five. Six seven eight nine ten. Eleven twelve thirteen fourteen fifteen."
    assert [chunk.text for chunk in WORDS(text)] == [
        "One two three four five. Six seven eight nine ten.",
        "Eleven twelve thirteen fourteen fifteen.",
    ]


def test_headings_go_with_what_they_head() -> None:
    text = "# Travel\n\nA ticket costs five crowns a week.\n\n## Boats\n\nA boat costs nine crowns a day, or ten.\n"
    assert [chunk.text.split("\n")[0] for chunk in WORDS(text)] == ["# Travel", "## Boats"]


def test_a_sentence_that_is_too_long_is_cut() -> None:
    chunks = WORDS(" ".join(["word"] * 40))
    assert [len(chunk.text.split()) for chunk in chunks] == [12, 12, 12, 4]


def test_white_space_has_no_chunks() -> None:
    assert WORDS(" \n\t ") == []


@pytest.mark.parametrize("quote", ["'", '"'])
def test_quotes_are_no_place_to_cut(quote: str) -> None:
    text = (
        f"They keep quiet \u2019here\u2019. I don{quote}t know what they{quote}re doing and you can{quote}t let it be."
    )
    chunks = Chunker(len, len(text) - 8)(text)
    assert [chunk.text for chunk in chunks] == [text[: text.index(" I don")], text[text.index("I don") :]]
    assert all(text[chunk.start : chunk.stop] == chunk.text for chunk in chunks)


@pytest.mark.parametrize(
    ("piece", "pieces"),
    [("a", 8_000), ("字", 4_000), ("_a", 4_000), ("a\u0301", 4_000), ("a\n", 40_000), ("be ", 30_000)],
)
def test_a_text_without_end_takes_linear_time(piece: str, pieces: int) -> None:
    chunker = Chunker(len, 100)

    def seconds(times: int) -> float:
        text = piece * times
        started = time.process_time()
        chunks = chunker(text)
        assert sum(len(chunk.text.split()) for chunk in chunks) >= len(text.split())
        assert max(len(chunk.text) for chunk in chunks) <= 100
        return time.process_time() - started

    short = min(seconds(pieces) for _ in range(3))
    assert seconds(16 * pieces) < 60 * short, "16 times as long is 256 times as slow where time is quadratic"


def test_nothing_is_lost_where_a_very_long_text_is_cut() -> None:
    text = "\n\n".join(f"# Part {i}\n\nSentence {i} of it. " + "ab, c " * (i % 90) for i in range(900))
    chunks = Chunker(len, 300)(text)
    assert len(text) > 2 * LONGEST
    end = 0
    for chunk in chunks:
        assert text[chunk.start : chunk.stop] == chunk.text
        assert chunk.line == text[: chunk.start].count("\n") + 1
        assert not text[end : chunk.start].strip(), "nothing but white space lies between chunks"
        end = chunk.stop
    assert not text[end:].strip()
    assert sum(chunk.text.startswith("# Part") for chunk in chunks) > 600


def test_a_run_is_cut_where_it_pauses() -> None:
    clause = "字" * 49 + "。"
    text = f"# Title\n\nBefore it. {clause * 100} And after."
    chunks = Chunker(len, 60)(text)
    assert [chunk.text for chunk in chunks if "字" in chunk.text] == [clause] * 100
