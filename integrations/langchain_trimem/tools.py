"""Memory as tools that a model calls: remember, recall, forget."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

from langchain_core.documents import Document
from langchain_core.tools import BaseTool, StructuredTool, ToolException
from pydantic import BaseModel, Field

from langchain_trimem._banks import documents
from trimem.bank import Bank
from trimem.checks import check_k
from trimem.errors import InvalidInputError, InvalidNamespaceError
from trimem.text.quoting import quoted
from trimem.types import Hit, Metadata

Scope: TypeAlias = str | Sequence[str] | Callable[[], str | Sequence[str]]
"""A namespace, or what tells it at each call: from the context of a run, say."""


class Remember(BaseModel):
    """What the tool ``remember`` is called with."""

    text: str = Field(description="What to remember, in sentences that can be understood on their own.")


class Recall(BaseModel):
    """What the tool ``recall`` is called with."""

    query: str = Field(description="What to look for, in a few words or as a question.")


class Forget(BaseModel):
    """What the tool ``forget`` is called with."""

    ids: list[str] = Field(description="The ids that stand in brackets before recalled notes.", min_length=1)


PROVENANCE = "a model"
"""Who what is remembered by the tool is from."""


def memory_tools(
    bank: Bank,
    namespace: Scope,
    *,
    k: int = 4,
    metadata: Metadata | None = None,
    trust: float | None = None,
    min_trust: float = 0.0,
) -> list[BaseTool]:
    """Return the tools ``remember``, ``recall`` and ``forget`` for a bank.

    Whose memory it is, is fixed here and no argument of the tools: a model cannot reach another tenant's.
    What the model does wrong, such as an empty text, it is told; other errors are raised.

    Args:
        bank: The bank.
        namespace: Whose memory is read, written and erased; or a function that tells it at each call.
        k: How many notes ``recall`` returns at most.
        metadata: Stored beside what is remembered, whose provenance is :data:`PROVENANCE`.
        trust: How far what is remembered is to be trusted, from 0 to 1; fully by default.
        min_trust: How far notes must be trusted at least to be recalled.
    """
    return [
        remember_tool(bank, namespace, metadata=metadata, trust=trust),
        recall_tool(bank, namespace, k=k, min_trust=min_trust),
        forget_tool(bank, namespace),
    ]


def remember_tool(
    bank: Bank, namespace: Scope, *, metadata: Metadata | None = None, trust: float | None = None
) -> BaseTool:
    """Return the tool ``remember``; see :func:`memory_tools`. Its artifact is the ids of the slots."""
    about: dict[str, Any] = {"metadata": metadata, "provenance": PROVENANCE, "trust": trust}

    def remember(text: str) -> tuple[str, list[str]]:
        with _model_errors():
            return _remembered(bank.remember(text, namespace=_told(namespace), **about))

    async def aremember(text: str) -> tuple[str, list[str]]:
        with _model_errors():
            return _remembered(await bank.aremember(text, namespace=_told(namespace), **about))

    return _tool(remember, aremember, Remember, "Remember something for later conversations.")


def recall_tool(bank: Bank, namespace: Scope, *, k: int = 4, min_trust: float = 0.0) -> BaseTool:
    """Return the tool ``recall``; see :func:`memory_tools`. Its artifact is the documents."""
    check_k(k)

    def recall(query: str) -> tuple[str, list[Document]]:
        with _model_errors():
            return _recalled(bank.recall(query, k, namespace=_told(namespace), min_trust=min_trust))

    async def arecall(query: str) -> tuple[str, list[Document]]:
        with _model_errors():
            return _recalled(await bank.arecall(query, k, namespace=_told(namespace), min_trust=min_trust))

    return _tool(recall, arecall, Recall, "Look for what was remembered earlier. Each note begins with its id.")


def forget_tool(bank: Bank, namespace: Scope) -> BaseTool:
    """Return the tool ``forget``; see :func:`memory_tools`. Its artifact is the ids of the slots that are gone."""

    def forget(ids: list[str]) -> tuple[str, list[str]]:
        with _model_errors():
            return _forgotten(bank.forget(namespace=_told(namespace), ids=ids).slots)

    async def aforget(ids: list[str]) -> tuple[str, list[str]]:
        with _model_errors():
            return _forgotten((await bank.aforget(namespace=_told(namespace), ids=ids)).slots)

    return _tool(forget, aforget, Forget, "Erase notes from memory for good, by the ids that recall shows.")


@contextmanager
def _model_errors() -> Iterator[None]:
    """Hand what a model's arguments caused back to it; a namespace is not its business."""
    try:
        yield
    except InvalidNamespaceError:
        raise
    except InvalidInputError as error:
        raise ToolException(str(error)) from error


def _tool(
    function: Callable[..., object], coroutine: Callable[..., object], schema: type[BaseModel], description: str
) -> BaseTool:
    return StructuredTool.from_function(
        function,
        coroutine,  # type: ignore[arg-type]  # an async function is more than a Callable
        name=function.__name__,
        description=description,
        args_schema=schema,
        response_format="content_and_artifact",
        handle_tool_error=True,
    )


def _told(namespace: Scope) -> str | Sequence[str]:
    return namespace() if callable(namespace) else namespace


def _remembered(slots: Sequence[str]) -> tuple[str, list[str]]:
    return "Remembered.", list(slots)


def _recalled(hits: Sequence[Hit]) -> tuple[str, list[Document]]:
    return quoted(hits, ids=True) or "Nothing is remembered about that.", documents(hits)


def _forgotten(slots: Sequence[str]) -> tuple[str, list[str]]:
    notes = "note" if len(slots) == 1 else "notes"
    return f"Forgot {len(slots)} {notes}.", list(slots)
