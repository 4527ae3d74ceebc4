"""Each length and depth has its bank, search compiles what it finds, and the whole text is read where it fits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trimem import ExplicitBank, InvalidInputError, LanguageModel
from trimem.bench import haystack
from trimem.bench.corpus import Corpus, Question
from trimem.bench.haystack import MEMORY_ALL, _all, _ask, _asked, _fits, plot_needle, run
from trimem.bench.needle import needle
from trimem.bench.systems import ExplicitMemory, Spoken, TextRag
from trimem.bench.trials import Outcome, Trial, remember

MEASURES = ("recall_at_k", "found", "answer_nll", "ttft_ms_p50")


@pytest.fixture(scope="module")
def essays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An essay of some 4,000 characters, each a token of the tiny models."""
    folder = tmp_path_factory.mktemp("essays")
    (folder / "one.txt").write_text(" ".join(f"Sentence {i} is not the last of them." for i in range(100)))
    return folder


def corpus(essays: Path, bank: ExplicitBank, tokens: int) -> Corpus:
    return needle(essays, tokens=tokens, depth=0.5, seed=0, length=lambda text: len(bank.compiler.reference(text)))


def test_rows_of_every_length(essays: Path, tiny_llama: LanguageModel, tmp_path: Path) -> None:
    result = run(essays, lm=tiny_llama, tokens=[900, 128, 900], refs=1, n=2, progress=False)
    assert result["tokens"] == [128, 900]
    rows = {(row.pop("tokens"), row.pop("system")): row for row in result["rows"]}
    assert list(rows) == [(size, name) for size in (128, 900) for name in ("text_rag", "explicit_dense", MEMORY_ALL)]
    assert all(tuple(row) == MEASURES for row in rows.values())
    assert rows.pop((900, MEMORY_ALL)) == dict.fromkeys(MEASURES), "it is longer than the context"
    assert all(0 <= row["found"] <= 1 and row["ttft_ms_p50"] > 0 for row in rows.values())
    text, memory, whole = (rows[128, name] for name in ("text_rag", "explicit_dense", MEMORY_ALL))
    assert text["recall_at_k"] == memory["recall_at_k"] == whole["recall_at_k"] == 1
    assert whole["answer_nll"] == memory["answer_nll"]
    assert memory["answer_nll"] == pytest.approx(text["answer_nll"], abs=1e-3), "one passage reads as its text"
    assert rows[900, "text_rag"]["recall_at_k"] == rows[900, "explicit_dense"]["recall_at_k"]


def test_depths_and_seeds_are_spread(essays: Path, tiny_llama: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, float, int]] = []

    def noted(folder: Path, *, tokens: int, depth: float, seed: int, **options: Any) -> Corpus:
        asked.append((tokens, depth, seed))
        return needle(folder, tokens=tokens, depth=depth, seed=seed, **options)

    monkeypatch.setattr(haystack, "needle", noted)
    monkeypatch.setattr(haystack, "_measure", lambda *_, **__: [])
    run(essays, lm=tiny_llama, tokens=[256, 128], n=3, seed=7, progress=False)
    run(essays, lm=tiny_llama, tokens=[256], n=1, progress=False)
    three = [(0.0, 7), (0.5, 8), (1.0, 9)]
    assert asked == [*((128, *each) for each in three), *((256, *each) for each in three), (256, 0.5, 0)]


def test_only_what_is_read_is_compiled(essays: Path, bank: ExplicitBank) -> None:
    asked = _asked(bank, corpus(essays, bank, 900), 2, whole=False)
    assert [(system.name, len(trial.hits)) for system, trial in asked] == [("text_rag", 2), ("explicit_dense", 2)]
    assert bank.stats().compiled == 2


def test_the_whole_text_is_read_in_its_order(essays: Path, bank: ExplicitBank) -> None:
    text = corpus(essays, bank, 1500)
    asked = _asked(bank, text, 2, whole=True)
    system, trial = asked[-1]
    assert (system.name, trial.search_seconds) == (MEMORY_ALL, 0.0)
    assert [hit.text for hit in reversed(trial.hits)] == text.passages
    assert bank.stats().compiled == len(text.passages) > 10


def test_passages_of_several_slots_are_read_in_their_order(bank: ExplicitBank) -> None:
    passages = [" ".join(f"{name} number {i} is here." for i in range(12)) for name in ("Badger", "Otter")]
    remember(bank, passages)
    hits = _all(bank, Question("Where is Otter number 3?", ("here",), (1,)))
    assert len(hits) > 2
    assert " ".join(hit.text for hit in reversed(hits)) == " ".join(passages)


def test_what_fits_can_be_asked(bank: ExplicitBank) -> None:
    question = Question("Where is the otter now?", ("here",), (0,))
    compiler = bank.compiler

    def text(length: int) -> Corpus:
        return Corpus(["x" * min(100, length - start) for start in range(0, length, 100)], [question])

    fits = [length for length in range(100, 512) if _fits(compiler, text(length))]
    longest = fits[-1]
    assert fits == list(range(100, longest + 1))
    memory = sum(len(compiler.reference(passage)) for passage in text(longest).passages)
    assert compiler.lm.context_length - len(compiler.prefix_ids) - memory > haystack.ROOM
    remember(bank, text(longest).passages)
    assert _ask(ExplicitMemory(bank, MEMORY_ALL), Trial(question, _all(bank, question)))["first_token"] > 0


@pytest.mark.parametrize(
    ("said", "expected"), [("1234", 1), ("It is 1234.", 1), ("1 234", 0), ("12345", 0), ("91234", 0), ("", 0)]
)
def test_the_code_counts_only_whole(
    said: str, expected: int, bank: ExplicitBank, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = Outcome(Spoken(said, 0.1, 10.0, 5, ()), nll=1.0, f1=0.0, em=0.0, first_token=0.2)
    monkeypatch.setattr(haystack, "ask", lambda *_: outcome)
    measured = _ask(TextRag(bank), Trial(Question("Which code?", ("1234",), (0,)), []))
    assert measured == {"recall": 0.0, "found": expected, "nll": 1.0, "first_token": 0.2}


@pytest.mark.parametrize("wrong", [{"tokens": []}, {"refs": 0}, {"n": 0}, {"tokens": [128, 50_000]}, {"tokens": [5]}])
def test_wrong_numbers_are_refused_before_anything_is_asked(
    wrong: dict[str, Any], essays: Path, tiny_llama: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(haystack, "_measure", lambda *_, **__: pytest.fail("it was measured"))
    with pytest.raises(InvalidInputError):
        run(essays, lm=tiny_llama, progress=False, **{"tokens": [128], **wrong})


def test_a_plot_leaves_out_what_was_not_measured(tmp_path: Path) -> None:
    rows = [
        {"system": name, "tokens": size, "found": value, "ttft_ms_p50": value}
        for size in (1024, 65_536)
        for name, value in (("text_rag", 0.5), ("memory_all", 1.0 if size < 2000 else None))
    ]
    result = {"model": "m", "data": "essays", "refs": 5, "n": 2, "tokens": [1024, 65_536], "rows": rows}
    plot_needle(result, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
