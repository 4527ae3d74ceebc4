"""Sentences are cut where they end, and nothing of a text is lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trimem.text.sentences import SHORTEST, sentences


def test_sentences_end_where_they_end() -> None:
    text = (
        'The pump runs at nine bar. "Does the boat leave on Tuesday?" It leaves in the morning!\n'
        "The cake needs eleven eggs."
    )
    assert sentences(text) == [
        "The pump runs at nine bar.",
        '"Does the boat leave on Tuesday?"',
        "It leaves in the morning!",
        "The cake needs eleven eggs.",
    ]
    # Two sentences of Chinese, which leaves no space between them.
    chinese = "\u6c34\u6cf5\u8fd0\u884c" * 7 + "\u3002", "\u90a3\u8258\u8239" * 9 + "\u3002"
    assert sentences("".join(chinese)) == list(chinese)


def test_short_sentences_stand_with_others() -> None:
    assert sentences("Yes. No. The grey boat leaves the harbour.") == ["Yes. No. The grey boat leaves the harbour."]
    assert sentences("The grey boat leaves the harbour. Yes.") == ["The grey boat leaves the harbour. Yes."]
    assert sentences("Yes.") == ["Yes."]
    assert sentences(" \n ") == []


@given(st.text(st.sampled_from("ab. \n!?"), max_size=200))
def test_no_letter_is_lost_and_none_is_too_short(text: str) -> None:
    cut = sentences(text)
    assert "".join("".join(cut).split()) == "".join(text.split())
    assert all(len(sentence) >= SHORTEST for sentence in cut) or len(cut) == 1
