"""A bank as a LangChain vector store."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore

from trimem import ExplicitBank, LanguageModel
from trimem.bank import Bank
from trimem.banks.documents import text_key
from trimem.checks import as_namespace
from trimem.errors import InvalidInputError
from trimem.types import Hit, StoredText


class TrimemVectorStore(VectorStore):
    """Texts in a bank, found by words and by meaning at once.

    A text longer than a reference is found in pieces, which all have the id of the whole. Without an id, a text
    is its own key: added again, it is there once. Scores lie in [0, 1] and compare within one result.

    Args:
        bank: The bank; an :class:`trimem.ExplicitBank` is the natural one.
        namespace: Whose texts they are; what lies below is found, too.
    """

    def __init__(self, bank: Bank, namespace: str | Sequence[str]) -> None:
        self.bank = bank
        self.namespace = as_namespace(namespace)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(namespace={self.namespace!r})"

    @classmethod
    def from_texts(  # type: ignore[override]  # whose texts they are has no default
        cls,
        texts: list[str],
        embedding: Embeddings | None = None,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        namespace: str | Sequence[str],
        bank: Bank | None = None,
        path: str | Path | None = None,
        model: LanguageModel | str | Path | None = None,
        **kwargs: Any,
    ) -> Self:
        """Return a store with texts in it.

        Args:
            texts: The texts.
            embedding: What finds them by meaning, for a bank that is opened at ``path``; None is its own encoder.
            metadatas: Stored beside them, one each.
            ids: Their ids, one each.
            namespace: Whose they are.
            bank: Where they go; or
            path: the folder of the explicit bank where they go.
            model: The model of that bank, as of :meth:`trimem.ExplicitBank.open`.
            kwargs: Passed to :meth:`add_texts`.

        Raises:
            InvalidInputError: Bank and path are given, or neither, or what a bank has already is given beside it.
        """
        if (bank is None) == (path is None):
            raise InvalidInputError("give either bank= or path=, a folder for one")
        if bank is not None and (embedding is not None or model is not None):
            raise InvalidInputError("a bank has its own encoder and model: give embedding and model with path= only")
        held = ExplicitBank.open(path, model=model, encoder=embedding) if bank is None and path is not None else bank
        assert held is not None  # one of the two is given
        store = cls(held, namespace)
        store.add_texts(texts, metadatas, ids=ids, **kwargs)
        return store

    # Writing

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Add texts; a new text under an old id replaces it.

        Args:
            texts: The texts.
            metadatas: Stored beside them, one each.
            ids: Their ids, one each; None makes one of the text.
            kwargs: Passed to ``remember`` of the bank, such as ``compile=False``.

        Returns:
            Their ids.
        """
        said, keys = _keyed(texts, ids)
        if said:
            self.bank.remember(said, namespace=self.namespace, metadata=metadatas, ids=keys, **kwargs)
        return keys

    async def aadd_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        said, keys = _keyed(texts, ids)
        if said:
            await self.bank.aremember(said, namespace=self.namespace, metadata=metadatas, ids=keys, **kwargs)
        return keys

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool:
        """Erase texts from the disk by their ids; None is all."""
        self.bank.forget(namespace=self.namespace, ids=ids, **kwargs)
        return True

    async def adelete(self, ids: list[str] | None = None, **kwargs: Any) -> bool:
        await self.bank.aforget(namespace=self.namespace, ids=ids, **kwargs)
        return True

    # Reading

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Return whole texts by their ids; those that are not there are left out."""
        return [_whole(text) for text in self.bank.get(ids, namespace=self.namespace)]

    async def aget_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        return [_whole(text) for text in await self.bank.aget(ids, namespace=self.namespace)]

    def similarity_search_with_score(
        self, query: str, k: int = 4, *, filter: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """Return the best ``k`` pieces with their scores, best first.

        Args:
            query: What to look for.
            k: How many at most.
            filter: Metadata they must have, as ``where`` of :meth:`trimem.Bank.recall`.
            kwargs: Passed to ``recall`` of the bank.
        """
        return _scored(self.bank.recall(query, k, namespace=self.namespace, where=filter, **kwargs))

    async def asimilarity_search_with_score(
        self, query: str, k: int = 4, *, filter: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        return _scored(await self.bank.arecall(query, k, namespace=self.namespace, where=filter, **kwargs))

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """Return the best ``k`` pieces, best first; arguments as of :meth:`similarity_search_with_score`."""
        return [document for document, _ in self.similarity_search_with_score(query, k, **kwargs)]

    async def asimilarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        return [document for document, _ in await self.asimilarity_search_with_score(query, k, **kwargs)]

    def _similarity_search_with_relevance_scores(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        return self.similarity_search_with_score(query, k, **kwargs)

    async def _asimilarity_search_with_relevance_scores(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        return await self.asimilarity_search_with_score(query, k, **kwargs)


def _keyed(texts: Iterable[str], ids: Sequence[str | None] | None) -> tuple[list[str], list[str]]:
    """Return texts and their ids, made of the text where there is none.

    Raises:
        InvalidInputError: There is not one id for each.
    """
    said = list(texts)
    given = [None] * len(said) if ids is None else list(ids)
    if len(given) != len(said):
        raise InvalidInputError(f"texts and ids must be of one length, got {len(said)} and {len(given)}")
    return said, [text_key(text) if key is None else key for text, key in zip(said, given, strict=True)]


def _whole(text: StoredText) -> Document:
    return Document(id=text.key, page_content=text.text, metadata=copy.deepcopy(dict(text.metadata)))


def _scored(hits: Sequence[Hit]) -> list[tuple[Document, float]]:
    return [
        (Document(id=hit.slot.document, page_content=hit.text, metadata=copy.deepcopy(dict(hit.metadata))), hit.score)
        for hit in hits
    ]
