"""How many tokens of each hit are read."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from trimem import Hit, Slot
from trimem.explicit.density import GRADES, Density, by_rank, tokens_per_hit


def hits(*scores: float) -> list[Hit]:
    slot = Slot("s", ("a",), "d", "text", 0, 4, 1, 1, {}, datetime.now(UTC))
    return [Hit(slot, score) for score in scores]


@pytest.mark.parametrize(
    ("density", "tokens"),
    [
        ("dense", [None, None, None]),
        ((64,), [64, 64, 64]),
        ([128, 8], [128, 8, 8]),
        ((128, 32, 16, 8), [128, 32, 16]),
    ],
)
def test_tokens_go_by_rank(density: Density, tokens: list[int | None]) -> None:
    assert tokens_per_hit(hits(0.9, 0.5, 0.1), density) == tokens


def test_mixed_goes_by_how_far_behind_the_best() -> None:
    assert tokens_per_hit(hits(0.9, 0.89, 0.88), "mixed") == [None] * 3, "search is sure of all"
    falling = [int(tokens or 128) for tokens in tokens_per_hit(hits(0.9, 0.55, 0.4, 0.05), "mixed")]
    assert falling == sorted(falling, reverse=True)
    assert falling[0] == 128
    assert falling[-1] == GRADES[-1][1]
    assert tokens_per_hit(hits(0.0, -0.2), "mixed") == [None, None], "scores that say nothing decide nothing"
    assert tokens_per_hit([], "mixed") == []


def test_what_is_given_is_one_for_all_or_by_rank() -> None:
    assert by_rank(0.5, 3) == [0.5, 0.5, 0.5]
    assert by_rank((1.0, 0.0), 3) == [1.0, 0.0, 0.0]
    assert by_rank((1.0, 0.0), 0) == []
