"""trimem's memories as LlamaIndex components."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from trimem.errors import MissingDependencyError

if TYPE_CHECKING:
    from llama_index_trimem.filters import as_where
    from llama_index_trimem.llms import TrimemLLM
    from llama_index_trimem.memory import TrimemMemory, TrimemMemoryBlock
    from llama_index_trimem.retrievers import BankRetriever, ExplicitRetriever, ResonanceRetriever, TransitRetriever

_LAZY = {
    "BankRetriever": "llama_index_trimem.retrievers",
    "ExplicitRetriever": "llama_index_trimem.retrievers",
    "ResonanceRetriever": "llama_index_trimem.retrievers",
    "TransitRetriever": "llama_index_trimem.retrievers",
    "TrimemLLM": "llama_index_trimem.llms",
    "TrimemMemory": "llama_index_trimem.memory",
    "TrimemMemoryBlock": "llama_index_trimem.memory",
    "as_where": "llama_index_trimem.filters",
}

__all__ = [
    "BankRetriever",
    "ExplicitRetriever",
    "ResonanceRetriever",
    "TransitRetriever",
    "TrimemLLM",
    "TrimemMemory",
    "TrimemMemoryBlock",
    "as_where",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'llama_index_trimem' has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(_LAZY[name]), name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != "llama_index":
            raise
        raise MissingDependencyError('LlamaIndex is not installed: pip install "trimem[llama-index]"') from error


def __dir__() -> list[str]:
    return __all__
