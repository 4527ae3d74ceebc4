"""Neither fact answers alone, both do, and nothing else reads otherwise."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from trimem import InvalidInputError
from trimem.bench.two_facts import two_facts

KEEPING = re.compile(r"(lighthouse|mill|chapel|museum|observatory|signal box|boathouse|library) of (\w+ \w+)")
NAMES = re.compile(r"(?=\b([A-Z]\w+ [A-Z]\w+))")


@pytest.mark.parametrize(("n", "distractors"), [(1, 0), (30, 0), (20, 100), (1, 575)])
def test_a_question_takes_both_facts(n: int, distractors: int) -> None:
    corpus = two_facts(n, seed=n, distractors=distractors)
    assert len(corpus.questions) == n
    assert len(set(corpus.passages)) == len(corpus.passages) == 2 * (n + distractors)
    for question in corpus.questions:
        keeping, having = (corpus.passages[index] for index in question.passages)
        (answer,) = question.answers
        named = KEEPING.search(question.text)
        assert named is not None
        building, place = named.groups()
        (keeper,) = set(NAMES.findall(having)) & set(NAMES.findall(keeping))
        assert f"{building} of {place}" in keeping
        assert re.search(rf"\ban? {answer}\b", having)
        assert answer == answer.split()[0]
        assert place not in having
        assert answer not in keeping.split()
        assert keeper not in question.text
        assert answer not in question.text.split()
        assert sum(place in passage for passage in corpus.passages) == 1, "a place is kept by one"
        assert sum(keeper in passage for passage in corpus.passages) == 2, "a keeper keeps one place and one thing"


def test_wordings_vary_and_facts_are_mixed() -> None:
    corpus = two_facts(60, seed=0, distractors=60)
    assert len({re.sub(r"[A-Z]\w+|of .*", "", question.text) for question in corpus.questions}) >= 3
    gaps = [abs(first - second) for first, second in (question.passages for question in corpus.questions)]
    assert sum(gap == 1 for gap in gaps) < 10
    assert sum(first > second for first, second in (question.passages for question in corpus.questions)) > 15


def test_no_answer_is_a_good_guess() -> None:
    corpus = two_facts(200, seed=0)
    counts = Counter(question.answers[0] for question in corpus.questions)
    assert max(counts.values()) - min(counts.values()) <= 1


def test_articles_fit() -> None:
    text = " ".join(two_facts(300, seed=1).passages)
    assert " an umbrella" in text
    assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", text)


def test_a_seed_says_it_all() -> None:
    assert two_facts(10, seed=1, distractors=5) == two_facts(10, seed=1, distractors=5)
    assert two_facts(10, seed=1, distractors=5) != two_facts(10, seed=2, distractors=5)


@pytest.mark.parametrize(("n", "distractors"), [(0, 0), (1, -1), (577, 0), (1, 576)])
def test_numbers_out_of_range_are_refused(n: int, distractors: int) -> None:
    with pytest.raises(InvalidInputError):
        two_facts(n, seed=0, distractors=distractors)
