"""Banks as memories of LlamaIndex's agents and chat engines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Self
from uuid import uuid4

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.llms import LLM
from llama_index.core.memory import BaseMemory, BaseMemoryBlock, ChatMemoryBuffer
from llama_index.core.utils import get_tokenizer
from pydantic import ConfigDict, Field, SkipValidation, model_validator

from llama_index_trimem._messages import asked, beyond, remembered, with_notes
from trimem.bank import Bank
from trimem.banks.items import Items, NewItem
from trimem.banks.slot_bank import SlotBank
from trimem.checks import MOST_HITS, as_namespace
from trimem.errors import InvalidInputError
from trimem.reports import ErasureReceipt
from trimem.text.quoting import HEADER, quoted
from trimem.types import Namespace


class TrimemMemoryBlock(BaseMemoryBlock[str]):
    """What a ``Memory`` of LlamaIndex no longer holds, or was never told in this session, recalled as quotations.

    A session reads and writes its own memory, unless it is to read across sessions. One block may serve many
    sessions; what it recalls is for the model to read, never to obey.
    """

    name: str = Field(default="TrimemMemory")
    """What the block is called in the prompt."""
    description: str | None = Field(default="What was said before, recalled.")
    """What it holds."""
    priority: int = Field(default=1)
    """When it is cut; 0 is never."""
    bank: SkipValidation[Bank] = Field(exclude=True, repr=False)
    """The bank."""
    namespace: str | tuple[str, ...]
    """Whose memory it is: one user's, say. Sessions lie below it."""
    k: int = Field(default=4, ge=1)
    """How many slots are recalled at most."""
    across_sessions: bool = False
    """Whether all sessions of the namespace are read; each writes its own all the same."""
    eager: bool = False
    """Whether what the block is shown is remembered at once; else what the short-term memory lets go of. A reply is
    shown when the memory is next read; ``aput`` stores it before that, and nothing twice."""
    tokenizer_fn: SkipValidation[Callable[[str], list[Any]]] = Field(
        default_factory=get_tokenizer, exclude=True, repr=False
    )
    """Counts tokens where content is cut."""

    async def _aget(self, messages: list[ChatMessage] | None = None, session_id: str | None = None, **_: Any) -> str:
        shown = messages or []
        session = self._session(session_id)
        if self.eager:
            await self._remember(shown, session)
        query = asked(shown)
        if not query:
            return ""
        namespace = as_namespace(self.namespace) if self.across_sessions else session
        return quoted(await self.bank.arecall(query, self.k, namespace=namespace, where=beyond(shown)))

    async def _aput(self, messages: list[ChatMessage]) -> None:
        by_session: dict[str | None, list[ChatMessage]] = {}
        for message in messages:
            by_session.setdefault(message.additional_kwargs.get("session_id"), []).append(message)
        sessions = {self._session(session): said for session, said in by_session.items()}
        for session, said in sessions.items():
            await self._remember(said, session)

    async def atruncate(self, content: str, tokens_to_truncate: int) -> str | None:
        """Leave out quotations, the worst first, until so many tokens are saved; None where none is left."""
        parts = content.split("\n\n")
        wanted = len(self.tokenizer_fn(content)) - tokens_to_truncate
        while len(parts) > 1 and len(self.tokenizer_fn("\n\n".join(parts))) > wanted:
            parts.pop()
        return "\n\n".join(parts) if parts[1:] or parts != [HEADER] else None

    async def aforget(self, session_id: str | None = None) -> ErasureReceipt:
        """Erase what one session remembered, or without one all sessions of the namespace, from the disk."""
        namespace = as_namespace(self.namespace) if session_id is None else self._session(session_id)
        return await self.bank.aforget(namespace=namespace)

    async def _remember(self, messages: Sequence[ChatMessage], session: Namespace) -> None:
        if said := remembered(messages, {"session": session[-1]}):
            quiet: dict[str, Any] = {"progress": False} if isinstance(self.bank, SlotBank) else {}
            await asyncio.to_thread(lambda: self.bank.remember(**said, **quiet, namespace=session))

    def _session(self, session_id: object) -> Namespace:
        return _session(self.namespace, session_id)


