"""Follow-up questions are what they say they are, and following them finds what the question alone does not."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from trimem import ExplicitBank, LanguageModel
from trimem.banks.folder import DATABASE
from trimem.bench import follow_ups as module
from trimem.bench.follow_ups import KINDS, NAMESPACE, QUERIES, _pages, _row, _wordy, follow_ups, run
from trimem.checks import check_history
from trimem.store.metadata import MetadataStore
from trimem.text.encoders import Encoder


def test_every_answer_stands_on_its_page() -> None:
    pages = _pages()
    asked = follow_ups()
    assert len(pages) == 32
    assert Counter(one.kind for one in asked) == dict.fromkeys(KINDS, 16)
    assert len({one.question for one in asked}) > 55
    for one in asked:
        assert one.answer in pages[one.page], one
        assert check_history(one.history)
        assert [message["role"] for message in one.history] == ["user", "assistant"] * (len(one.history) // 2)
        assert len(one.history) == 4 or one.kind != "chain"


def test_following_finds_what_the_question_alone_does_not(
    tmp_path: Path, smollm: LanguageModel, encoder: Encoder
) -> None:
    with ExplicitBank.open(tmp_path, model=smollm, encoder=encoder) as bank:
        asked, pages = follow_ups(), _pages()
        bank.remember(list(pages.values()), namespace=NAMESPACE, ids=list(pages), compile=False)
        wordy = [_wordy(bank, one) for one in asked]
        store = MetadataStore(tmp_path / DATABASE)
        alone, short, long = (
            _row(store, encoder, name, "", questions)
            for name, questions in (("question", asked), ("followed", asked), ("followed", wordy))
        )
        store.close()
        hits = [bank.recall(one.question, 3, namespace=NAMESPACE, history=one.history) for one in asked]
    assert short["hit_at_3"] > 0.95
    assert short["mrr"] > alone["mrr"] + 0.1
    assert short["mrr_switch"] > alone["mrr_switch"] - 0.03, "what stands alone is found as before"
    assert long["mrr"] == short["mrr"], "long answers lead nobody astray"
    found = [any(one.answer in hit.text for hit in found) for one, found in zip(asked, hits, strict=True)]
    assert sum(found) / len(found) == pytest.approx(short["hit_at_3"]), "recall() searches in the way that is measured"


def test_rows_of_every_way(tiny_llama: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [next(one for one in follow_ups() if one.kind == kind) for kind in KINDS]
    pages = {one.page: _pages()[one.page] for one in asked}
    monkeypatch.setattr(module, "follow_ups", lambda: asked)
    monkeypatch.setattr(module, "_pages", lambda: pages)
    result = run(lm=tiny_llama, refs=1, progress=False)
    assert [(row["answers"], row["query"]) for row in result["rows"]] == [
        (answers, query) for answers in ("short", "long") for query in QUERIES
    ]
    assert all(0 <= row["hit_at_1"] <= row["hit_at_3"] <= row["hit_at_5"] <= 1 for row in result["rows"])
    nll = {row["history_in"]: row["answer_nll"] for row in result["reading"]}
    assert list(nll) == ["none", "search", "prompt", "both"]
    assert len(set(nll.values())) == 4
