"""Banks as LlamaIndex retrievers."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.callbacks import CallbackManager
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index.core.vector_stores import MetadataFilters

import trimem
from llama_index_trimem.filters import as_where
from trimem.bank import Bank
from trimem.checks import as_namespace, check_k
from trimem.errors import InvalidInputError
from trimem.types import Hit


class BankRetriever(BaseRetriever):
    """Finds slots in a bank.

    Nodes carry the slot's id, its offsets in the document and the document's metadata.

    Args:
        bank: The bank.
        namespace: Whose memory is searched, and below.
        similarity_top_k: How many nodes at most.
        where: Metadata a node must have, as in :meth:`trimem.Bank.recall`.
        filters: The same in LlamaIndex's words; with ``where``, both must hold.
        callback_manager: LlamaIndex's.
        verbose: LlamaIndex's.

    Raises:
        InvalidInputError: The bank is of another kind, or filters ask for what a bank cannot tell.
    """

    bank_type: ClassVar[str] = "Bank"
    """Which of trimem's banks it takes."""

    def __init__(
        self,
        bank: Bank,
        namespace: str | Sequence[str],
        similarity_top_k: int = 4,
        where: Mapping[str, Any] | None = None,
        filters: MetadataFilters | None = None,
        callback_manager: CallbackManager | None = None,
        verbose: bool = False,
    ) -> None:
        expected: type[Bank] = getattr(trimem, self.bank_type)
        if not isinstance(bank, expected):
            raise InvalidInputError(f"{type(self).__name__} takes a trimem.{self.bank_type}, got {type(bank).__name__}")
        self.bank = bank
        self.namespace = as_namespace(namespace)
        self.similarity_top_k = check_k(similarity_top_k)
        told = [each for each in (where, None if filters is None else as_where(filters)) if each]
        self.where = {"$and": told} if len(told) > 1 else told[0] if told else None
        super().__init__(callback_manager=callback_manager, verbose=verbose)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return _nodes(self.bank.recall(query_bundle.query_str, **self._scope()))

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return _nodes(await self.bank.arecall(query_bundle.query_str, **self._scope()))

    def _scope(self) -> dict[str, Any]:
        return {"k": self.similarity_top_k, "namespace": self.namespace, "where": self.where}


class ExplicitRetriever(BankRetriever):
    """Finds references in an :class:`trimem.ExplicitBank`, by words and by meaning; see :class:`BankRetriever`."""

    bank_type = "ExplicitBank"


class ResonanceRetriever(BankRetriever):
    """Finds what was said in a :class:`trimem.ResonanceBank`; see :class:`BankRetriever`.

    Args:
        bank: The bank.
        namespace: Whose memory is searched, and below.
        by: How; by sound, what was misheard is found, too.
        how: As of :class:`BankRetriever`.
    """

    bank_type = "ResonanceBank"

    def __init__(
        self, bank: Bank, namespace: str | Sequence[str], *, by: Literal["meaning", "sound"] = "meaning", **how: Any
    ) -> None:
        super().__init__(bank, namespace, **how)
        self.by = by

    def _scope(self) -> dict[str, Any]:
        return {**super()._scope(), "by": self.by}


class TransitRetriever(BankRetriever):
    """Finds what has not faded yet in a :class:`trimem.TransitBank`; see :class:`BankRetriever`."""

    bank_type = "TransitBank"


def _nodes(hits: Sequence[Hit]) -> list[NodeWithScore]:
    return [
        NodeWithScore(
            node=TextNode(
                id_=hit.id,
                text=hit.text,
                start_char_idx=hit.slot.start,
                end_char_idx=hit.slot.stop,
                metadata={**copy.deepcopy(dict(hit.metadata)), "source": hit.source},
            ),
            score=hit.score,
        )
        for hit in hits
    ]
