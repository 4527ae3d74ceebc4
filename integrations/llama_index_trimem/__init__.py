"""trimem's memories as LlamaIndex components."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from trimem.errors import MissingDependencyError

if TYPE_CHECKING:
    from llama_index_trimem.retrievers import ExplicitRetriever

_LAZY = {"ExplicitRetriever": "llama_index_trimem.retrievers"}

__all__ = ["ExplicitRetriever"]


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
