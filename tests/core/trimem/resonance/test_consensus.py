"""Signal and prior decide together, and nothing that fails its checksum is passed off as memory."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from trimem import ContextLengthError, FingerprintMismatch, InvalidInputError, LanguageModel
from trimem.resonance import consensus
from trimem.resonance.code import Codebook, CodeConfig
from trimem.resonance.consensus import (
    Evidence,
    _Decoder,
    code_evidence,
    phase_evidence,
    phase_likelihood,
    reconstruct,
)
from trimem.resonance.guide import TrajectoryGuide
from trimem.resonance.lexicon import Lexicon
from trimem.resonance.listing import combinations
from trimem.resonance.prior import NOTHING, LanguagePrior, UnigramPrior, Window
from trimem.resonance.torus import TURN
from trimem.resonance.trajectory import Trajectory, encode
from trimem.resonance.units import split_units

STORY = (
    "The old man lived in a small house near the sea. Every morning he walked down to the water and sat there for an "
    "hour, and then he went home to make some tea. One day he found a letter at his door, and when he read it he knew "
    "that his son would come back to the house by the end of the year."
)


class Told:
    """A prior that knows the text."""

    name = "told"

    def __init__(self, lexicon: Lexicon, units: Sequence[str]) -> None:
        self._right = {lexicon.index[unit] for unit in units if unit in lexicon.index}

    def score(self, windows: Sequence[Window]) -> list[NDArray[np.float64]]:
        return [np.where(np.isin(w.candidates, list(self._right)), 0.0, -9.0) for w in windows]


def book(words: Lexicon, **options: int | bool) -> Codebook:
    return Codebook(words, CodeConfig(**options))  # type: ignore[arg-type]


def test_frequency_decodes_what_was_made_for_it(codebook: Codebook) -> None:
    text = STORY + " See https://example.org 💡 \ud800"
    found = reconstruct(encode(text, codebook), codebook)
    assert found.text == text
    assert found.verified
    assert found.verified_blocks == tuple(range(-(-len(found.units) // 32)))


def test_a_stretch_is_decoded_by_itself(codebook: Codebook) -> None:
    units = split_units(STORY)
    trajectory = encode(units, codebook)
    found = reconstruct(trajectory, codebook, start=30, stop=40)
    assert found.units == tuple(units[30:40])
    assert found.text == "".join(units[30:40])
    assert (found.start, found.verified_blocks) == (30, (0, 1))
    assert reconstruct(trajectory, codebook, start=5, stop=5).text == ""
    with pytest.raises(InvalidInputError, match="a span lies between"):
        reconstruct(trajectory, codebook, start=5, stop=len(units) + 1)


@settings(deadline=None, max_examples=25)
@given(text=st.text(st.characters(exclude_categories=()), max_size=60), bits=st.integers(1, 12))
def test_what_is_wrong_is_flagged(text: str, bits: int, words: Lexicon) -> None:
    codes = book(words, dims=0, salt_bits=bits, block=4, unigram_anchors=False)
    text = text + STORY[: 5 * len(text)]
    units = split_units(text)
    found = reconstruct(encode(text, codes), codes, tries=20)
    wrong = {i // 4 for i, unit in enumerate(found.units) if unit != units[i]}
    assert wrong <= set(found.flagged_blocks)
    assert sorted(found.verified_blocks + found.flagged_blocks) == list(range(-(-len(units) // 4)))


def test_segments_follow_one_another(codebook: Codebook, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Window] = []

    class Watching(UnigramPrior):
        def score(self, windows: Sequence[Window]) -> list[NDArray[np.float64]]:
            seen.extend(windows)
            return super().score(windows)

    units = split_units(STORY * 4)
    damaged = replace(trajectory := encode(units, codebook), checks=trajectory.checks ^ np.uint32(1))
    monkeypatch.setattr(consensus, "SEGMENT", 64)
    found = reconstruct(damaged, codebook, Watching(codebook.lexicon), start=3, tries=1, rounds=1)
    assert found.units == tuple(units[3:])
    assert found.flagged_blocks == tuple(range(trajectory.blocks))
    assert [window.first for window in seen] == [0, *[64] * (len(seen) - 1)]
    assert [list(window.units) for window in seen] == [
        units[max(0, start - 64) : start + 64] for start in range(0, len(units), 64)
    ]


def test_a_damaged_code_is_flagged_where_it_is(codebook: Codebook) -> None:
    trajectory = encode(STORY, codebook)
    codes = trajectory.codes.copy()
    codes[40 * 20 // 8] ^= 0xFF
    found = reconstruct(replace(trajectory, codes=codes), codebook, tries=50)
    assert found.flagged_blocks == (1,)
    assert found.units[:32] == tuple(split_units(STORY)[:32])


def test_a_prior_decides_what_codes_leave_open(words: Lexicon) -> None:
    codes = book(words, dims=0, salt_bits=8, unigram_anchors=False)
    units = split_units(STORY)
    trajectory = encode(units, codes)
    alone = reconstruct(trajectory, codes, tries=1)
    assert alone.flagged_blocks
    told = reconstruct(trajectory, codes, Told(words, units))
    assert told.text == STORY
    assert told.verified


def test_the_checksum_finds_the_right_combination(words: Lexicon) -> None:
    """Two words of a block are second best; one try is too few, some hundred are not."""
    units = split_units(STORY)[:32]
    codes = book(words)
    trajectory = encode(units, codes)
    right = np.array([words.index.get(unit, NOTHING) for unit in units])
    anchors = {i: unit for i, unit in enumerate(units) if unit not in words.index}
    others = np.array([words.index[" sea"], words.index[" door"], words.index[" year"]])
    candidates = np.column_stack([right, *(np.full(32, other) for other in others)])
    likelihood = np.tile([0.0, -1.0, -2.0, -3.0], (32, 1))
    for i in (7, 20):
        likelihood[i] = [-1.0, 0.0, -2.0, -3.0]

    class Even:
        name = "even"

        def score(self, windows: Sequence[Window]) -> list[NDArray[np.float64]]:
            return [np.zeros(window.candidates.shape) for window in windows]

    for tries, settled in ((1, False), (2000, True)):
        decoder = _Decoder(Evidence(candidates, likelihood, anchors), words.surfaces, trajectory.checks.tolist(), 32)
        decoder.renew([0], Even(), tries)
        assert (decoder.units == units) is settled
        assert decoder.doubtful == ([] if settled else [0])


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 9), st.integers(0, 4)), max_size=7))
def test_combinations_come_by_loss_each_once(swaps: list[tuple[float, int]]) -> None:
    by_name = {str(i): swap for i, swap in enumerate(swaps)}
    losses, found = zip(*combinations([(loss, ((at, name),)) for name, (loss, at) in by_name.items()]), strict=True)
    assert losses == pytest.approx([sum(by_name[name][0] for _, name in chosen) for chosen in found])
    assert list(losses) == pytest.approx(sorted(losses))
    expected = {
        frozenset(chosen)
        for size in range(len(by_name) + 1)
        for chosen in itertools.combinations(by_name, size)
        if len({by_name[name][1] for name in chosen}) == size
    }
    sets = [frozenset(name for _, name in chosen) for chosen in found]
    assert len(sets) == len(set(sets))
    assert set(sets) == expected


def test_one_word_with_many_swaps_is_soon_through() -> None:
    assert len(list(combinations([(1.0, ((0, str(i)),)) for i in range(60)]))) == 61


def test_another_lexicon_or_configuration_is_refused(codebook: Codebook, words: Lexicon) -> None:
    trajectory = encode(STORY, codebook)
    smaller = Lexicon(words.speak, words.entries[:2000])
    for other in (Codebook(smaller, codebook.config), book(words, salt_bits=5)):
        with pytest.raises(FingerprintMismatch, match="decode it with what it was made with"):
            code_evidence(trajectory, other, 0, 3)


def test_the_nearest_word_is_the_likeliest(codebook: Codebook) -> None:
    entry = codebook.lexicon.owner[codebook.lexicon.index[" water"]]
    exact = codebook.phases[entry : entry + 1].float() / TURN
    shifted = (exact + 0.01) % 1.0
    likely = phase_likelihood(shifted, codebook, 0.1)
    assert int(likely.argmax()) == entry
    assert float(likely[0, entry]) == pytest.approx(-16 * 0.01**2 / (2 * 0.1**2), rel=1e-3)
    evidence = phase_evidence(shifted, codebook, 0.1, k=3)
    named = {codebook.lexicon.surfaces[i] for i in evidence.candidates[0] if i != NOTHING}
    assert {" water", "Water", " WATER"} <= named
    assert len({codebook.lexicon.owner[codebook.lexicon.index[surface]] for surface in named}) == 3
    assert (evidence.likelihood[0][evidence.candidates[0] == NOTHING] == -np.inf).all()


def test_unigram_prior_is_the_frequency(words: Lexicon) -> None:
    (scores,) = UnigramPrior(words).score([Window(["a", "b"], 1, np.array([[0, 5, NOTHING]]))])
    assert scores.tolist() == [[words.log_prior[0], words.log_prior[5], -math.inf]]


def test_a_model_scores_what_it_would_say_next(smollm: LanguageModel, words: Lexicon) -> None:
    units = split_units("The capital of France is Paris")
    names = [" Paris", " London", " the"]
    candidates = np.array([[words.index[name] for name in names] + [NOTHING]])
    prior = LanguagePrior(smollm, words)
    window = Window(units, len(units) - 1, candidates)
    (scores,) = prior.score([window])
    ids = [prior._start, *smollm.tokenize("The capital of France is")]
    with torch.no_grad():
        logits = smollm.model(torch.tensor([ids])).logits[0, -1].float().log_softmax(-1)
    firsts = [smollm.tokenize(name)[0] for name in names]
    _, share = prior._first_tokens
    expected = [float(logits[token]) + share[words.index[name]] for token, name in zip(firsts, names, strict=True)]
    assert scores[0, :3].tolist() == pytest.approx(expected, abs=1e-3)
    assert scores[0, 3] == -math.inf
    assert scores[0, 0] > scores[0, 1]
    # In a batch with a longer window it scores the same.
    longer = Window(split_units(STORY), 3, np.tile(candidates, (len(split_units(STORY)) - 3, 1)))
    assert prior.score([longer, window])[1] == pytest.approx(scores, abs=1e-3)


def test_shares_of_a_first_token_sum_to_one(smollm: LanguageModel, words: Lexicon) -> None:
    first, share = LanguagePrior(smollm, words)._first_tokens
    total = np.bincount(first[:-1], weights=np.exp(share[:-1]))
    assert total[np.unique(first[:-1])] == pytest.approx(1)


def test_a_language_model_hears_what_frequency_does_not(smollm: LanguageModel, words: Lexicon) -> None:
    codes = book(words, dims=0, salt_bits=9, unigram_anchors=False)
    units = split_units(STORY)
    trajectory = encode(units, codes)

    def right(prior: LanguagePrior | None) -> int:
        found = reconstruct(trajectory, codes, prior, tries=1, rounds=4)
        return sum(one == other for one, other in zip(found.units, units, strict=True))

    assert right(LanguagePrior(smollm, words)) >= right(None) + 3


def test_windows_that_do_not_fit_are_refused(tiny_llama: LanguageModel, words: Lexicon) -> None:
    with pytest.raises(ContextLengthError, match="use smaller ones"):
        LanguagePrior(tiny_llama, words).score([Window(["a"] * 600, 599, np.array([[0]]))])


class TestGuide:
    @pytest.fixture
    def trajectory(self, codebook: Codebook) -> Trajectory:
        return encode("She told them about Reichenbach, there.", codebook)

    def guide(self, trajectory: Trajectory, codebook: Codebook, lm: LanguageModel, **options: float) -> TrajectoryGuide:
        return TrajectoryGuide(trajectory, codebook, lm.tokenize, prompt_tokens=4, end=2, **options)  # type: ignore[arg-type]

    def test_a_model_says_what_is_stored(
        self, trajectory: Trajectory, codebook: Codebook, smollm: LanguageModel
    ) -> None:
        ids = torch.tensor([smollm.tokenize("Once upon a time")])
        guide = self.guide(trajectory, codebook, smollm)
        out = smollm.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=30, do_sample=False, logits_processor=[guide],
            eos_token_id=2, pad_token_id=2,
        )  # fmt: skip
        said = out[0, ids.shape[1] :].tolist()
        assert said[-1] == 2
        assert smollm.tokenizer.decode(said[:-1]) == "She told them about Reichenbach, there."

    def test_only_what_may_follow_is_allowed(
        self, trajectory: Trajectory, codebook: Codebook, smollm: LanguageModel
    ) -> None:
        guide = self.guide(trajectory, codebook, smollm)
        first = smollm.tokenize("She")
        assert first[0] in guide.allowed([])
        assert smollm.tokenize(" told")[0] in guide.allowed(first)
        whole = [
            token for unit in split_units("She told them about Reichenbach, there.") for token in smollm.tokenize(unit)
        ]
        assert 2 in guide.allowed(whole)
        assert guide.allowed([*first, smollm.tokenize(" zebra")[0]]) == set()

    def test_a_weak_guide_only_leans(self, trajectory: Trajectory, codebook: Codebook, smollm: LanguageModel) -> None:
        scores = torch.zeros(1, len(smollm.tokenizer))
        ids = torch.tensor([[5, 5, 5, 5]])
        hard = self.guide(trajectory, codebook, smollm)(ids, scores)
        soft = self.guide(trajectory, codebook, smollm, strength=3.0)(ids, scores)
        assert (scores == 0).all()  # what was given is left alone
        assert torch.equal(hard == 0, soft == 0)
        assert set(soft.unique().tolist()) == {-3.0, 0.0}
        assert torch.isneginf(hard[hard != 0]).all()
        lost = torch.tensor([[5, 5, 5, 5, 9, 9]])
        assert torch.equal(self.guide(trajectory, codebook, smollm)(lost, scores), scores)

    def test_wrong_arguments_are_refused(
        self, trajectory: Trajectory, codebook: Codebook, smollm: LanguageModel
    ) -> None:
        with pytest.raises(InvalidInputError, match="strength"):
            self.guide(trajectory, codebook, smollm, strength=0.0)
