"""Two facts are needed; whoever asks for both gets both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trimem import ExplicitBank, InvalidInputError, LanguageModel
from trimem.bench import hops
from trimem.bench.hops import _with_both_facts, plot_hops, run
from trimem.bench.trials import found, remember, search
from trimem.bench.two_facts import two_facts


def test_rows_of_every_system(tiny_llama: LanguageModel) -> None:
    result = run(lm=tiny_llama, refs=2, n=3, distractors=4, progress=False)
    assert (result["facts"], result["oracle"]) == (14, False)
    assert [row["system"] for row in result["rows"]] == ["closed_book", "text_rag", "explicit_dense", "explicit_repair"]
    measures = ("recall_at_k", "answer_nll", "f1", "em", "nll_minus_text_low", "nll_minus_text_high")
    assert all(tuple(row) == ("system", *measures) for row in result["rows"])
    closed, text, memory, _ = result["rows"]
    assert closed["recall_at_k"] == 0, "it reads nothing"
    assert text["recall_at_k"] == memory["recall_at_k"]
    assert (text["nll_minus_text_low"], text["nll_minus_text_high"]) == (0, 0)
    for row in (closed, memory):
        difference = row["answer_nll"] - text["answer_nll"]
        assert row["nll_minus_text_low"] < difference < row["nll_minus_text_high"]


def test_ways_to_read_are_named(tiny_llama: LanguageModel) -> None:
    result = run(lm=tiny_llama, refs=2, n=2, distractors=2, names=["explicit_parallel"], progress=False)
    assert [row["system"] for row in result["rows"]] == ["closed_book", "text_rag", "explicit_parallel"]
    with pytest.raises(InvalidInputError, match="systems are explicit_dense"):
        run(lm=tiny_llama, n=2, distractors=2, names=["telepathy"], progress=False)


def test_both_facts_are_given_to_all(tiny_llama: LanguageModel) -> None:
    result = run(lm=tiny_llama, refs=2, n=2, distractors=4, oracle=True, progress=False)
    assert [row["recall_at_k"] for row in result["rows"]] == [0, 1, 1, 1]
    assert result["oracle"] is True


@pytest.mark.parametrize("refs", [2, 3, 5])
def test_the_worst_hits_give_way_to_the_facts(refs: int, bank: ExplicitBank) -> None:
    corpus = two_facts(6, seed=0, distractors=20)
    remember(bank, corpus.passages)
    missed = 0
    for question in corpus.questions:
        searched, given = search(bank, question, refs), _with_both_facts(bank, question, refs)
        assert found(given)
        assert len(given.hits) == refs
        scores = [hit.score for hit in given.hits]
        assert scores == sorted(scores, reverse=True), "in the order of search"
        facts = {str(passage) for passage in question.passages}
        others = [hit.id for hit in given.hits if hit.slot.document not in facts]
        assert others == [hit.id for hit in searched.hits if hit.slot.document not in facts][: refs - 2]
        if found(searched):
            assert [hit.id for hit in given.hits] == [hit.id for hit in searched.hits]
        missed += not found(searched)
    assert missed, "what search finds by itself proves nothing here"


@pytest.mark.parametrize(
    "wrong", [{"n": 1}, {"refs": 0}, {"refs": 1, "oracle": True}, {"distractors": -1}, {"distractors": 576}]
)
def test_wrong_numbers_are_refused_before_anything_is_asked(
    wrong: dict[str, Any], tiny_llama: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hops, "_measure", lambda *_, **__: pytest.fail("it was measured"))
    with pytest.raises(InvalidInputError):
        run(lm=tiny_llama, progress=False, **{"n": 2, **wrong})


@pytest.mark.parametrize("oracle", [False, True])
def test_a_plot_is_drawn(oracle: bool, tmp_path: Path) -> None:
    rows = [
        {"system": name, "answer_nll": 5 + low, "f1": 0.1, "nll_minus_text_low": low, "nll_minus_text_high": high}
        for name, low, high in (("closed_book", 1.0, 2.0), ("text_rag", 0.0, 0.0), ("explicit_dense", -0.5, 0.5))
    ]
    result = {"model": "m", "refs": 5, "n": 2, "oracle": oracle, "rows": rows}
    plot_hops(result, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
