"""Spans say how much and how long; what, only where that is asked for."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from trimem import ExplicitBank, InvalidInputError, LanguageModel, ResonanceBank, ResonanceConfig, Turn
from trimem.text.encoders import Encoder
from trimem.tracing import CAPTURE

SECRET = "The secret word is xqzzy."

_exporter = InMemorySpanExporter()
_listening: list[bool] = []


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """What is exported; OpenTelemetry takes one provider a process."""
    if not isinstance(trace.get_tracer_provider(), TracerProvider):
        trace.set_tracer_provider(TracerProvider())
    provider = trace.get_tracer_provider()
    assert isinstance(provider, TracerProvider)
    if not _listening:
        provider.add_span_processor(SimpleSpanProcessor(_exporter))
        _listening.append(True)
    monkeypatch.delenv(CAPTURE, raising=False)
    _exporter.clear()
    yield _exporter
    _exporter.clear()


def told(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def use(bank: ExplicitBank) -> None:
    bank.remember(SECRET, namespace="xqzzy", metadata={"source": "xqzzy.md"})
    bank.recall("the secret word xqzzy", 1, namespace="xqzzy")
    bank.ask("What is the secret word xqzzy?", namespace="xqzzy", max_new_tokens=3)
    bank.forget(namespace="xqzzy")
    with pytest.raises(InvalidInputError):
        bank.recall("xqzzy", 0, namespace="xqzzy")


def test_what_a_bank_does_is_told_by_the_conventions(bank: ExplicitBank, spans: InMemorySpanExporter) -> None:
    use(bank)
    names = [span.name for span in spans.get_finished_spans()]
    assert names == [
        *("compile_memory", "upsert_memory", "search_memory", "search_memory", "chat llama", "delete_memory"),
        "search_memory",
    ]
    compiled, remembered, found, sought, said, forgotten, failed = spans.get_finished_spans()
    for span in spans.get_finished_spans():
        assert span.kind is SpanKind.INTERNAL
        assert told(span)["gen_ai.provider.name"] == "trimem"
        assert told(span)["gen_ai.memory.store.id"] == "bank"
        assert told(span)["gen_ai.operation.name"] == span.name.split()[0]
    for span in (compiled, remembered, found, said, forgotten):
        assert told(span)["gen_ai.memory.record.count"] == 1
    assert compiled.parent == remembered.get_span_context()
    assert sought.parent == said.get_span_context()
    assert told(said)["gen_ai.request.model"] == "llama"
    assert told(said)["gen_ai.usage.output_tokens"] == 3
    assert told(said)["gen_ai.usage.input_tokens"] > 3
    assert (told(failed)["error.type"], failed.status.status_code) == ("InvalidInputError", StatusCode.ERROR)
    assert "xqzzy" not in "".join(span.to_json() for span in spans.get_finished_spans())


def test_content_is_told_where_it_is_asked_for(
    bank: ExplicitBank, spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    for setting, wanted in (("true", True), ("SPAN_ONLY", True), ("EVENT_ONLY", False), ("NO_CONTENT", False)):
        spans.clear()
        monkeypatch.setenv(CAPTURE, setting)
        use(bank)
        assert ("xqzzy" in "".join(span.to_json() for span in spans.get_finished_spans())) is wanted, setting
        if wanted:
            _, remembered, found, _, said, *_ = spans.get_finished_spans()
            assert json.loads(told(remembered)["gen_ai.memory.records"]) == [{"content": SECRET}]
            assert told(found)["gen_ai.memory.query.text"] == "the secret word xqzzy"
            assert json.loads(told(found)["gen_ai.memory.records"])[0]["content"] == SECRET
            asked = json.loads(told(said)["gen_ai.input.messages"])
            assert asked[0]["parts"][0]["content"] == "What is the secret word xqzzy?"
    monkeypatch.setenv(CAPTURE, "true")
    bank.remember([Turn("Ann", None, "Hello."), "Bye."], namespace="a")
    turns = json.loads(told(spans.get_finished_spans()[-1])["gen_ai.memory.records"])
    assert turns == [{"content": "Ann: Hello."}, {"content": "Bye."}]


def test_what_is_asked_of_resonance_memory_is_told_alike(
    tmp_path: Path, spans: InMemorySpanExporter, tiny_llama: LanguageModel, encoder: Encoder
) -> None:
    config = ResonanceConfig(lexicon_words=1000)
    with ResonanceBank.open(tmp_path / "calls", model=tiny_llama, encoder=encoder, config=config) as bank:
        bank.remember(SECRET, namespace="a")
        bank.ask("What is the secret word?", namespace="a", max_new_tokens=3)
        with pytest.raises(InvalidInputError):
            bank.ask("What is the secret word?", namespace="a", by="smell")  # type: ignore[arg-type]
    *_, sought, said, failed, ended = spans.get_finished_spans()
    assert [sought.name, said.name, failed.name, ended.name] == [*("search_memory", "chat llama") * 2]
    assert sought.parent == said.get_span_context()
    assert told(said)["gen_ai.memory.store.id"] == "calls"
    assert told(said)["gen_ai.usage.output_tokens"] == 3
    assert told(said)["gen_ai.memory.record.count"] == 1
    assert (told(ended)["error.type"], ended.status.status_code) == ("InvalidInputError", StatusCode.ERROR)
    assert "secret" not in "".join(span.to_json() for span in spans.get_finished_spans())


def test_what_streams_belongs_to_who_asked(bank: ExplicitBank, spans: InMemorySpanExporter) -> None:
    bank.remember(SECRET, namespace="a")
    with trace.get_tracer("test").start_as_current_span("request") as request:
        stream = bank.ask("word?", namespace="a", max_new_tokens=2, stream=True)
        assert list(stream)
        asyncio.run(bank.arecall("word", 1, namespace="a"))
    by_name = {span.name: span for span in spans.get_finished_spans()}
    for name in ("chat llama", "search_memory"):
        found = by_name[name].parent
        assert found is not None
        assert found.trace_id == request.get_span_context().trace_id


def test_without_opentelemetry_nothing_is_imported() -> None:
    code = (
        "import sys\nsys.modules['opentelemetry'] = None\n"
        "from trimem.tracing import Asking\n"
        "asked = Asking('s', 'm', 'q', 1)\n"
        "with asked.under(): asked.answered(None)\n"
        "import trimem.banks.slot_bank\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry.')])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_no_secret_shows_in_logs_and_reprs(
    bank: ExplicitBank, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever trimem returns may end in somebody's log."""
    caplog.set_level(logging.DEBUG)
    ids = bank.remember(SECRET, namespace="a", metadata={"source": "xqzzy.md"})
    hits = bank.recall("word", 1, namespace="a")
    answer = bank.ask("The xqzzy word?", namespace="a", max_new_tokens=3)
    turn = Turn("Ann", None, SECRET)
    with bank.attach(hits=hits) as reading:
        seen = [repr(reading)]
    stream = bank.ask("The xqzzy word?", namespace="a", max_new_tokens=2, stream=True)
    seen += [repr(stream), repr(stream.answer.hits)]
    exported = bank.export(tmp_path / "export.zip")
    with bank._store.session() as session:
        from trimem.store.schema import DocumentRow

        seen += [repr(row) + repr(row.slots) for row in session.query(DocumentRow)]
    receipt = bank.forget(namespace="a")
    imported = bank.import_from(tmp_path / "export.zip")
    things = [bank, hits, hits[0].slot, answer, answer.citations, turn, exported, imported, receipt, bank.stats(), ids]
    things += [bank.receipts(namespace="a"), bank.verify(), bank.compact(), bank.config]
    seen += [repr(thing) for thing in things]
    seen += [record.getMessage() for record in caplog.records if record.name.startswith("trimem")]
    seen += capsys.readouterr()
    assert not [text for text in seen if "xqzzy" in text]
    sql = [record.getMessage() for record in caplog.records if "xqzzy" in record.getMessage()]
    assert not sql, "nobody else is told either"
    assert dataclasses.is_dataclass(answer)
