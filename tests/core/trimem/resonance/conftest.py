"""What the tests of resonance memory share: a small English lexicon and its codes, and a short conversation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.calls import SMALL, TURNS
from trimem import ResonanceBank
from trimem.resonance.code import Codebook, CodeConfig
from trimem.resonance.lexicon import Lexicon, lexicon
from trimem.resonance.phonemes import EnglishPhonemizer
from trimem.text.encoders import Encoder


@pytest.fixture(scope="session")
def english() -> EnglishPhonemizer:
    return EnglishPhonemizer()


@pytest.fixture(scope="session")
def words(english: EnglishPhonemizer) -> Lexicon:
    return lexicon(english, words=6000)


@pytest.fixture(scope="session")
def codebook(words: Lexicon) -> Codebook:
    return Codebook(words, CodeConfig())


@pytest.fixture
def calls(tmp_path: Path, encoder: Encoder) -> Iterator[ResonanceBank]:
    """A bank with a short conversation under ``acme``."""
    with ResonanceBank.open(tmp_path / "calls", encoder=encoder, config=SMALL) as bank:
        bank.remember(TURNS, namespace="acme")
        yield bank
