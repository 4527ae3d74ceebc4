"""The demo as ``make demo`` runs it, with the real model."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from trimem import ExplicitBank, demo
from trimem.text.encoders import Encoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def shown() -> io.StringIO:
    return io.StringIO()


@pytest.fixture(scope="module")
def first(folder: Path, shown: io.StringIO) -> dict[str, Any]:
    """The first run."""
    return demo.run(folder, console=Console(file=shown, width=120))


def test_the_handbook_answers_its_questions() -> None:
    pages = demo.handbook()
    questions = demo.handbook_questions()
    assert len(pages) >= 30
    assert len(questions) == 60
    for asked in questions.values():
        assert asked["answer"] in pages[asked["page"]], asked
    assert len({asked["page"] for asked in questions.values()}) >= 28
    assert set(demo.QUESTIONS) <= set(questions)


def test_memory_answers_what_no_model_knows(first: dict[str, Any]) -> None:
    right = {
        name: sum(asked["systems"][name]["right"] for asked in first["questions"])
        for name in ("closed_book", "text_rag", "explicit_dense")
    }
    assert len(first["questions"]) == 5
    assert right["closed_book"] == 0
    assert right["explicit_dense"] >= 3
    for asked in first["questions"]:
        prefilled = {name: said["prefill_tokens"] for name, said in asked["systems"].items()}
        assert prefilled["explicit_dense"] < prefilled["closed_book"] < prefilled["text_rag"]
        assert sum(source["attention"] for source in asked["sources"]) == pytest.approx(1.0, abs=1e-4)


def test_it_is_shown_side_by_side(first: dict[str, Any], shown: io.StringIO) -> None:
    for asked in first["questions"]:
        assert asked["question"] in shown.getvalue()
        assert all(source["source"] in shown.getvalue() for source in asked["sources"])
    for words in ("closed book", "text RAG", "explicit memory", "first token", "tokens prefilled", "MB of key-values"):
        assert words in shown.getvalue()


def test_the_second_run_compiles_nothing(first: dict[str, Any], folder: Path) -> None:
    records = {file: file.stat().st_mtime_ns for file in folder.rglob("*.safetensors")}
    second = demo.run(folder)
    assert not first["compiled_before"]
    assert second["compiled_before"]
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*.safetensors")} == records
    assert [asked["systems"]["explicit_dense"]["text"] for asked in second["questions"]] == [
        asked["systems"]["explicit_dense"]["text"] for asked in first["questions"]
    ]


@pytest.mark.usefixtures("first")
def test_search_finds_the_right_page(folder: Path, encoder: Encoder) -> None:
    with ExplicitBank.open(folder, encoder=encoder, create=False) as bank:
        found = [
            asked["page"] in [hit.slot.document for hit in bank.recall(question, 5, namespace="demo")]
            for question, asked in demo.handbook_questions().items()
        ]
    assert sum(found) >= 57
