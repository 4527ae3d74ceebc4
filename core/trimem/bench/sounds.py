"""What resonance search is compared with: exact words, a phoneme-trigram index, edit distance, embeddings.

Each is a function from the phonemes of a query to the place it finds.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from rapidfuzz import fuzz, process

from trimem.resonance.phonemes import Phonemes
from trimem.text.encoders import Encoder

Search = Callable[[Sequence[Phonemes]], int]


def _index(keys: Sequence[Iterable[Hashable]]) -> dict[Hashable, NDArray[np.int64]]:
    postings: dict[Hashable, list[int]] = defaultdict(list)
    for place, held in enumerate(keys):
        for key in held:
            postings[key].append(place)
    return {key: np.array(places) for key, places in postings.items()}


def _by_votes(stream: Sequence[Phonemes], keys_of: Callable[[Phonemes], Iterable[Hashable]]) -> Search:
    """Return a search in which every key of a word votes for where the phrase begins, by its rarity."""
    of = {word: list(keys_of(word)) for word in set(stream)}
    postings = _index([of[word] for word in stream])
    words = len(stream)

    def search(query: Sequence[Phonemes]) -> int:
        votes = np.zeros(words)
        for offset, word in enumerate(query):
            for key in keys_of(word):
                if (places := postings.get(key)) is not None:
                    starts = places[np.searchsorted(places, offset) :] - offset
                    votes[starts] += math.log(words / len(places))
        return int(votes.argmax())

    return search


def words_of(word: Phonemes) -> set[object]:
    """Return the whole of a word, as the one key by which it is found."""
    return {word}


def trigrams_of(word: Phonemes) -> set[object]:
    """Return the runs of three phonemes of a word, its edges included."""
    edged = ("", *word, "")
    return {edged[i : i + 3] for i in range(len(edged) - 2)}


def stretches_by_rarity(
    stretches: Sequence[Sequence[Phonemes]], keys_of: Callable[[Phonemes], set[object]]
) -> Callable[[Sequence[Phonemes]], list[int]]:
    """Return a search that ranks stretches by the rarity of the keys that they share with a query, in any order."""
    held = [{key for word in stretch if word for key in keys_of(word)} for stretch in stretches]
    postings = _index(held)

    def search(query: Sequence[Phonemes]) -> list[int]:
        votes = np.zeros(len(held))
        for key in {key for word in query if word for key in keys_of(word)}:
            if (places := postings.get(key)) is not None:
                votes[places] += math.log(len(held) / len(places))
        return [int(place) for place in np.argsort(-votes, kind="stable") if votes[place] > 0]

    return search


def by_words(stream: Sequence[Phonemes]) -> Search:
    """Search for words that are heard exactly, by their rarity."""
    return _by_votes(stream, words_of)


def by_trigrams(stream: Sequence[Phonemes]) -> Search:
    """Search by runs of three phonemes, word edges included, by their rarity."""
    return _by_votes(stream, trigrams_of)


def by_edits(stream: Sequence[Phonemes], length: int) -> Search:
    """Compare the phonemes of every phrase of ``length`` words with the query's, by rapidfuzz's ratio."""
    letter = {phoneme: chr(0x4E00 + i) for i, phoneme in enumerate(sorted({p for word in stream for p in word}))}

    def spell(words: Sequence[Phonemes]) -> str:
        return " ".join("".join(letter.get(phoneme, "?") for phoneme in word) for word in words)

    spelled = [spell([word]) for word in stream]
    phrases = [" ".join(spelled[i : i + length]) for i in range(len(spelled) - length + 1)]

    def search(query: Sequence[Phonemes]) -> int:
        found = process.extractOne(spell(query), phrases, scorer=fuzz.ratio)
        return int(found[2])

    return search


def by_meaning(texts: Sequence[str], length: int, encoder: Encoder, write: Callable[[Phonemes], str]) -> Search:
    """Compare the vectors of phrases of ``length`` words, every half phrase one, with that of the query as written."""
    step = max(1, length // 2)
    places = list(range(0, len(texts) - length + 1, step))
    vectors = encoder.encode_documents([" ".join(texts[i : i + length]) for i in places])

    def search(query: Sequence[Phonemes]) -> int:
        vector = encoder.encode_query(" ".join(map(write, query)))
        return places[int(np.argmax(vectors @ vector))]

    return search
