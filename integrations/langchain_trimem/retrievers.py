"""Banks as LangChain retrievers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever, LangSmithRetrieverParams
from pydantic import Field

from langchain_trimem._banks import HoldsBank, documents


class BankRetriever(HoldsBank, BaseRetriever):
    """Finds slots in a bank.

    ``k``, ``namespace`` and ``filter`` may be given anew with every ``invoke`` and ``ainvoke``. A
    document's ``metadata`` holds the ``score``, and its ``id`` is the slot's.
    """

    k: int = Field(default=4, ge=1)
    """How many documents at most."""
    filter: dict[str, Any] | None = None
    """Metadata a document must have, as ``where`` of :meth:`trimem.Bank.recall`."""
    min_trust: float = Field(default=0.0, ge=0, le=1)
    """How far a document must be trusted at least."""

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        k: int | None = None,
        namespace: str | Sequence[str] | None = None,
        filter: Mapping[str, Any] | None = None,
    ) -> list[Document]:
        return documents(self.bank.recall(query, **self._scope(k, namespace, filter)))

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,
        k: int | None = None,
        namespace: str | Sequence[str] | None = None,
        filter: Mapping[str, Any] | None = None,
    ) -> list[Document]:
        return documents(await self.bank.arecall(query, **self._scope(k, namespace, filter)))

    def _scope(
        self, k: int | None, namespace: str | Sequence[str] | None, filter: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        return {
            "k": self.k if k is None else k,
            "namespace": self.namespace if namespace is None else namespace,
            "where": self.filter if filter is None else filter,
            "min_trust": self.min_trust,
        }

    def _get_ls_params(self, **kwargs: Any) -> LangSmithRetrieverParams:
        params = super()._get_ls_params(**kwargs)
        params["ls_vector_store_provider"] = "trimem"
        return params


class ExplicitRetriever(BankRetriever):
    """Finds references in an :class:`trimem.ExplicitBank`, by words and by meaning; see :class:`BankRetriever`."""

    bank_type = "ExplicitBank"


class ResonanceRetriever(BankRetriever):
    """Finds what was said in a :class:`trimem.ResonanceBank`, by meaning, sound or place: a :class:`BankRetriever`."""

    bank_type = "ResonanceBank"

    by: Literal["auto", "sound", "meaning", "place"] = "auto"
    """How it is found, as in :meth:`trimem.ResonanceBank.recall`; by sound, what was misheard is found, too."""

    def _scope(
        self, k: int | None, namespace: str | Sequence[str] | None, filter: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        return {**super()._scope(k, namespace, filter), "by": self.by}


class TransitRetriever(BankRetriever):
    """Finds what has not faded yet in a :class:`trimem.TransitBank`; see :class:`BankRetriever`."""

    bank_type = "TransitBank"
