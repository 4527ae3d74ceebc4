"""A bank as middleware of LangChain's agents: they recall before the model speaks, and remember what was said."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, TypeAlias
from uuid import uuid4

from langchain.agents.middleware import AgentMiddleware, AgentState, ModelRequest, ModelResponse
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langgraph.runtime import Runtime

from trimem.bank import Bank
from trimem.banks.slot_bank import SlotBank
from trimem.checks import as_namespace, check_k
from trimem.errors import InvalidInputError, InvalidNamespaceError
from trimem.store.database import utc_now
from trimem.text.quoting import quoted
from trimem.types import Hit, Namespace, Turn

Speaker: TypeAlias = Literal["user", "assistant"]


class TrimemMiddleware(AgentMiddleware[AgentState[Any], Any, Any]):
    """Gives an agent memory across threads.

    Before the model speaks, what is remembered that fits the user's last message stands before it, as quotations:
    in the messages of that call only, so that no checkpoint keeps what is forgotten later. What is in the
    conversation already is left out. After the agent's run, what user and assistant said in it is remembered, each
    message once, however often a run is repeated.

    Whose memory it is, is told by the run's context (``context_schema`` of the agent) and by nothing a model or a
    message says.

    Args:
        bank: Any bank.
        tenant: The field of the context that names the tenant.
        namespace: Stands before the tenant in the bank.
        k: How many slots are recalled at most.
        where: Metadata a recalled slot must have, as in :meth:`trimem.Bank.recall`.
        remember: Whose messages are remembered.
        clock: Tells when they were said.

    Raises:
        InvalidInputError: ``remember`` names somebody else, or ``k`` is less than 1.
        InvalidNamespaceError: A run has no context, or one that names no tenant; raised by the run.
    """

    def __init__(
        self,
        bank: Bank,
        *,
        tenant: str = "user_id",
        namespace: str | Sequence[str] = (),
        k: int = 4,
        where: Mapping[str, Any] | None = None,
        remember: Collection[Speaker] = ("user", "assistant"),
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        super().__init__()
        if isinstance(remember, str) or not set(remember) <= {"user", "assistant"}:
            raise InvalidInputError(f'remember is a collection of "user" and "assistant", got {remember!r}')
        self._bank = bank
        self._tenant = tenant
        self._namespace: Namespace = as_namespace(namespace) if namespace else ()
        self._k = check_k(k)
        self._where = where
        self._remember = frozenset(remember)
        self._clock = clock

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any]:
        search = self._search(request)
        return handler(request if search is None else _with_notes(request, self._bank.recall(**search)))

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ModelResponse[Any]:
        search = self._search(request)
        return await handler(request if search is None else _with_notes(request, await self._bank.arecall(**search)))

    def after_agent(self, state: AgentState[Any], runtime: Runtime[Any]) -> None:
        if said := self._said(state, runtime):
            self._bank.remember(**said)

    async def aafter_agent(self, state: AgentState[Any], runtime: Runtime[Any]) -> None:
        if said := self._said(state, runtime):
            await asyncio.to_thread(lambda: self._bank.remember(**said))

    def _search(self, request: ModelRequest[Any]) -> dict[str, Any] | None:
        """Return the arguments of a recall; None where the user has said nothing."""
        namespace = self._scope(request.runtime)
        asked = _last_of_user(request.messages)
        if asked is None or not request.messages[asked].text.strip():
            return None
        known = {"message": {"$nin": [message.id for message in request.messages if message.id]}}
        where = known if self._where is None else {"$and": [self._where, known]}
        return {"query": request.messages[asked].text, "k": self._k, "namespace": namespace, "where": where}

    def _said(self, state: AgentState[Any], runtime: Runtime[Any]) -> dict[str, Any] | None:
        """Return the arguments that remember what was said in this run; None where there is nothing."""
        namespace = self._scope(runtime)
        messages = state["messages"]
        begin = _last_of_user(messages)
        said = [] if begin is None else [message for message in messages[begin:] if self._is_remembered(message)]
        if not said:
            return None
        turns = [Turn(message.name or str(_speaker(message)), self._clock(), message.text) for message in said]
        ids = [message.id or uuid4().hex for message in said]
        thread = runtime.execution_info.thread_id if runtime.execution_info else None
        about = {} if thread is None else {"thread": thread}
        return {
            "texts": [turn.said for turn in turns],
            "namespace": namespace,
            "metadata": [{**about, **turn.metadata, "message": key} for turn, key in zip(turns, ids, strict=True)],
            "ids": ids,
            **({"progress": False} if isinstance(self._bank, SlotBank) else {}),
        }

    def _is_remembered(self, message: AnyMessage) -> bool:
        return _speaker(message) in self._remember and bool(message.text.strip())

    def _scope(self, runtime: Runtime[Any]) -> Namespace:
        context = runtime.context
        told = context.get(self._tenant) if isinstance(context, Mapping) else getattr(context, self._tenant, None)
        if not isinstance(told, str) or not told:
            raise InvalidNamespaceError(
                f"the run's context must name a tenant in {self._tenant!r}, a string that is not empty, got {told!r}: "
                f"give the agent a context_schema with that field, and each run its context"
            )
        return as_namespace((*self._namespace, told))


def _speaker(message: AnyMessage) -> str | None:
    return "user" if isinstance(message, HumanMessage) else "assistant" if isinstance(message, AIMessage) else None


def _last_of_user(messages: Sequence[AnyMessage]) -> int | None:
    return next((i for i in reversed(range(len(messages))) if isinstance(messages[i], HumanMessage)), None)


def _with_notes(request: ModelRequest[Any], hits: Sequence[Hit]) -> ModelRequest[Any]:
    """Return the request with hits quoted before the user's last message."""
    at = _last_of_user(request.messages)
    if at is None or not hits:
        return request
    asked = request.messages[at]
    notes = f"{quoted(hits)}\n\n"
    content = (
        f"{notes}{asked.content}"
        if isinstance(asked.content, str)
        else [{"type": "text", "text": notes}, *asked.content]
    )
    messages = list(request.messages)
    messages[at] = asked.model_copy(update={"content": content})
    return request.override(messages=messages)
