"""The one contract every memory keeps, whatever it is made of."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self

from trimem.reports import BankStats, ErasureReceipt, EvictionReport
from trimem.types import Hit, Metadata, SlotId, StoredText, Turn

if TYPE_CHECKING:
    from trimem.lm.model import LanguageModel


class Bank(ABC):
    """A collection of memories, shared by tenants who never see each other's.

    A namespace is required wherever something is written or read; it stands for itself and all below
    it. Methods that start with ``a`` do the same off the event loop.
    """

    attachable: ClassVar[bool] = True
    """Whether a model can attend to what it holds; where it cannot, :meth:`attach` refuses."""

    @property
    def instruction(self) -> str:
        """What a model reads before that, in its system message; empty where nothing can be attached."""
        return ""

    @abstractmethod
    def remember(
        self,
        texts: str | Turn | Sequence[str | Turn],
        *,
        namespace: str | Sequence[str],
        metadata: Metadata | Sequence[Metadata] | None = None,
        ids: str | Sequence[str] | None = None,
        ttl: timedelta | None = None,
        provenance: str | None = None,
        trust: float | None = None,
        near_duplicates: float | None = None,
    ) -> list[SlotId]:
        """Store texts and return the slots that hold them; the same again changes nothing.

        Args:
            texts: One or many. A :class:`trimem.Turn` is what somebody says in a conversation.
            namespace: Whose they are.
            metadata: Stored beside them, one for all or one each; ``"source"`` names where a text came
                from.
            ids: Keys of the texts, one each: a new text under an old key replaces it. By default the
                text is its own key.
            ttl: How long they are held from now on; then they are gone from every read at once, and from the disk
                at the next opening, writing or :meth:`evict`.
            provenance: Who or what they are from, to be shown with them.
            trust: How far they are to be trusted, from 0 to 1.
            near_duplicates: The cosine from which on a text is not stored because one of the same namespace says
                almost the same; that one's slots are returned. None stores all.

        What is not given is as it was, for texts that are stored already; new ones are held for ever, from nobody
        knows where, and trusted fully.
        """

    @abstractmethod
    def recall(
        self,
        query: str,
        k: int = 4,
        *,
        namespace: str | Sequence[str],
        where: Mapping[str, Any] | None = None,
        min_trust: float = 0.0,
    ) -> list[Hit]:
        """Return the best ``k`` slots for ``query``, best first.

        Args:
            query: What to look for.
            k: How many at most.
            namespace: Where to look, and below.
            where: Metadata a slot must have: each key the value given, or one of a list of values, or
                within bounds, ``{"time": {"$gte": "2026-05-01", "$lt": "2026-06-01"}}``, by $gt, $gte, $lt
                and $lte, for numbers and for times in ISO 8601. Runs before the choice of the best.
            min_trust: The least trust of a slot, from 0 to 1; likewise.
        """

    @abstractmethod
    def get(self, ids: str | Collection[str], *, namespace: str | Sequence[str]) -> list[StoredText]:
        """Return whole texts by their keys, in the order of ``ids``; those that are not there are left out.

        Args:
            ids: Keys: the ids given to :meth:`remember`, or ``hit.slot.document`` of what was found.
            namespace: Where, and below.
        """

    @abstractmethod
    def refresh(self, *, namespace: str | Sequence[str], ids: str | Collection[str], ttl: timedelta | None) -> int:
        """Let texts be held for ``ttl`` from now on; None is for ever.

        Args:
            namespace: Of exactly which they are.
            ids: Their keys, or slots of theirs.
            ttl: How long.

        Returns:
            How many texts there are of those; what has expired is none.
        """

    @abstractmethod
    def evict(self) -> EvictionReport:
        """Erase from the disk, now and for every tenant, what has expired and what is more than the bank may hold."""

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
    def receipts(self, *, namespace: str | Sequence[str]) -> list[ErasureReceipt]:
        """Return the receipts of what was erased in a namespace and below, oldest first."""

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
        ttl: timedelta | None = None,
        provenance: str | None = None,
        trust: float | None = None,
        near_duplicates: float | None = None,
        **options: Any,
    ) -> list[SlotId]:
        """:meth:`remember`, off the event loop; ``options`` are what only some banks take."""
        terms: dict[str, Any] = {
            "ttl": ttl,
            "provenance": provenance,
            "trust": trust,
            "near_duplicates": near_duplicates,
            **options,
        }
        return await asyncio.to_thread(self.remember, texts, namespace=namespace, metadata=metadata, ids=ids, **terms)

    async def arecall(
        self,
        query: str,
        k: int = 4,
        *,
        namespace: str | Sequence[str],
        where: Mapping[str, Any] | None = None,
        min_trust: float = 0.0,
        **options: Any,
    ) -> list[Hit]:
        """:meth:`recall`, off the event loop; ``options`` are what only some banks take."""
        terms: dict[str, Any] = {"where": where, "min_trust": min_trust, **options}
        return await asyncio.to_thread(self.recall, query, k, namespace=namespace, **terms)

    async def arefresh(
        self, *, namespace: str | Sequence[str], ids: str | Collection[str], ttl: timedelta | None
    ) -> int:
        """:meth:`refresh`, off the event loop."""
        return await asyncio.to_thread(self.refresh, namespace=namespace, ids=ids, ttl=ttl)

    async def aevict(self) -> EvictionReport:
        """:meth:`evict`, off the event loop."""
        return await asyncio.to_thread(self.evict)

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
