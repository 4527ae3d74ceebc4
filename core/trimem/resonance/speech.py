"""Texts and what was heard on their way to trajectories and back, with the lexicon a bank was made with."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache

import numpy as np

from trimem.resonance.code import Codebook, CodeConfig, join
from trimem.resonance.config import ResonanceConfig
from trimem.resonance.consensus import Evidence, Reconstruction, decode, reconstruct
from trimem.resonance.heard import Heard
from trimem.resonance.lexicon import Lexicon, lexicon
from trimem.resonance.phonemes import Phonemes, Phonemizer, phonemizer
from trimem.resonance.prior import Prior, UnigramPrior
from trimem.resonance.torus import quantise, word_phases
from trimem.resonance.trajectory import Trajectory, encode, encode_codes
from trimem.resonance.units import split_units, spoken_form
from trimem.resonance.vocabulary import LONGEST_WORD, Vocabulary

ALIKE = 64
"""Words of the lexicon that a heard word is compared with, by trigrams and by phases each."""


class Speech:
    """One language as a bank speaks, hears and writes it. What it takes is loaded when it is first needed.

    Args:
        config: Of the bank.
    """

    def __init__(self, config: ResonanceConfig) -> None:
        self.config = config
        self._spoken: dict[str, Phonemes] = {}

    @cached_property
    def phonemizer(self) -> Phonemizer:
        return _phonemizer(self.config.language)

    @property
    def lexicon(self) -> Lexicon:
        return _lexicon(self.config.language, self.config.lexicon_words)

    @property
    def codebook(self) -> Codebook:
        return _codebook(self.config.language, self.config.lexicon_words, self.config.code)

    def speak(self, units: Sequence[str]) -> list[Phonemes]:
        """Return the phonemes of each unit of a text; none for signs."""
        forms = [spoken_form(unit) for unit in units]
        missing = list({form: None for form in forms if form not in self._spoken})
        if missing:
            self._spoken.update(zip(missing, self.phonemizer(missing), strict=True))
        return [self._spoken[form] for form in forms]

    def encode(self, text: str) -> Trajectory:
        """Turn a text into its trajectory."""
        return encode(text, self.codebook)

    def encode_heard(self, heard: Heard) -> Trajectory:
        """Turn what was heard into a trajectory of sounds alone; its salt and checks mean nothing."""
        config = self.config.code
        phases = word_phases(heard.phonemes, config.gain)
        codes = join(quantise(phases, config.bits), np.zeros(len(phases), dtype=np.int64), config)
        return encode_codes(codes, config, self.lexicon.identity)

    def decode(
        self, trajectory: Trajectory, prior: Prior | None = None, start: int = 0, stop: int | None = None
    ) -> Reconstruction:
        """Decode a trajectory, or a stretch of it."""
        return reconstruct(trajectory, self.codebook, prior, start=start, stop=stop)

    def understand(
        self, heard: Heard, prior: Prior | None = None, start: int = 0, stop: int | None = None
    ) -> Reconstruction:
        """Return the words that were most likely heard; all of it is a guess, and flagged.

        A word's evidence counts as much as the recogniser is sure of it.
        """
        block = self.config.code.block
        stop = len(heard.words) if stop is None else stop
        units = decode(self._evidence(heard), self.lexicon, prior, block)
        units[0] = units[0].lstrip()
        said = tuple(units[start:stop])
        flagged = tuple(range(start // block, -(-stop // block))) if stop > start else ()
        return Reconstruction("".join(said), said, start, (), flagged)

    def _evidence(self, heard: Heard) -> Evidence:
        vocabulary, surfaces = _heard_words(self.config.language, self.config.lexicon_words)
        query = [word[:LONGEST_WORD] for word in heard.phonemes]
        alike = min(ALIKE, len(vocabulary))
        near = (vocabulary.points(query) @ vocabulary.phasors.T).topk(alike, dim=1).indices
        shared = vocabulary.shared(query).topk(alike, dim=1).indices
        # A word that both ways find stands twice; the one that is chosen is the same.
        chosen = np.concatenate([near.numpy(), shared.numpy()], axis=1)
        likely = vocabulary.likelihood(query, near.new_tensor(chosen)).numpy().astype(np.float64)
        sure = np.array(heard.confidences)[:, None]
        return Evidence(surfaces[chosen], likely * sure, {})

    @cached_property
    def unigram(self) -> UnigramPrior:
        """Words by their frequency."""
        return UnigramPrior(self.lexicon)

    def units(self, text: str) -> list[str]:
        """Cut a text into the units that a trajectory counts."""
        return split_units(text)


@lru_cache(maxsize=8)
def _phonemizer(language: str) -> Phonemizer:
    return phonemizer(language)


@lru_cache(maxsize=2)
def _lexicon(language: str, words: int) -> Lexicon:
    return lexicon(_phonemizer(language), words)


@lru_cache(maxsize=2)
def _codebook(language: str, words: int, config: CodeConfig) -> Codebook:
    return Codebook(_lexicon(language, words), config)


@lru_cache(maxsize=2)
def _heard_words(language: str, words: int) -> tuple[Vocabulary, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Return the words of a lexicon by sound, and the surface that each is written as inside a sentence."""
    held = _lexicon(language, words)
    spoken = [entry for entry in held.entries if entry.phonemes]
    vocabulary = Vocabulary()
    vocabulary.extend([entry.phonemes for entry in spoken])
    return vocabulary, np.array([held.index[f" {entry.form}"] for entry in spoken], dtype=np.int64)
