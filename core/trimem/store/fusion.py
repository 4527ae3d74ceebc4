"""How well a text answers a query, from five sides, and all of them in one number. Pure functions.

A few dozen candidates are judged here, each side from 0 to 1:

* ``words``: BM25 of all words of the query, against the best candidate's;
* ``together``: how much of the query, by rarity, stands within :data:`WINDOW` characters, against the best's;
* ``meaning``: cosine of the slot's vector and the query's;
* ``sentence``: cosine of the best of its sentences, which a long text does not dilute;
* ``around``: cosine of the better of the two slots remembered before and after it.

The score is their weighted mean.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import local

import numpy as np
import Stemmer
from numpy.typing import NDArray

K1, B = 1.2, 0.75
"""BM25's saturation and its share of length (Robertson and Zaragoza, 2009)."""

WINDOW = 72
"""Characters, about a dozen words."""

REREAD = 0.5
"""How much reading counts, where a candidate is read."""

REREAD_NATS = 0.5
"""By how many nats a token a query must be less likely to count e times less."""

_START = 2  # letters of a word that no stemmer changes
_local = local()

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Weights:
    """How much each side counts; see the module."""

    words: float = 0.26
    together: float = 0.11
    meaning: float = 0.24
    sentence: float = 0.24
    around: float = 0.15


@dataclass(frozen=True, slots=True)
class Sides:
    """How well candidates answer a query, each side an array of (candidates,)."""

    words: Floats
    together: Floats
    meaning: Floats
    sentence: Floats
    around: Floats


def fuse(sides: Sides, weights: Weights) -> Floats:
    """Return the scores of (candidates,), from 0 to 1."""
    total = (
        weights.words * _of_best(sides.words)
        + weights.together * _of_best(sides.together)
        + weights.meaning * sides.meaning.clip(0, 1)
        + weights.sentence * sides.sentence.clip(0, 1)
        + weights.around * sides.around.clip(0, 1)
    )
    scores: Floats = total / (
        weights.words + weights.together + weights.meaning + weights.sentence + weights.around
    )
    return scores


def reread(scores: Sequence[float], likelihoods: Sequence[float]) -> list[float]:
    """Return scores that count how likely reading made the query: ``(1 - w) * score + w * exp((l - best l) / t)``.

    Args:
        scores: From 0 to 1, best first.
        likelihoods: Log-likelihoods of the query, in nats a token, of the first of them; those that were
            not read count as not made likely at all.
    """
    best = max(likelihoods)
    read = [math.exp((each - best) / REREAD_NATS) for each in likelihoods]
    read += [0.0] * (len(scores) - len(read))
    return [(1 - REREAD) * score + REREAD * share for score, share in zip(scores, read, strict=True)]


class QueryWords:
    """The words of a query, found in texts in any form that the Porter stemmer takes for the same.

    Args:
        rarity: By word, how much it tells (its inverse document frequency).
    """

    def __init__(self, rarity: Mapping[str, float]) -> None:
        self._rarity: dict[str, float] = {}
        for word, value in rarity.items():
            self._rarity.setdefault(_stem(_plain(word)), value)
        starts = "|".join(sorted({re.escape(stem[:_START]) for stem in self._rarity}))
        self._pattern = re.compile(rf"\b(?:{starts})\w*") if starts else None
        self._known: dict[str, str] = {}  # stems of what has been met

    def find(self, text: str) -> list[tuple[int, str]]:
        """Return where in a text, in characters, which words of the query stand."""
        if self._pattern is None:
            return []
        found = []
        for match in self._pattern.finditer(_plain(text)):
            word = match.group()
            stem = self._known.get(word)
            if stem is None:
                stem = self._known[word] = _stem(word)
            if stem in self._rarity:
                found.append((match.start(), stem))
        return found

    def words(self, found: Sequence[Sequence[tuple[int, str]]], lengths: Sequence[int]) -> Floats:
        """Return the BM25 of texts.

        Args:
            found: Of each, what :meth:`find` found.
            lengths: Of each, in characters; they are compared with their mean.
        """
        mean = max(float(np.mean(lengths)), 1.0) if lengths else 1.0
        scores = np.zeros(len(found), np.float32)
        for i, places in enumerate(found):
            counts: dict[str, int] = {}
            for _, stem in places:
                counts[stem] = counts.get(stem, 0) + 1
            damped = K1 * (1 - B + B * lengths[i] / mean)
            scores[i] = sum(self._rarity[stem] * n * (K1 + 1) / (n + damped) for stem, n in counts.items())
        return scores

    def together(self, found: Sequence[Sequence[tuple[int, str]]], window: int = WINDOW) -> Floats:
        """Return the greatest rarity, summed over different words, that begins in one window of each text.

        Args:
            found: Of each, what :meth:`find` found.
            window: In characters.
        """
        return np.array([self._together(places, window) for places in found], np.float32)

    def _together(self, places: Sequence[tuple[int, str]], window: int) -> float:
        best, inside, total, first = 0.0, dict[str, int](), 0.0, 0
        for place, stem in places:
            if not inside.get(stem):
                total += self._rarity[stem]
            inside[stem] = inside.get(stem, 0) + 1
            while place - places[first][0] >= window:
                left = places[first][1]
                inside[left] -= 1
                if not inside[left]:
                    total -= self._rarity[left]
                first += 1
            best = max(best, total)
        return best


def best_sentences(query: Floats, whole: Floats, sentences: Sequence[Floats | None]) -> Floats:
    """Return the cosine of the best sentence of each text, or of the whole where it is but one.

    Args:
        query: (dim,).
        whole: (texts,), the cosine of each text.
        sentences: (sentences, dim) of each text, or None.
    """
    several = [i for i, one in enumerate(sentences) if one is not None]
    best = whole.copy()
    if several:
        matrices = [one for one in sentences if one is not None]
        starts = np.cumsum([0, *(len(one) for one in matrices[:-1])])
        best[several] = np.maximum.reduceat(np.concatenate(matrices) @ query, starts)
    return best


def _of_best(values: Floats) -> Floats:
    best = float(values.max(initial=0.0))
    shares: Floats = values / best if best > 0 else np.zeros_like(values)
    return shares


def _plain(text: str) -> str:
    """Return a text in lower case without diacritics, as the full-text index reads it."""
    lower = text.lower()
    if lower.isascii():
        return lower
    return "".join(each for each in unicodedata.normalize("NFKD", lower) if not unicodedata.combining(each))


def _stem(word: str) -> str:
    stemmer = getattr(_local, "stemmer", None)
    if stemmer is None:  # one may not be used by two threads at once
        stemmer = _local.stemmer = Stemmer.Stemmer("porter")
    stem: str = stemmer.stemWord(word)
    return stem