class TrimemMemory(BaseMemory):
    """A conversation that outlives the process: all that was said in it, and what fits recalled from long ago.

    The newest messages that fit ``token_limit`` are read as they are; what is recalled stands quoted before the
    user's last one. Messages are stored as they come, whole, and erased by ``reset``. Async methods run off the event
    loop.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    bank: SkipValidation[SlotBank] = Field(exclude=True, repr=False)
    """The bank."""
    namespace: str | tuple[str, ...]
    """Whose memory it is: one user's, say."""
    session_id: str
    """Which of the user's conversations; it lies below the namespace."""
    k: int = Field(default=4, ge=1)
    """How many slots are recalled at most."""
    across_sessions: bool = False
    """Whether all conversations of the namespace are recalled from."""
    token_limit: int = Field(default=3000, ge=1)
    """Most tokens of the newest messages; what is recalled is not counted."""
    tokenizer_fn: SkipValidation[Callable[[str], list[Any]]] = Field(
        default_factory=get_tokenizer, exclude=True, repr=False
    )
    """Counts them."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not isinstance(self.bank, SlotBank):
            raise InvalidInputError(f"bank must be one of trimem's banks, got {type(self.bank).__name__}")
        _session(self.namespace, self.session_id)
        return self

    @classmethod
    def class_name(cls) -> str:
        return "TrimemMemory"

    @classmethod
    def from_defaults(
        cls, chat_history: list[ChatMessage] | None = None, llm: LLM | None = None, **fields: Any
    ) -> Self:
        """Return a memory.

        Args:
            chat_history: What was said; it replaces what the session holds.
            llm: Three quarters of its context are read, unless ``token_limit`` is given.
            fields: Those of the class.
        """
        if llm is not None:
            fields.setdefault("token_limit", int(llm.metadata.context_window * 0.75))
        memory = cls(**fields)
        if chat_history is not None:
            memory.set(chat_history)
        return memory

    def get(self, input: str | None = None, **kwargs: Any) -> list[ChatMessage]:
        """Return the newest messages with what is recalled for ``input``, or for what the user said last."""
        buffer = ChatMemoryBuffer.from_defaults(
            self.get_all(), token_limit=self.token_limit, tokenizer_fn=self.tokenizer_fn
        )
        newest = buffer.get(**kwargs)
        query = (input or "").strip() or asked(newest)
        if not query:
            return newest
        namespace = as_namespace(self.namespace) if self.across_sessions else self._path
        return with_notes(newest, self.bank.recall(query, self.k, namespace=namespace, where=beyond(newest)))

    def get_all(self) -> list[ChatMessage]:
        found = self._items.search(limit=MOST_HITS)
        return [ChatMessage.model_validate(item.value["chat"]) for item in reversed(found)]

    def put(self, message: ChatMessage) -> None:
        self.put_messages([message])

    def put_messages(self, messages: list[ChatMessage]) -> None:
        self._items.write([NewItem((), uuid4().hex, {"chat": each.model_dump(mode="json")}) for each in messages])
        if said := remembered(messages, {"session": self.session_id}):
            self.bank.remember(**said, namespace=self._path, progress=False)

    def set(self, messages: list[ChatMessage]) -> None:
        self.reset()
        self.put_messages(messages)

    def reset(self) -> None:
        """Erase the conversation from the disk, and what is remembered of it."""
        self.bank.forget(namespace=self._path)

    async def aforget(self) -> ErasureReceipt:
        """Erase all conversations of the namespace, and what is remembered of them."""
        return await asyncio.to_thread(self.bank.forget, namespace=as_namespace(self.namespace))

    @property
    def _path(self) -> Namespace:
        return _session(self.namespace, self.session_id)

    @property
    def _items(self) -> Items:
        return self.bank.items(namespace=self._path)


def _session(namespace: str | Sequence[str], session_id: object) -> Namespace:
    if not isinstance(session_id, str) or not session_id:
        raise InvalidInputError(f"whose session it is must be said: a session_id that is not empty, got {session_id!r}")
    return as_namespace((*as_namespace(namespace), session_id))
