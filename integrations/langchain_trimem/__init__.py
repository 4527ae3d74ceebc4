"""trimem's memories as LangChain components."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from trimem.errors import MissingDependencyError

if TYPE_CHECKING:
    from langchain_trimem.retrievers import ExplicitRetriever
    from langchain_trimem.tools import memory_tools

_LAZY = {
    "ExplicitRetriever": "langchain_trimem.retrievers",
    "memory_tools": "langchain_trimem.tools",
}

__all__ = [
    "ExplicitRetriever",
    "memory_tools",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'langchain_trimem' has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(_LAZY[name]), name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != "langchain_core":
            raise
        raise MissingDependencyError('LangChain is not installed: pip install "trimem[langchain]"') from error


def __dir__() -> list[str]:
    return __all__
