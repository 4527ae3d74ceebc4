"""Banks as LangChain retrievers."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever, LangSmithRetrieverParams
from pydantic import Field, SkipValidation

from trimem.bank import Bank
from trimem.types import Hit


class ExplicitRetriever(BaseRetriever):
    """Finds references in an :class:`trimem.ExplicitBank`, by words and by meaning.

    ``k``, ``namespace`` and ``filter`` may be given anew with every ``invoke`` and ``ainvoke``. A
    document's ``metadata`` holds the ``score``, and its ``id`` is the slot's.
    """

    bank: SkipValidation[Bank] = Field(repr=False, exclude=True)
    """The bank."""
    namespace: str | tuple[str, ...]
    """Whose memory is searched, and below."""
    k: int = Field(default=4, ge=1)
    """How many documents at most."""
    filter: dict[str, Any] | None = None
    """Metadata a document must have: each key the value given, or one of a list of values."""

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        k: int | None = None,
        namespace: str | Sequence[str] | None = None,
        filter: Mapping[str, Any] | None = None,
    ) -> list[Document]:
        return _documents(self.bank.recall(query, **self._scope(k, namespace, filter)))

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,
        k: int | None = None,
        namespace: str | Sequence[str] | None = None,
        filter: Mapping[str, Any] | None = None,
    ) -> list[Document]:
        return _documents(await self.bank.arecall(query, **self._scope(k, namespace, filter)))

    def _scope(
        self, k: int | None, namespace: str | Sequence[str] | None, filter: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        return {
            "k": self.k if k is None else k,
            "namespace": self.namespace if namespace is None else namespace,
            "where": self.filter if filter is None else filter,
        }

    def _get_ls_params(self, **kwargs: Any) -> LangSmithRetrieverParams:
        params = super()._get_ls_params(**kwargs)
        params["ls_vector_store_provider"] = "trimem"
        return params


def _documents(hits: Sequence[Hit]) -> list[Document]:
    return [
        Document(
            id=hit.id,
            page_content=hit.text,
            metadata={**copy.deepcopy(dict(hit.metadata)), "source": hit.source, "score": hit.score},
        )
        for hit in hits
    ]
