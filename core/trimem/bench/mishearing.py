"""Queries as they are misheard, for the benchmark of resonance search. Nothing here knows how the search works."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

from rapidfuzz import process
from rapidfuzz.distance import Levenshtein

from trimem.resonance.phonemes import Phonemes, distances

NEAREST = 4
RATE = 0.2
"""Share of phonemes that are inserted or dropped."""

Mishear = Callable[[Sequence[Phonemes]], list[Phonemes]]


class Mishearing:
    """Ways to mishear the words of a language.

    Args:
        vocabulary: Phonemes of words a recogniser may write.
        seed: Of all choices.
    """

    def __init__(self, vocabulary: Sequence[Phonemes], seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - a draw, no secret
        self._inventory = sorted({phoneme for word in vocabulary for phoneme in word})
        apart = distances(self._inventory, self._inventory)
        self._near = {
            phoneme: [self._inventory[j] for j in apart[i].argsort(kind="stable") if j != i][:NEAREST]
            for i, phoneme in enumerate(self._inventory)
        }
        self._vocabulary = list(dict.fromkeys(vocabulary))
        self._written: dict[Phonemes, list[Phonemes]] = {}

    @property
    def kinds(self) -> Mapping[str, Mishear]:
        """Each way with its name."""
        return {
            "exact": list,
            "changed": lambda words: [self.changed(word) for word in words],
            "inserted_or_dropped": lambda words: [self.inserted_or_dropped(word) for word in words],
            "other_words": self.other_words,
        }

    def changed(self, word: Phonemes) -> Phonemes:
        """Hear one phoneme of a word as one of the four that are formed most alike."""
        at = self._random.randrange(len(word))
        return (*word[:at], self._random.choice(self._near[word[at]]), *word[at + 1 :])

    def inserted_or_dropped(self, word: Phonemes) -> Phonemes:
        """Miss each phoneme, or hear one after it that was not there, one time in five together."""
        heard: list[str] = []
        for phoneme in word:
            draw = self._random.random()
            if draw >= RATE / 2:
                heard.append(phoneme)
            if RATE / 2 <= draw < RATE:
                heard.append(self._random.choice(self._inventory))
        return tuple(heard) or word

    def other_words(self, words: Sequence[Phonemes]) -> list[Phonemes]:
        """Write every other word, on average, as another word of the vocabulary that sounds nearly the same."""
        return [self._random.choice(self.alike(word)) if self._random.random() < 0.5 else word for word in words]

    def alike(self, word: Phonemes) -> list[Phonemes]:
        """Return the words of the vocabulary that a recogniser may write for one, nearest first."""
        if word not in self._written:
            best = process.extract(word, self._vocabulary, scorer=Levenshtein.distance, limit=NEAREST + 1)
            self._written[word] = [found for found, _, _ in best if found != word][:NEAREST]
        return self._written[word]
