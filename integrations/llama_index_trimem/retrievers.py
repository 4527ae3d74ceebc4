"""Banks as LlamaIndex retrievers."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.callbacks import CallbackManager
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from trimem.bank import Bank
from trimem.types import Hit, as_namespace, check_k


class ExplicitRetriever(BaseRetriever):
    """Finds references in an :class:`trimem.ExplicitBank`, by words and by meaning.

    Nodes carry the slot's id, its offsets in the document and the document's metadata.

    Args:
        bank: The bank.
        namespace: Whose memory is searched, and below.
        similarity_top_k: How many nodes at most.
        where: Metadata a node must have: each key the value given, or one of a list of values.
        callback_manager: LlamaIndex's.
        verbose: LlamaIndex's.
    """

    def __init__(
        self,
        bank: Bank,
        namespace: str | Sequence[str],
        similarity_top_k: int = 4,
        where: Mapping[str, Any] | None = None,
        callback_manager: CallbackManager | None = None,
        verbose: bool = False,
    ) -> None:
        self.bank = bank
        self.namespace = as_namespace(namespace)
        self.similarity_top_k = check_k(similarity_top_k)
        self.where = where
        super().__init__(callback_manager=callback_manager, verbose=verbose)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return _nodes(self.bank.recall(query_bundle.query_str, **self._scope()))

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return _nodes(await self.bank.arecall(query_bundle.query_str, **self._scope()))

    def _scope(self) -> dict[str, Any]:
        return {"k": self.similarity_top_k, "namespace": self.namespace, "where": self.where}


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
