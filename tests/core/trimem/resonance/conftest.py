"""What the tests of resonance memory share: a small English lexicon and its codes."""

from __future__ import annotations

import pytest

from trimem.resonance.code import Codebook, CodeConfig
from trimem.resonance.lexicon import Lexicon, lexicon
from trimem.resonance.phonemes import EnglishPhonemizer


@pytest.fixture(scope="session")
def english() -> EnglishPhonemizer:
    return EnglishPhonemizer()


@pytest.fixture(scope="session")
def words(english: EnglishPhonemizer) -> Lexicon:
    return lexicon(english, words=6000)


@pytest.fixture(scope="session")
def codebook(words: Lexicon) -> Codebook:
    return Codebook(words, CodeConfig())
