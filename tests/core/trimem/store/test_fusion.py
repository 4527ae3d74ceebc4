"""Judging candidates: words in any form, near one another, and the witness that is sure is followed."""

from __future__ import annotations

import math

import numpy as np
import pytest
import Stemmer  # type: ignore[import-not-found]
from hypothesis import example, given
from hypothesis import strategies as st

from trimem.store.fusion import QueryWords, Sides, Weights, alike, best_sentences, fuse, reread, scores
from trimem.store.words import all_words, rarity, words


def array(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def sides(words: list[float], meaning: list[float]) -> Sides:
    said, meant = array(*words), array(*meaning)
    return Sides(said, said, meant, meant, meant, np.zeros_like(meant))


def test_words_are_found_in_any_form_and_place() -> None:
    asked = QueryWords({"pumps": 2.0, "zürich": 3.0, "k2": 1.0})
    assert asked.find("The PUMP in Zurich; pumping, at K2.") == [(4, "pump"), (12, "zurich"), (20, "pump"), (32, "k2")]
    assert asked.find("A pumpkin.") == []
    assert QueryWords({}).find("anything") == []


BEGINNINGS = st.sampled_from(["happ", "relat", "a", "o", "sens", "hop"])
SUFFIXES = st.sampled_from(
    [
        *("s", "sses", "ies", "eed", "ed", "ing", "y", "ational", "izer", "bli", "alli", "ousli", "ization", "iveness"),
        *("biliti", "logi", "ical", "ness", "ement", "ion", "ate", "e", "ll"),
    ]
)
FORMS = st.builds("{}{}{}".format, BEGINNINGS, SUFFIXES, st.just("") | SUFFIXES)


@given(FORMS, st.lists(FORMS, max_size=8))
@example("ay", ["ays"])
def test_no_form_is_missed(asked: str, said: list[str]) -> None:
    stem = Stemmer.Stemmer("porter").stemWord
    found = QueryWords({asked: 1.0}).find(" ".join(said))
    assert [stemmed for _, stemmed in found] == [stem(word) for word in said if stem(word) == stem(asked)]


def test_bm25_is_the_textbooks() -> None:
    asked = QueryWords({"pump": 2.0, "boat": 1.0})
    texts = ["pump pump boat", "boat and nothing but"]
    lengths = [len(text) for text in texts]
    mean = sum(lengths) / 2
    damped = [1.2 * (0.25 + 0.75 * length / mean) for length in lengths]
    wanted = [2.0 * 2 * 2.2 / (2 + damped[0]) + 2.2 / (1 + damped[0]), 2.2 / (1 + damped[1])]
    assert asked.words([asked.find(text) for text in texts], lengths) == pytest.approx(wanted, rel=1e-6)


PLACES = st.lists(st.tuples(st.integers(0, 300), st.sampled_from("abcd")), max_size=12).map(sorted)


@given(PLACES)
def test_what_stands_together_is_the_best_of_all_windows(places: list[tuple[int, str]]) -> None:
    told = {"a": 1.0, "b": 2.0, "c": 4.0, "d": 8.0}
    wanted = max(
        (sum(told[stem] for stem in {s for p, s in places if start <= p < start + 72}) for start, _ in places),
        default=0.0,
    )
    assert QueryWords(told).together([places]) == pytest.approx([wanted])


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_the_rarer_tells_more_and_nothing_tells_less_than_nothing(one: int, more: int) -> None:
    assert rarity(one, 10**6) >= rarity(one + more, 10**6) >= 0


def test_function_words_are_asked_for_only_where_there_are_no_others() -> None:
    assert words("Where is the Pump, the pump?") == ["pump"]
    assert words("To be, or not to be") == all_words("To be, or not to be") == ["to", "be", "or", "not"]
    assert words("?!") == []


def test_the_best_sentence_speaks_for_a_text() -> None:
    query = array(1, 0)
    several = np.array([[0, 1], [0.9, 0.1]], np.float32)
    assert best_sentences(query, array(0.2, 0.3, 0.4), [None, several, several[:1]]) == pytest.approx([0.2, 0.9, 0.0])


def test_the_witness_that_is_sure_is_followed() -> None:
    weights = Weights(words=0, together=0, meaning=0, sentence=0, passage=0)
    sure, unsure = [1.0, 0.0, 0.0, 0.0], [0.50, 0.52, 0.50, 0.50]
    assert fuse(sides(sure, unsure), weights).argmax() == 0
    assert fuse(sides([0.95, 1.0, 0.95, 0.95], [0.9, 0.2, 0.2, 0.2]), weights).argmax() == 0
    # Many share the words of the first, so words are not sure of it; added up, they would outweigh the vectors.
    many, one = [1.0, 0.0, 0.95, 0.95, 0.95], [0.1, 0.6, 0.1, 0.1, 0.1]
    assert fuse(sides(many, one), weights).argmax() == 1
    assert (sum(weights.words_sure) * array(*many) + sum(weights.vectors_sure) * array(*one)).argmax() == 0


@given(st.lists(st.tuples(st.floats(0, 40), st.floats(-1, 1)), min_size=1, max_size=8))
def test_scores_are_in_the_order_of_the_nats_and_between_0_and_1(drawn: list[tuple[float, float]]) -> None:
    judged = sides([one for one, _ in drawn], [two for _, two in drawn])
    nats = fuse(judged, Weights())
    each = scores(judged, nats)
    assert np.isfinite(nats).all()
    assert ((each >= 0) & (each <= 1 + 1e-6)).all()
    order = np.argsort(-nats, kind="stable")
    assert (np.diff(each[order]) <= 1e-7).all()


def test_a_score_tells_how_well_the_best_answers() -> None:
    judged = sides([10.0, 0.0], [1.0, 0.2])
    assert scores(judged, fuse(judged, Weights()))[0] == pytest.approx(1.0)
    judged = sides([0.0, 0.0], [0.4, 0.2])
    nats = fuse(judged, Weights())
    assert scores(judged, nats) == pytest.approx([0.28, 0.28 * math.exp(float(nats[1] - nats[0]) / 10)])


def test_a_neighbour_counts_as_far_as_it_is_alike() -> None:
    assert [alike(similarity) for similarity in (-1.0, 0.2, 0.4, 0.6, 1.0)] == pytest.approx([0, 0, 0.5, 1, 1])


def test_what_was_read_is_ranked_by_both_and_what_was_not_stays_behind() -> None:
    given_, likelihoods = [0.9, 0.8, 0.7, 0.6], [-3.0, -2.0, -4.0]
    read = reread(given_, likelihoods)
    assert read.index(max(read)) == 1
    assert read[3] == min(read)
    assert all(0 <= score <= 1 for score in read)
