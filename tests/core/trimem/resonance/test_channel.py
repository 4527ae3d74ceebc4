"""Alignment is the best way to hear one word where another was said, checked against all ways."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trimem.resonance.channel import Channel, align, align_inside

SOUNDS = ["p", "b", "a", "i", "s"]
word = st.lists(st.sampled_from(range(len(SOUNDS))), min_size=1, max_size=5)


def best(
    pairs: torch.Tensor, heard: list[int], spoken: list[int], spurious: float, dropped: float, inside: bool
) -> float:
    """The same by its definition, one phoneme after the other."""

    @cache
    def upto(i: int, j: int) -> float:
        if i == 0:
            return 0.0 if inside else j * dropped
        ways = [upto(i - 1, j) + spurious]
        if j:
            ways += [upto(i, j - 1) + dropped, upto(i - 1, j - 1) + float(pairs[heard[i - 1], spoken[j - 1]])]
        return max(ways)

    return max(upto(len(heard), j) for j in range(len(spoken) + 1)) if inside else upto(len(heard), len(spoken))


CHANNEL = Channel()
PAIRS = CHANNEL.heard(SOUNDS, SOUNDS)
COSTS = {"spurious": CHANNEL.spurious(len(SOUNDS)), "dropped": math.log(CHANNEL.dropped)}


@settings(deadline=None)
@given(st.lists(st.tuples(word, word), min_size=1, max_size=4))
def test_alignment_is_the_best_of_all(batch: list[tuple[list[int], list[int]]]) -> None:
    rows, columns = (max(len(pair[side]) for pair in batch) for side in (0, 1))
    table = torch.zeros(len(batch), rows, columns)
    for b, (heard, spoken) in enumerate(batch):
        table[b, : len(heard), : len(spoken)] = PAIRS[heard][:, spoken]
    heard_lengths, spoken_lengths = (torch.tensor([len(pair[side]) for pair in batch]) for side in (0, 1))
    found = align(table, heard_lengths, spoken_lengths, **COSTS)
    expected = [best(PAIRS, heard, spoken, **COSTS, inside=False) for heard, spoken in batch]
    assert found.tolist() == pytest.approx(expected, abs=1e-3)


@settings(deadline=None)
@given(word, st.lists(word, min_size=1, max_size=4))
def test_a_phrase_is_heard_inside_where_it_is_most_likely(heard: list[int], texts: list[list[int]]) -> None:
    table = torch.zeros(len(texts), len(heard), max(map(len, texts)))
    for b, spoken in enumerate(texts):
        table[b, :, : len(spoken)] = PAIRS[heard][:, spoken]
    likely, begin = align_inside(table, torch.tensor([len(spoken) for spoken in texts]), **COSTS)
    expected = [best(PAIRS, heard, spoken, **COSTS, inside=True) for spoken in texts]
    assert likely.tolist() == pytest.approx(expected, abs=1e-3)
    for spoken, start, value in zip(texts, begin.tolist(), expected, strict=True):
        # What is said from there on, up to some end, is as likely as the whole.
        ends = [best(PAIRS, heard, spoken[start:end], **COSTS, inside=False) for end in range(start, len(spoken) + 1)]
        assert max(ends) == pytest.approx(value, abs=1e-3)


def test_a_listener_hears_like_sounds() -> None:
    likely = Channel().heard(SOUNDS, SOUNDS)
    assert likely[0, 0] > likely[1, 0] > likely[2, 0]  # p said: p heard, then b, then a
    assert (likely.exp().sum(0) < 1).all()  # the rest is what is not heard
    assert Channel().heard([], SOUNDS).shape == (0, 5)
