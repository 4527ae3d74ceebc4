"""A beam finds what rounds do not, and passes off no guess as memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from tests.core.trimem.resonance.test_consensus import STORY, book
from trimem import LanguageModel
from trimem.resonance.beam import Beam, Block, Stretch, _apart, search
from trimem.resonance.code import Codebook
from trimem.resonance.consensus import BEAMS, code_evidence, reconstruct
from trimem.resonance.lexicon import Lexicon
from trimem.resonance.listing import Hypothesis, listed
from trimem.resonance.prior import LanguagePrior
from trimem.resonance.trajectory import encode
from trimem.resonance.units import split_units

UNITS = split_units(STORY)
ALL = 10_000  # candidates of a word


@pytest.fixture(scope="module")
def prior(smollm: LanguageModel, words: Lexicon) -> LanguagePrior:
    return LanguagePrior(smollm, words)


@pytest.fixture
def codes(words: Lexicon) -> Codebook:
    return book(words, dims=0, salt_bits=8, unigram_anchors=False)


def test_a_beam_settles_what_rounds_do_not(prior: LanguagePrior, codes: Codebook) -> None:
    trajectory = encode(UNITS, codes)
    in_rounds = reconstruct(trajectory, codes, prior, k=ALL, rounds=6, beams=())
    found = reconstruct(trajectory, codes, prior, k=ALL, beams=BEAMS[:1])
    assert in_rounds.flagged_blocks == (0, 1)
    assert found.verified
    assert found.text == STORY


def test_what_no_beam_settles_is_flagged_with_a_guess(prior: LanguagePrior, codes: Codebook) -> None:
    """The checksum is of another text: nothing passes, and the guess is of words that have the codes stored."""
    trajectory = encode(UNITS, codes)
    other = replace(trajectory, checks=trajectory.checks ^ np.uint32(1))
    found = [reconstruct(other, codes, prior, k=ALL, start=start, beams=BEAMS[:1]) for start in (64, 66)]
    assert [one.flagged_blocks for one in found] == [(2,), (2,)]
    assert codes.encode(found[0].units)[0].tolist() == trajectory.codes_at(64, len(UNITS)).tolist()
    # The same stretch is decoded to the same words, wherever in its first block it is asked from.
    assert found[1].units == found[0].units[2:]


def test_words_that_would_be_cut_as_one_are_known() -> None:
    assert _apart(" of", " the")
    assert _apart("", "fice")
    assert not _apart(" of", "fice")
    assert not _apart(",", ".")
    assert _apart(" said", ",")


def stretch(codes: Codebook, start: int, stop: int) -> Stretch:
    """Return a stretch of blocks of four words, the first word known."""
    blocks = []
    for low in range(start, stop, 4):
        evidence = code_evidence(encode(UNITS, codes), codes, low, low + 4, ALL)
        known = {0: UNITS[low]} if low == start else evidence.anchors
        blocks.append(Block(low // 4, evidence.candidates, evidence.likelihood, known))
    return Stretch(tuple(UNITS[:start]), blocks)


def test_stretches_side_by_side_are_decoded_as_each_by_itself(prior: LanguagePrior, codes: Codebook) -> None:
    stretches = [stretch(codes, 8, 16), stretch(codes, 40, 44), stretch(codes, 24, 36)]
    judged: list[int] = []

    def judge(number: int, hypotheses: Sequence[Hypothesis]) -> None:
        judged.append(number)
        assert len(hypotheses) <= 3
        assert [one.score for one in hypotheses] == sorted((one.score for one in hypotheses), reverse=True)

    def decoded(some: Sequence[Stretch]) -> list[tuple[str, ...]]:
        return search(prior, codes.lexicon.surfaces, some, Beam(3, 5.0), judge)

    together = decoded(stretches)
    assert judged == [2, 10, 6, 3, 7, 8]
    assert [len(units) for units in together] == [8, 4, 12]
    assert [units[0] for units in together] == [UNITS[8], UNITS[40], UNITS[24]]
    assert together == [decoded([one])[0] for one in stretches]


def test_what_the_judge_says_is_what_follows_reads(prior: LanguagePrior, codes: Codebook) -> None:
    """A block that is settled is context, whatever the beam held for likelier."""
    asked = stretch(codes, 40, 48)
    settled = (" the", " the", " the", " the")
    read: list[tuple[str, ...]] = []

    def judge(number: int, hypotheses: Sequence[Hypothesis]) -> tuple[str, ...] | None:
        read.extend(one.units for one in hypotheses)
        return settled if number == 10 else None

    (found,) = search(prior, codes.lexicon.surfaces, [asked], Beam(2, 5.0), judge)
    assert found[:4] == settled
    later = [units for units in read if len(units) == 48]
    assert later
    assert all(units[40:44] == settled for units in later)


def test_what_left_the_beam_is_listed(prior: LanguagePrior, codes: Codebook) -> None:
    """The list of a narrow beam goes far beyond its hypotheses, each only once and the likeliest first."""
    kept: list[Sequence[Hypothesis]] = []
    search(
        prior,
        codes.lexicon.surfaces,
        [stretch(codes, 40, 44)],
        Beam(2, 5.0),
        lambda _, hypotheses: kept.append(hypotheses),
    )
    (hypotheses,) = kept
    guesses = list(islice(listed(hypotheses, 4), 3000))
    assert guesses[0] == hypotheses[0].units[-4:]
    assert len(guesses) == len(set(guesses)) > 50
    assert tuple(UNITS[40:44]) in guesses
    stored = encode(UNITS, codes).codes_at(40, 44).tolist()
    assert all(codes.encode(units)[0].tolist() == stored for units in guesses[:100])


def test_hypotheses_and_their_swaps_come_by_score() -> None:
    hypotheses = [
        Hypothesis(("x", "a", "b"), -1.0, ((3.0, ((0, "c"),)), (0.5, ((1, "d"),)))),
        Hypothesis(("x", "a", "d"), -1.2, ((0.1, ((0, "e"),)),)),
    ]
    assert list(listed(hypotheses, 2)) == [("a", "b"), ("a", "d"), ("e", "d"), ("c", "b"), ("c", "d")]
