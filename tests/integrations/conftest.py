"""A filled bank for the adapters."""

from __future__ import annotations

import pytest

from tests.contracts.bank import BOAT, CAKE, PUMP
from trimem import ExplicitBank

OTHER = "The red pump belongs to somebody else."


@pytest.fixture
def filled(bank: ExplicitBank) -> ExplicitBank:
    """A bank with four texts under ``acme`` and one under ``other``; searching needs no tensors."""
    texts = [PUMP, BOAT, CAKE, "The pump in the attic is silent."]
    metadata = [{"source": f"{i}.md", "floor": i} for i in range(4)]
    bank.remember(texts, namespace="acme", metadata=metadata, compile=False)
    bank.remember(OTHER, namespace="other", compile=False)
    return bank
