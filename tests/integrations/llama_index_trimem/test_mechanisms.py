"""LlamaIndex's retrievers over the banks of the other mechanisms."""

from __future__ import annotations

from pathlib import Path

import pytest
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters

from llama_index_trimem import ExplicitRetriever, ResonanceRetriever, TransitRetriever
from tests.contracts.bank import BOAT, CAKE, PUMP
from tests.loop import loop_alive
from trimem import Bank, InvalidInputError, ResonanceBank, TransitBank
from trimem.text.encoders import Encoder


@pytest.mark.parametrize(("kind", "retrieves"), [(ResonanceBank, ResonanceRetriever), (TransitBank, TransitRetriever)])
async def test_slots_are_found_in_scope(
    kind: type[Bank], retrieves: type[ResonanceRetriever | TransitRetriever], tmp_path: Path, encoder: Encoder
) -> None:
    with kind.open(tmp_path / "bank", encoder=encoder) as bank:  # type: ignore[attr-defined]
        bank.remember([PUMP, BOAT], namespace="acme", metadata=[{"floor": 0}, {"floor": 1}])
        bank.remember(CAKE, namespace="other")
        retriever = retrieves(bank, "acme", similarity_top_k=3)
        found = retriever.retrieve("When does the boat leave?")
        assert [node.node.get_content() for node in found] == [BOAT, PUMP]
        async with loop_alive():
            assert await retriever.aretrieve("When does the boat leave?") == found
        ground = MetadataFilters(filters=[MetadataFilter(key="floor", value=0)])
        assert [node.text for node in retrieves(bank, "acme", filters=ground).retrieve("the boat")] == [PUMP]
        with pytest.raises(InvalidInputError, match="ExplicitBank"):
            ExplicitRetriever(bank, "acme")


def test_what_was_misheard_is_found_by_sound(tmp_path: Path, encoder: Encoder) -> None:
    with ResonanceBank.open(tmp_path / "bank", encoder=encoder) as bank:
        bank.remember(["She never spoke of the Reichenbach falls again.", PUMP], namespace="acme")
        (found, *_) = ResonanceRetriever(bank, "acme", by="sound").retrieve("the reinjun falls")
        assert "Reichenbach" in found.text
