"""A phrase is found by its sound, wherever it stands, and by nothing that was not allowed."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trimem import InvalidInputError
from trimem.resonance import search
from trimem.resonance.lexicon import Lexicon
from trimem.resonance.phonemes import EnglishPhonemizer, Phonemes
from trimem.resonance.search import LONGEST_QUERY, Resonance, ResonanceIndex, index_words

WORDS = 4000


@pytest.fixture(scope="module")
def stream(words: Lexicon) -> list[Phonemes]:
    """A long run of words that are as common as they are, with a phrase in the midst of it."""
    entries = [entry for entry in words.entries if entry.phonemes]
    draw = random.Random(0)
    return [e.phonemes for e in draw.choices(entries, [entry.frequency for entry in entries], k=WORDS)]


@pytest.fixture(scope="module")
def index(stream: list[Phonemes]) -> ResonanceIndex:
    return index_words(stream)[0]


@settings(deadline=None, max_examples=40)
@given(at=st.integers(0, WORDS - 8), length=st.integers(3, 8))
def test_what_was_said_is_found(at: int, length: int, index: ResonanceIndex, stream: list[Phonemes]) -> None:
    said = stream[at : at + length]
    best = index.search(said, k=1)[0]
    assert stream[best.position : best.position + length] == said
    assert best.correlation == pytest.approx(1, abs=1e-4)
    assert best.score > 0


def test_misheard_names_are_found(english: EnglishPhonemizer, stream: list[Phonemes]) -> None:
    said = english(["the", "reichenbach", "falls"])
    index, _ = index_words([*stream[:2000], *said, *stream[2000:]])
    best = index.search(english(["the", "reijenbak", "fouls"]), k=1)[0]
    assert best.position == 2000
    assert best.z > 2


def test_words_may_be_split_and_merged(english: EnglishPhonemizer) -> None:
    text = ["a", "green", "garden", "gate", "under", "seven", "yellow", "windows", "near", "some", "mountain"]
    index, _ = index_words(english(text))

    def found(*heard: str) -> str:
        return text[index.search(english(heard), k=1)[0].position]

    assert found("yell", "low", "windows", "near") == "yellow"
    assert found("greengarden", "gate") == "green"


def test_a_phrase_begins_with_the_word_that_most_of_its_first_phonemes_are_of(english: EnglishPhonemizer) -> None:
    text = ["a", "green", "garden", "gate", "under", "seven", "yellow", "windows"]
    index, _ = index_words(english(text))
    end, gate, under = english(["garden"])[0][-1:], *english(["gate", "under"])
    assert text[index.search([(*end, *gate), under], k=1)[0].position] == "gate", (
        "a sound of the word before is no word"
    )


def test_what_is_added_is_found_beside_what_is_sorted(
    stream: list[Phonemes], words: Lexicon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "POSTINGS", 500)
    index, _ = index_words(stream[:2000])
    said = index.words[[3, 700, 11, 1500, 42, 900]]
    index.append(said, [len(said)])
    query = [index.vocabulary.spoken[word] for word in said.tolist()]
    assert index.search(query, k=1)[0].position == 2000
    stretches, nats = index.about(query)
    assert stretches[nats.argmax()] == 1


def test_what_has_no_sound_is_left_out(english: EnglishPhonemizer) -> None:
    index, at = index_words(english(["the", "!", "house", "💩", "burned"]))
    assert at.tolist() == [0, 2, 4]
    assert index.search(english(["house", "burned"]), k=1)[0].position == 1


def test_only_what_is_allowed_is_found(index: ResonanceIndex, stream: list[Phonemes]) -> None:
    allowed = torch.zeros(WORDS, dtype=torch.bool)
    allowed[1000:2000] = True
    found = index.search(stream[3000:3006], k=20, allowed=allowed)
    assert found
    assert all(1000 <= one.position < 2000 for one in found)
    assert index.search(stream[1500:1506], k=1, allowed=allowed)[0].position == 1500
    assert index.search(stream[:4], allowed=torch.zeros(WORDS, dtype=torch.bool)) == []


def test_votes_find_what_scoring_every_place_finds(
    index: ResonanceIndex, stream: list[Phonemes], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [stream[at : at + 6] for at in range(50, 3900, 400)]
    exhaustive = [index.search(query, k=1)[0] for query in asked]
    monkeypatch.setattr(search, "POSTINGS", WORDS - 1)
    assert [index.search(query, k=1)[0] for query in asked] == exhaustive
    allowed = torch.ones(WORDS, dtype=torch.bool)
    allowed[:3] = False
    assert [index.search(query, k=1, allowed=allowed)[0] for query in asked] == exhaustive


def test_places_do_not_overlap_and_come_best_first(index: ResonanceIndex, stream: list[Phonemes]) -> None:
    found = index.search(stream[100:106], k=8)
    assert len(found) == 8
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    places = sorted(one.position for one in found)
    assert all(b - a > 3 for a, b in pairwise(places))


def test_the_right_place_stands_out(index: ResonanceIndex, stream: list[Phonemes]) -> None:
    best, *others = index.search(stream[500:508], k=5)
    assert best.position == 500
    assert best.z > 5
    assert all(other.z < best.z for other in others)


def test_queries_that_cannot_be_heard_are_refused(index: ResonanceIndex, stream: list[Phonemes]) -> None:
    for query in ([], [()], [("p",)] * (LONGEST_QUERY + 1)):
        with pytest.raises(InvalidInputError, match="a query has 1 to"):
            index.search(query)
    with pytest.raises(InvalidInputError, match="no phoneme"):
        index.search([("§",)])
    assert isinstance(index.search([("ʈ", "ɯ")], k=1)[0], Resonance)  # sounds that English does not have


def test_an_index_of_nothing_finds_nothing(english: EnglishPhonemizer) -> None:
    index, _ = index_words([])
    assert len(index) == 0
    assert index.search(english(["water"])) == []
    assert len(index_words(english(["water"]))[0].search(english(["water"]))) == 1


def test_wrong_vocabularies_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="has phonemes"):
        ResonanceIndex([("p",), ()], torch.tensor([0]))
    with pytest.raises(InvalidInputError, match="numbers below 1"):
        ResonanceIndex([("p",)], torch.tensor([1]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_finds_the_same(index: ResonanceIndex, stream: list[Phonemes]) -> None:
    there, _ = index_words(stream, device="cuda")
    for at in range(0, 3000, 300):
        query = stream[at : at + 5]
        one, other = index.search(query, k=1)[0], there.search(query, k=1)[0]
        assert one.position == other.position
        assert one.score == pytest.approx(other.score, abs=1e-2)
