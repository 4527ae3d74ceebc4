"""Spans of what a bank does, by OpenTelemetry's semantic conventions for generative AI: memory and inference spans.

Nothing is done, and nothing imported, in a process that did not import OpenTelemetry itself. Spans say how much and
how long, never what: texts, questions, answers, namespaces and messages of errors are left out, unless
``OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT`` asks for content on spans.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from trimem.types import Answer

CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
"""The variable that asks for content, as the conventions have it."""

_CAPTURING = {"true", "1", "span_only", "span_and_event"}

COMPILE = "compile_memory"
"""The one operation that the conventions do not name: making the tensors of slots."""

_OPERATIONS = {
    "remember": "upsert_memory",
    "recall": "search_memory",
    "forget": "delete_memory",
    "_write": COMPILE,
    "_compile": COMPILE,
}
_inside: ContextVar[tuple[object, str] | None] = ContextVar("_inside", default=None)


def traced(cls: type) -> None:
    """Give methods that a class of banks defines their spans; a call of the same one that it inherits gets none."""
    for name, operation in _OPERATIONS.items():
        if name in vars(cls):
            setattr(cls, name, _traced(vars(cls)[name], operation))


class Asking:
    """The span of what a model says, from the question to the last word, in whichever threads that happens.

    Args:
        store: What the bank is called.
        model: What the model is called.
        question: What is asked.
        max_new_tokens: Most tokens of the answer.
    """

    def __init__(self, store: str, model: str, question: str, max_new_tokens: int) -> None:
        self._question = question
        self._span: Span | None = None
        if "opentelemetry.trace" in sys.modules:
            about = {"gen_ai.request.model": model, "gen_ai.request.max_tokens": max_new_tokens}
            self._span = _begun("chat", f"chat {model}", store, about)

    @contextmanager
    def under(self) -> Iterator[None]:
        """Let spans of what happens in a ``with`` block belong under this one; an error ends it."""
        if self._span is None:
            yield
            return
        with _current(self._span):
            yield

    def answered(self, answer: Answer) -> None:
        """Say what came of it, which ends it."""
        if self._span is None:
            return
        self._span.set_attributes(
            {
                "gen_ai.usage.input_tokens": answer.prompt_tokens,
                "gen_ai.usage.output_tokens": answer.new_tokens,
                "gen_ai.memory.record.count": len(answer.hits),
                "gen_ai.response.time_to_first_chunk": answer.timings.first_token,
            }
        )
        if _content():
            self._span.set_attribute("gen_ai.input.messages", _messages("user", self._question))
            self._span.set_attribute("gen_ai.output.messages", _messages("assistant", answer.text))
        self._span.end()


def _traced(method: Callable[..., Any], operation: str) -> Callable[..., Any]:
    @functools.wraps(method)
    def run(bank: Any, *args: Any, **kwargs: Any) -> Any:
        if "opentelemetry.trace" not in sys.modules or _inside.get() == (bank, operation):
            return method(bank, *args, **kwargs)
        token = _inside.set((bank, operation))
        try:
            span = _begun(operation, operation, bank.folder.name, {})
            with _current(span):
                result = method(bank, *args, **kwargs)
                span.set_attributes(_told(operation, args, kwargs, result))
            span.end()
            return result
        finally:
            _inside.reset(token)

    return run


def _begun(operation: str, name: str, store: str, about: Mapping[str, Any]) -> Span:
    from opentelemetry.trace import SpanKind, get_tracer

    attributes = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": "trimem",
        "gen_ai.memory.store.id": store,
        **about,
    }
    return get_tracer("trimem").start_span(name, kind=SpanKind.INTERNAL, attributes=attributes)


@contextmanager
def _current(span: Span) -> Iterator[None]:
    """Make a span the current one; an error ends it, and shows by its name, since its message quotes what was given."""
    from opentelemetry.trace import Status, StatusCode, use_span

    with use_span(span, record_exception=False, set_status_on_exception=False):
        try:
            yield
        except BaseException as error:
            span.set_attribute("error.type", type(error).__name__)
            span.set_status(Status(StatusCode.ERROR, str(error) if _content() else None))
            span.end()
            raise


def _told(operation: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any) -> dict[str, Any]:
    """Return what a span says of an operation that was done."""
    told: dict[str, Any] = {"gen_ai.memory.record.count": _count(operation, args, result)}
    if not _content() or operation == COMPILE:
        return told
    given = args[0] if args else kwargs.get("query", kwargs.get("texts"))
    if operation == "search_memory":
        told["gen_ai.memory.query.text"] = str(given)
        records = [{"id": hit.id, "content": hit.text, "score": hit.score} for hit in result]
        told["gen_ai.memory.records"] = json.dumps(records, ensure_ascii=False)
    elif operation == "upsert_memory":
        texts = [given] if isinstance(given, str) or not isinstance(given, list | tuple) else given
        records = [{"content": str(getattr(text, "said", text))} for text in texts]
        told["gen_ai.memory.records"] = json.dumps(records, ensure_ascii=False)
    return told


def _count(operation: str, args: tuple[Any, ...], result: Any) -> int:
    if operation == "delete_memory":
        return len(result.slots)
    if operation == COMPILE:
        return sum(map(len, result.values())) if isinstance(result, dict) else len(args[0])
    return len(result)


def _content() -> bool:
    return os.environ.get(CAPTURE, "").lower() in _CAPTURING


def _messages(role: str, text: str) -> str:
    return json.dumps([{"role": role, "parts": [{"type": "text", "content": text}]}], ensure_ascii=False)
