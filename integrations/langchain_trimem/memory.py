"""Banks as LangChain memories: what was said is remembered turn by turn, and recalled by what is said now."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, Self

from langchain_core.documents import Document
from langchain_core.messages import BaseMessage, HumanMessage
from pydantic import Field

from langchain_trimem._banks import HoldsBank, documents
from trimem.checks import as_namespace
from trimem.errors import InvalidInputError
from trimem.store.database import utc_now
from trimem.text.quoting import quoted
from trimem.types import Hit, Namespace, Turn

try:
    from langchain_classic.base_memory import BaseMemory
except ModuleNotFoundError:  # where it was before LangChain 1.0
    from langchain_core.memory import BaseMemory  # type: ignore[import-not-found, no-redef]


class BankMemory(HoldsBank, BaseMemory):
    """Remembers a conversation in a bank, and recalls from all of it what belongs to the new input.

    A prompt that holds ``{history}`` gets the turns that were found, in the order in which they were said, as
    quotations: what somebody said earlier informs the model and does not instruct it.
    """

    memory_key: str = "history"
    """The variable that holds what was recalled."""
    input_key: str | None = None
    """Which input is remembered and searched for; None where there is but one besides the session."""
    output_key: str | None = None
    """Which output is remembered; None where there is but one."""
    session_key: str | None = None
    """An input that names a session: it is appended to the namespace, so that sessions do not see each other."""
    return_messages: bool = False
    """Whether the variable holds messages, for a ``MessagesPlaceholder``, instead of text."""
    return_docs: bool = False
    """Whether it holds documents, best first."""
    k: int = Field(default=4, ge=1)
    """How many turns at most, or pieces of long ones."""
    min_trust: float = Field(default=0.0, ge=0, le=1)
    """How far a turn must be trusted at least."""
    ttl: timedelta | None = None
    """How long a turn is held; None is for ever."""
    human: str = "Human"
    """What the speaker of inputs is called."""
    ai: str = "AI"
    """What the speaker of outputs is called."""
    clock: Callable[[], datetime] = Field(default=utc_now, repr=False, exclude=True)
    """Tells when a turn is said."""

    @property
    def memory_variables(self) -> list[str]:
        return [self.memory_key]

    def load_memory_variables(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Recall what belongs to the input.

        Raises:
            InvalidInputError: It is not clear which input is meant, or the session is not named.
        """
        query = self._input(inputs)
        return self._variables(self.bank.recall(query, **self._scope(inputs)) if query.strip() else [])

    async def aload_memory_variables(self, inputs: dict[str, Any]) -> dict[str, Any]:
        query = self._input(inputs)
        return self._variables(await self.bank.arecall(query, **self._scope(inputs)) if query.strip() else [])

    def save_context(self, inputs: dict[str, Any], outputs: dict[str, Any]) -> None:
        """Remember input and output as a turn each; one that is empty is left out.

        Raises:
            InvalidInputError: It is not clear which input or output is meant, or the session is not named.
        """
        if turns := self._turns(inputs, outputs):
            self.bank.remember(turns, namespace=self._path(inputs), ttl=self.ttl)

    async def asave_context(self, inputs: dict[str, Any], outputs: dict[str, Any]) -> None:
        if turns := self._turns(inputs, outputs):
            await self.bank.aremember(turns, namespace=self._path(inputs), ttl=self.ttl)

    def clear(self) -> None:
        """Erase all of the namespace from the disk, every session of it; see :meth:`session` for one."""
        self.bank.forget(namespace=self.namespace)

    async def aclear(self) -> None:
        await self.bank.aforget(namespace=self.namespace)

    def session(self, name: str) -> Self:
        """Return the memory of one session, to clear it, say."""
        return self.model_copy(update={"namespace": (*as_namespace(self.namespace), name), "session_key": None})

    def _scope(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return {"k": self.k, "namespace": self._path(inputs), "min_trust": self.min_trust}

    def _path(self, inputs: Mapping[str, Any]) -> Namespace:
        path = as_namespace(self.namespace)
        if self.session_key is None:
            return path
        if self.session_key not in inputs:
            raise InvalidInputError(
                f"the session is named by the input {self.session_key!r}, which is missing among {sorted(inputs)}"
            )
        return as_namespace((*path, inputs[self.session_key]))

    def _input(self, inputs: Mapping[str, Any]) -> str:
        others = {self.memory_key, self.session_key, "stop"}
        return _text(_only(self.input_key, [key for key in inputs if key not in others], "input_key"), inputs)

    def _turns(self, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> list[Turn]:
        output = _text(_only(self.output_key, list(outputs), "output_key"), outputs)
        now = self.clock()
        said = ((self.human, self._input(inputs)), (self.ai, output))
        return [Turn(speaker, now, text) for speaker, text in said if text.strip()]

    def _variables(self, hits: Sequence[Hit]) -> dict[str, str | list[BaseMessage] | list[Document]]:
        if self.return_docs:
            return {self.memory_key: documents(hits)}
        text = quoted(sorted(hits, key=self._when))
        messages: list[BaseMessage] = [HumanMessage(text)] if text else []
        return {self.memory_key: messages if self.return_messages else text}

    def _when(self, hit: Hit) -> tuple[datetime, bool, int]:
        return hit.slot.created_at, hit.metadata.get("speaker") == self.ai, hit.slot.start


class ExplicitMemory(BankMemory):
    """Remembers a conversation in an :class:`trimem.ExplicitBank`; see :class:`BankMemory`."""

    bank_type = "ExplicitBank"


class ResonanceMemory(BankMemory):
    """Remembers a conversation in a :class:`trimem.ResonanceBank`, word for word; see :class:`BankMemory`."""

    bank_type = "ResonanceBank"

    by: Literal["auto", "sound", "meaning", "place"] = "auto"
    """How it is found, as in :meth:`trimem.ResonanceBank.recall`; by sound, what was misheard is found, too."""

    def _scope(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return {**super()._scope(inputs), "by": self.by}


class TransitMemory(BankMemory):
    """Remembers a conversation in a :class:`trimem.TransitBank`, where unused turns fade; see :class:`BankMemory`."""

    bank_type = "TransitBank"


def _only(named: str | None, keys: Sequence[str], field: str) -> str:
    """Return the key that is meant."""
    if named is None and len(keys) != 1:
        raise InvalidInputError(f"{field} must say which of {sorted(keys)} is meant")
    return keys[0] if named is None else named


def _text(key: str, values: Mapping[str, Any]) -> str:
    """Return what is said under a key, in a string or a message."""
    if key not in values:
        raise InvalidInputError(f"{key!r} is missing among {sorted(values)}")
    value = values[key]
    if isinstance(value, BaseMessage):
        value = value.text
    if not isinstance(value, str):
        raise InvalidInputError(f"{key!r} must be a string or a message, got {type(value).__name__}")
    return str(value)
