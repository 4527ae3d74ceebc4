"""The one contract every memory keeps, whatever it is made of."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from trimem.types import BankStats, ErasureReceipt, Hit, Metadata, SlotId, StoredText, Turn

if TYPE_CHECKING:
    from trimem.lm.model import LanguageModel


class Bank(ABC):
    """A collection of memories, shared by tenants who never see each other's.

    A namespace is required wherever something is written or read; it stands for itself and all below
    it. Methods that start with ``a`` do the same off the event loop.
    """

    @abstractmethod
    def remember(
        self,
        texts: str | Turn | Sequence[str | Turn],
        *,
        namespace: str | Sequence[str],
        metadata: Metadata | Sequence[Metadata] | None = None,
        ids: str | Sequence[str] | None = None,
    ) -> list[SlotId]:
        """Store texts and return the slots that hold them; the same again changes nothing.

        Args:
            texts: One or many. A :class:`trimem.Turn` is what somebody says in a conversation.
            namespace: Whose they are.
            metadata: Stored beside them, one for all or one each; ``"source"`` names where a text came
                from.
            ids: Keys of the texts, one each: a new text under an old key replaces it. By default the
                text is its own key.
        """

    @abstractmethod
    def recall(
        self, query: str, k: int = 4, *, namespace: str | Sequence[str], where: Mapping[str, Any] | None = None
    ) -> list[Hit]:
        """Return the best ``k`` slots for ``query``, best first.

        Args:
            query: What to look for.
            k: How many at most.
            namespace: Where to look, and below.
            where: Metadata a slot must have: each key the value given, or one of a list of values, or
                within bounds, ``{"time": {"$gte": "2026-05-01", "$lt": "2026-06-01"}}``, by $gt, $gte, $lt
                and $lte, for numbers and for times in ISO 8601. Runs before the choice of the best.
        """

    @abstractmethod
    def get(self, ids: str | Collection[str], *, namespace: str | Sequence[str]) -> list[StoredText]:
        """Return whole texts by their keys, in the order of ``ids``; those that are not there are left out.

        Args:
            ids: Keys: the ids given to :meth:`remember`, or ``hit.slot.document`` of what was found.
            namespace: Where, and below.
        """

    @abstractmethod
    def forget(
        self,
        *,
        namespace: str | Sequence[str],
        ids: str | Collection[str] | None = None,
        where: Mapping[str, Any] | None = None,
    ) -> ErasureReceipt:
        """Erase slots from the disk: rows, words in the index, tensors. Without ids and filter, all.

        Args:
            namespace: Where, and below.
            ids: Slots, or the keys of whole texts.
            where: Metadata that what is to go must have.
        """

    @abstractmethod
    def attach(self, model: LanguageModel, *, hits: Sequence[Hit]) -> AbstractContextManager[Any]:
        """Let a model read ``hits`` for the length of a ``with`` block."""

    @abstractmethod
    def stats(self, *, namespace: str | Sequence[str] | None = None) -> BankStats:
        """Count what is stored, in all or under one namespace."""

    @abstractmethod
    def close(self) -> None:
        """Let go of files; using the bank afterwards opens them again."""

    async def aremember(
        self,
        texts: str | Turn | Sequence[str | Turn],
        *,
        namespace: str | Sequence[str],
        metadata: Metadata | Sequence[Metadata] | None = None,
        ids: str | Sequence[str] | None = None,
    ) -> list[SlotId]:
        """:meth:`remember`, off the event loop."""
        return await asyncio.to_thread(self.remember, texts, namespace=namespace, metadata=metadata, ids=ids)

    async def arecall(
        self, query: str, k: int = 4, *, namespace: str | Sequence[str], where: Mapping[str, Any] | None = None
    ) -> list[Hit]:
        """:meth:`recall`, off the event loop."""
        return await asyncio.to_thread(self.recall, query, k, namespace=namespace, where=where)

    async def aget(self, ids: str | Collection[str], *, namespace: str | Sequence[str]) -> list[StoredText]:
        """:meth:`get`, off the event loop."""
        return await asyncio.to_thread(self.get, ids, namespace=namespace)

    async def aforget(
        self,
        *,
        namespace: str | Sequence[str],
        ids: str | Collection[str] | None = None,
        where: Mapping[str, Any] | None = None,
    ) -> ErasureReceipt:
        """:meth:`forget`, off the event loop."""
        return await asyncio.to_thread(self.forget, namespace=namespace, ids=ids, where=where)

    async def astats(self, *, namespace: str | Sequence[str] | None = None) -> BankStats:
        """:meth:`stats`, off the event loop."""
        return await asyncio.to_thread(self.stats, namespace=namespace)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
