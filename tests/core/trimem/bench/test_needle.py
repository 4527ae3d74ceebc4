"""The needle stands where it should, once and whole, in as much text as wanted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from trimem import InvalidInputError, UnreadableFileError
from trimem.bench.corpus import Corpus
from trimem.bench.needle import needle

FACT = re.compile(r"The access code of (\w+ \w+) is (\d{4})\.")


def words(text: str) -> int:
    return len(text.split())


@pytest.fixture(scope="module")
def essays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six essays of 660 words each, with lines broken inside sentences."""
    folder = tmp_path_factory.mktemp("essays")
    for essay in range(6):
        sentences = [f"Essay {essay} says here that\nsentence {i} is not the last." for i in range(60)]
        paragraphs = [" ".join(sentences[i : i + 5]) for i in range(0, 60, 5)]
        (folder / f"{essay}.txt").write_text("\n\n".join(paragraphs))
    (folder / "SOURCE.txt").write_text("Licence: do not read. " * 500)
    return folder


def hide(essays: Path, *, tokens: int = 1000, depth: float = 0.5, seed: int = 0) -> Corpus:
    return needle(essays, tokens=tokens, depth=depth, seed=seed, length=words, passage_tokens=50)


@pytest.mark.parametrize("depth", [0.0, 0.1, 0.25, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("tokens", [200, 1000, 3000])
def test_it_stands_at_its_depth_between_sentences(tokens: int, depth: float, essays: Path) -> None:
    corpus = hide(essays, tokens=tokens, depth=depth, seed=tokens)
    (question,) = corpus.questions
    (index,) = question.passages
    found = FACT.search(corpus.passages[index])
    assert found is not None
    place, code = found.groups()
    assert (question.text, question.answers) == (f"What is the access code of {place}?", (code,))
    text = " ".join(corpus.passages)
    assert text.count(code) == 1
    before, after = text.split(found.group())
    assert not before or before.endswith(". ")
    assert not after or after.startswith(" Essay")
    assert words(before) == pytest.approx(depth * (words(before) + words(after)), abs=6)
    assert bool(before) == (depth > 0)
    assert bool(after) == (depth < 1)


@pytest.mark.parametrize("tokens", [50, 51, 200, 1000, 3000])
def test_it_is_as_long_as_wanted_in_passages_that_fit(tokens: int, essays: Path) -> None:
    corpus = hide(essays, tokens=tokens)
    assert tokens - 50 < sum(map(words, corpus.passages)) <= tokens
    assert max(map(words, corpus.passages)) <= 50
    assert "Licence" not in " ".join(corpus.passages)


def test_a_seed_says_it_all(essays: Path) -> None:
    assert hide(essays) == hide(essays)
    corpora = [hide(essays, seed=seed) for seed in range(8)]
    assert len({corpus.questions[0].text for corpus in corpora}) > 5
    assert len({corpus.questions[0].answers for corpus in corpora}) == 8
    assert len({corpus.passages[0] for corpus in corpora}) > 1, "the essays change their order"
    assert hide(essays, depth=0.0).questions[0].answers == hide(essays, depth=1.0).questions[0].answers


def test_the_code_stands_nowhere_else(tmp_path: Path) -> None:
    taken = [str(code) for code in range(1000, 10_000) if code % 500]
    (tmp_path / "numbers.txt").write_text(". ".join(taken) + ".")
    for seed in range(3):
        (code,) = hide(tmp_path, seed=seed).questions[0].answers
        assert int(code) % 500 == 0


@pytest.mark.parametrize(
    "wrong",
    [{"depth": -0.1}, {"depth": 1.1}, {"depth": float("nan")}, {"tokens": 49}, {"tokens": 0}, {"passage_tokens": 8}],
)
def test_numbers_out_of_range_are_refused(wrong: dict[str, int], essays: Path) -> None:
    options = {"tokens": 1000, "depth": 0.5, "passage_tokens": 50, **wrong}
    with pytest.raises(InvalidInputError):
        needle(essays, seed=0, length=words, **options)  # type: ignore[arg-type]


def test_too_little_text_is_refused(essays: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="3960 tokens long"):
        hide(essays, tokens=5000)
    with pytest.raises(InvalidInputError, match="0 tokens long"):
        hide(tmp_path / "absent")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(UnreadableFileError):
        hide(tmp_path)
