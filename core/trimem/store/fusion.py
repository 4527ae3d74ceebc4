"""How well texts answer a query, seen from six sides, and all of them in one number. Pure functions.

A few dozen candidates are judged:

* ``words``: BM25 of all words of the query, as a share of the best candidate's;
* ``together``: how much of the query, by rarity, stands within :data:`WINDOW` characters, as a share of the
  best's;
* ``meaning``: cosine of the slot's vector and the query's;
* ``sentence``: cosine of the best of its sentences, which a long text does not dilute;
* ``passage``: cosine of the slot together with the slots beside it in its document;
* ``around``: cosine of a slot of another document remembered right before or after, if the two are alike.

Words and vectors are two witnesses, and which of them to believe differs by corpus and by query: where one
person talks about everything, all vectors are near one another; where nobody says what they are asked in the
same words, words mislead. A softmax tells how sure each is of one candidate, so their mixture follows the one
that is sure::

    l = log softmax(words_sure . (words, together))        over the candidates
    d = log softmax(vectors_sure . (meaning, sentence))
    s = log(exp l + exp d) + weights . (words, together, meaning, sentence, passage, around)

``s`` is in nats: candidates that differ by 1 differ e times in how likely they are the one that is meant.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import local

import numpy as np
import Stemmer  # type: ignore[import-not-found]
from numpy.typing import NDArray

K1, B = 1.2, 0.75
"""BM25's saturation and its share of length (Robertson and Zaragoza, 2009)."""

WINDOW = 72
"""Characters, about a dozen words."""

REREAD = 0.5
"""How much reading counts, where a candidate is read."""

REREAD_NATS = 0.5
"""By how many nats a token a query must be less likely to count e times less."""

_LEXICAL = 0.3
_NATS = 10.0
_ACCENTS = re.compile("[\u0300-\u036f]+")
_local = local()

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Weights:
    """What counts how much, in nats; see the module.

    Attributes:
        words_sure: Of words and together, where words testify alone.
        vectors_sure: Of meaning and sentence, where vectors testify alone.
        words, together, meaning, sentence, passage, around: Of each side by itself.
    """

    words_sure: tuple[float, float] = (3.0, 3.1)
    vectors_sure: tuple[float, float] = (5.1, 5.5)
    words: float = 0.5
    together: float = 1.4
    meaning: float = 4.8
    sentence: float = 1.9
    passage: float = 3.0
    around: float = 1.5


@dataclass(frozen=True, slots=True)
class Sides:
    """How well candidates answer a query, each side an array of (candidates,)."""

    words: Floats
    together: Floats
    meaning: Floats
    sentence: Floats
    passage: Floats
    around: Floats


def fuse(sides: Sides, weights: Weights) -> Floats:
    """Return how much speaks for each candidate, (candidates,) in nats; only differences mean anything."""
    words, together = _of_best(sides.words), _of_best(sides.together)
    said = _log_softmax(weights.words_sure[0] * words + weights.words_sure[1] * together)
    meant = _log_softmax(weights.vectors_sure[0] * sides.meaning + weights.vectors_sure[1] * sides.sentence)
    total: Floats = (
        np.logaddexp(said, meant)
        + weights.words * words
        + weights.together * together
        + weights.meaning * sides.meaning
        + weights.sentence * sides.sentence
        + weights.passage * sides.passage
        + weights.around * sides.around
    )
    return total


def scores(sides: Sides, nats: Floats) -> Floats:
    """Return scores from 0 to 1, (candidates,), in the order of the nats.

    The best candidate's is ``0.3 * words + 0.7 * max(meaning, sentence)``, how well it would answer if there
    were no others; what is n nats behind has ``exp(-n / 10)`` of it.
    """
    if not len(nats):
        return nats
    best = int(nats.argmax())
    near = min(max(float(sides.meaning[best]), float(sides.sentence[best]), 0.0), 1.0)
    alone = _LEXICAL * float(_of_best(sides.words)[best]) + (1 - _LEXICAL) * near
    each: Floats = alone * np.exp((nats - nats[best]) / _NATS)
    return each


def alike(similarity: float) -> float:
    """Return how much a slot's neighbour in another document counts, from 0 to 1, by their cosine."""
    return min(max((similarity - 0.2) / 0.4, 0.0), 1.0)


def reread(given: Sequence[float], likelihoods: Sequence[float]) -> list[float]:
    """Return scores that count how likely reading made the query: ``(1 - w) * score + w * exp((l - best l) / t)``.

    Args:
        given: Scores from 0 to 1, best first.
        likelihoods: Log-likelihoods of the query, in nats a token, of the first of them; those that were
            not read count as not made likely at all.
    """
    best = max(likelihoods)
    read = [math.exp((each - best) / REREAD_NATS) for each in likelihoods]
    read += [0.0] * (len(given) - len(read))
    return [(1 - REREAD) * score + REREAD * share for score, share in zip(given, read, strict=True)]


class QueryWords:
    """The words of a query, found in texts in any form that the Porter stemmer takes for the same.

    Args:
        rarity: By word, how much it tells (its inverse document frequency).
    """

    def __init__(self, rarity: Mapping[str, float]) -> None:
        self._rarity: dict[str, float] = {}
        for word, value in rarity.items():
            self._rarity.setdefault(_stem(_plain(word)), value)
        # A word begins like its stem but for the stem's last letter: "happy" has "happi".
        starts = "|".join(sorted({re.escape(stem[: max(1, len(stem) - 1)]) for stem in self._rarity}))
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


def _log_softmax(values: Floats) -> Floats:
    shifted = values - values.max(initial=-np.inf)
    normal: Floats = shifted - np.log(np.exp(shifted).sum())
    return normal


def _plain(text: str) -> str:
    """Return a text in lower case without diacritics, as the full-text index reads it."""
    lower = text.lower()
    if lower.isascii():
        return lower
    return _ACCENTS.sub("", unicodedata.normalize("NFKD", lower))


def _stem(word: str) -> str:
    stemmer = getattr(_local, "stemmer", None)
    if stemmer is None:  # one may not be used by two threads at once
        stemmer = _local.stemmer = Stemmer.Stemmer("porter")
    stem: str = stemmer.stemWord(word)
    return stem
