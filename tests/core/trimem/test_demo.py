"""The demo's handbook and questions, and the demo itself on a tiny model."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from trimem import ExplicitBank, LanguageModel, demo
from trimem.text.encoders import Encoder


def test_the_handbook_answers_its_questions() -> None:
    pages = demo.handbook()
    questions = demo.handbook_questions()
    assert len(pages) >= 30
    assert len(questions) == 60
    for asked in questions.values():
        assert asked["answer"] in pages[asked["page"]], asked
    assert len({asked["page"] for asked in questions.values()}) >= 28
    assert set(demo.QUESTIONS) <= set(questions)


def test_search_finds_the_pages(tmp_path: Path, tiny_llama: LanguageModel, encoder: Encoder) -> None:
    pages = demo.handbook()
    with ExplicitBank.open(tmp_path / "bank", model=tiny_llama, encoder=encoder) as bank:
        bank.remember(list(pages.values()), namespace="demo", ids=list(pages), compile=False)
        found = [
            asked["page"] in [hit.slot.document for hit in bank.recall(question, 5, namespace="demo")]
            for question, asked in demo.handbook_questions().items()
        ]
    assert sum(found) >= 55


def test_the_second_run_compiles_nothing(tmp_path: Path, tiny_llama: LanguageModel) -> None:
    tiny_llama.model.save_pretrained(tmp_path / "model")
    tiny_llama.tokenizer.save_pretrained(tmp_path / "model")
    shown = io.StringIO()
    first = demo.run(tmp_path / "bank", str(tmp_path / "model"), Console(file=shown, width=120))
    second = demo.run(tmp_path / "bank", str(tmp_path / "model"))
    assert not first["compiled_before"]
    assert second["compiled_before"]
    assert len(first["questions"]) == len(demo.QUESTIONS)
    for question in first["questions"]:
        assert list(question["systems"]) == ["closed_book", "text_rag", "explicit_dense"]
        assert question["question"] in shown.getvalue()
        assert sum(source["attention"] for source in question["sources"]) > 0.999
    assert "first token" in shown.getvalue()
