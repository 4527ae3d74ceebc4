"""Chunks stay within their capacity, on sentence borders, and tell where they stood."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimem.text.chunking import Chunker

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
