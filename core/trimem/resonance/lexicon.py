"""The words a decoder can write, how common each is, and how it sounds.

Frequencies are wordfreq's. A trajectory is decoded with the lexicon it was made with; every other text is an
anchor.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from trimem.errors import InvalidInputError, MissingDependencyError
from trimem.resonance.phonemes import Phonemes, Phonemizer
from trimem.resonance.units import split_units

WORDS = 65_536

_CASES = {"lower": 0.80, "capital": 0.17, "upper": 0.03}
_GLUES = {" ": 0.9, "": 0.1}
_SIGN_GLUES = {"": 0.5, " ": 0.5}
_SIGNS = {
    ",": 0.05, ".": 0.045, '"': 0.008, "'": 0.004, "-": 0.004, "?": 0.004, "!": 0.003, ":": 0.002, ";": 0.002,
    "(": 0.003, ")": 0.003, "—": 0.001, "–": 0.001, "“": 0.003, "”": 0.003, "...": 0.001, "…": 0.001, "/": 0.0005,
    "$": 0.0005, "%": 0.0005, "&": 0.0005, "*": 0.0002, "[": 0.0002, "]": 0.0002,
    ",\"": 0.0005, ".\"": 0.0005, "@,@": 1e-5, "@-@": 1e-5, "@.@": 1e-5, "==": 1e-5, "=": 1e-4,
    "。": 0.02, "，": 0.04, "、": 0.004, "？": 0.002, "！": 0.002, "：": 0.001, "《": 0.001, "》": 0.001,
    "<unk>": 1e-4,
}  # fmt: skip
_BREAKS = {"\n": 0.01, "\n\n": 0.005, " \n": 0.001, " \n \n": 0.001, " \n \n \n": 1e-4}
_NUMBERS = 2100  # those below are in the lexicon, years included
_NUMBER = 1e-3  # the share of 1; of n it is n times less, down to that of a year


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """A word of a lexicon as it is spoken.

    Attributes:
        form: Lower case, without white space.
        phonemes: Empty for signs.
        frequency: Share of all words.
    """

    form: str
    phonemes: Phonemes
    frequency: float


@dataclass(frozen=True, eq=False)
class Lexicon:
    """The most common words of a language with all surfaces they are decoded to.

    A surface is a word as it stands in a text: with its case and the space before it.

    Attributes:
        speak: What spoke the words.
        entries: The words, most common first, and signs.
    """

    speak: Phonemizer
    entries: Sequence[Entry] = field(repr=False)

    @cached_property
    def surfaces(self) -> list[str]:
        """Every surface once, in a fixed order."""
        return self._tables[0]

    @cached_property
    def owner(self) -> NDArray[np.int64]:
        """The entry of each surface, (surfaces,)."""
        return self._tables[1]

    @cached_property
    def log_prior(self) -> NDArray[np.float64]:
        """Log-probability of each surface by itself, in nats, (surfaces,)."""
        return self._tables[2]

    @cached_property
    def index(self) -> dict[str, int]:
        """Number of a surface."""
        return {surface: i for i, surface in enumerate(self.surfaces)}

    @cached_property
    def surfaces_of(self) -> NDArray[np.int64]:
        """The surfaces of each entry, (entries, most surfaces), -1 where it has fewer."""
        order = np.argsort(self.owner, kind="stable")
        counts = np.bincount(self.owner, minlength=len(self.entries))
        place = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
        table = np.full((len(self.entries), int(counts.max())), -1)
        table[self.owner[order], place] = order
        return table

    @cached_property
    def identity(self) -> str:
        """Changes whenever a surface, its sound or its order by frequency does."""
        digest = hashlib.blake2b(self.speak.identity.encode(), digest_size=12)
        for entry in self.entries:
            digest.update(f"\n{entry.form} {' '.join(entry.phonemes)} {entry.frequency:.3e}".encode())
        return digest.hexdigest()

    @cached_property
    def _tables(self) -> tuple[list[str], NDArray[np.int64], NDArray[np.float64]]:
        best: dict[str, tuple[int, float]] = {}
        for i, entry in enumerate(self.entries):
            for surface, share in _variants(entry.form).items():
                prior = math.log(entry.frequency * share)
                if surface not in best or best[surface][1] < prior:
                    best[surface] = (i, prior)
        owner = np.array([i for i, _ in best.values()], dtype=np.int64)
        return list(best), owner, np.array([prior for _, prior in best.values()])


def lexicon(speak: Phonemizer, words: int = WORDS) -> Lexicon:
    """Return the most common words of a language that can be spoken, with signs and small numbers.

    Args:
        speak: Of the language.
        words: Most words.

    Raises:
        InvalidInputError: ``words`` is below 1, or wordfreq does not have the language.
        MissingDependencyError: wordfreq is not installed.

    Cost: seconds, for 65,536 words.
    """
    if words < 1:
        raise InvalidInputError(f"a lexicon has at least 1 word, got words={words!r}")
    counts = _frequencies(speak.language)
    ranked = sorted(counts, key=lambda form: (-counts[form], form))[: 2 * words]
    spoken = zip(ranked, speak(ranked), strict=True)
    entries = [Entry(form, phonemes, counts[form]) for form, phonemes in spoken if phonemes][:words]
    held = {entry.form for entry in entries}
    entries += [Entry(sign, (), share) for sign, share in (_SIGNS | _BREAKS).items() if sign not in held]
    numbers = [str(number) for number in range(_NUMBERS) if str(number) not in held]
    entries += [
        Entry(number, phonemes, _NUMBER / min(max(int(number), 1), 100))
        for number, phonemes in zip(numbers, speak(numbers), strict=True)
    ]
    return Lexicon(speak, entries)


def _frequencies(language: str) -> dict[str, float]:
    """Return the frequencies of units: what wordfreq counts as a word may be several."""
    try:
        import wordfreq
    except ImportError as error:
        raise MissingDependencyError(
            'resonance memory needs the package wordfreq, which is not installed: pip install "trimem[resonance]"'
        ) from error
    if language not in wordfreq.available_languages("small"):
        raise InvalidInputError(
            f"wordfreq has no words of {language!r}; it has {', '.join(sorted(wordfreq.available_languages('small')))}"
        )
    counts: dict[str, float] = defaultdict(float)
    for word, frequency in wordfreq.get_frequency_dict(language, "best").items():
        if not any(map(str.isdigit, word)):  # wordfreq counts all numbers of a length as one
            for unit in split_units(word):
                counts[unit.strip()] += frequency
    return counts


def _variants(form: str) -> dict[str, float]:
    """Return the surfaces of a word with the share of each."""
    if form.isspace():
        return {form: 1.0}
    if not any(map(str.isalpha, form)):
        return {glue + form: share for glue, share in _SIGN_GLUES.items()}
    cased: dict[str, float] = {}
    for text, share in zip((form, form[:1].upper() + form[1:], form.upper()), _CASES.values(), strict=True):
        cased[text] = cased.get(text, 0.0) + share
    return {glue + text: a * b for text, a in cased.items() for glue, b in _GLUES.items()}
