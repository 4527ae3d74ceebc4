"""Where a long question is cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trimem import Hit, LanguageModel
from trimem.explicit.pieces import found_by_each, starts


@given(st.integers(1, 500), st.integers(1, 100))
def test_pieces_are_whole_but_for_the_first(length: int, size: int) -> None:
    begin = starts(length, size)
    sizes = [stop - start for start, stop in zip(begin, [*begin[1:], length], strict=True)]
    assert sum(sizes) == length
    assert all(each == size for each in sizes[1:])
    assert 0 < sizes[0] <= size


@given(st.integers(1, 500))
def test_without_a_size_there_is_one(length: int) -> None:
    assert starts(length, None) == [0]


def test_a_short_first_piece_looks_for_as_many_words_as_the_others(tiny_llama: LanguageModel) -> None:
    asked: list[str] = []

    def find(words: str) -> list[Hit]:
        asked.append(words)
        return []

    prompt = tiny_llama.tokenize("one two three four five six")
    begin = starts(len(prompt), len(prompt) - 2)
    found_by_each(tiny_llama, "one two three four five six", prompt, begin, find)
    assert begin == [0, 2]
    said = [tiny_llama.tokenizer.decode(prompt[:-2]), tiny_llama.tokenizer.decode(prompt[2:])]
    assert asked == said
