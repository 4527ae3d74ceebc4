"""trimem's memories as LangChain components."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from trimem.errors import MissingDependencyError

if TYPE_CHECKING:
    from langchain_trimem.chat_models import ChatTrimem
    from langchain_trimem.memory import BankMemory, ExplicitMemory, ResonanceMemory, TransitMemory
    from langchain_trimem.middleware import TrimemMiddleware
    from langchain_trimem.retrievers import BankRetriever, ExplicitRetriever, ResonanceRetriever, TransitRetriever
    from langchain_trimem.store import TrimemStore
    from langchain_trimem.tools import memory_tools
    from langchain_trimem.vectorstores import TrimemVectorStore

_LAZY = {
    "BankMemory": "langchain_trimem.memory",
    "BankRetriever": "langchain_trimem.retrievers",
    "ChatTrimem": "langchain_trimem.chat_models",
    "ExplicitMemory": "langchain_trimem.memory",
    "ExplicitRetriever": "langchain_trimem.retrievers",
    "ResonanceMemory": "langchain_trimem.memory",
    "ResonanceRetriever": "langchain_trimem.retrievers",
    "TransitMemory": "langchain_trimem.memory",
    "TransitRetriever": "langchain_trimem.retrievers",
    "TrimemMiddleware": "langchain_trimem.middleware",
    "TrimemStore": "langchain_trimem.store",
    "TrimemVectorStore": "langchain_trimem.vectorstores",
    "memory_tools": "langchain_trimem.tools",
}

__all__ = [
    "BankMemory",
    "BankRetriever",
    "ChatTrimem",
    "ExplicitMemory",
    "ExplicitRetriever",
    "ResonanceMemory",
    "ResonanceRetriever",
    "TransitMemory",
    "TransitRetriever",
    "TrimemMiddleware",
    "TrimemStore",
    "TrimemVectorStore",
    "memory_tools",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'langchain_trimem' has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(_LAZY[name]), name)
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        if missing in ("langchain", "langgraph"):
            raise MissingDependencyError('LangGraph is not installed: pip install "trimem[langgraph]"') from error
        if missing not in ("langchain_core", "langchain_classic"):
            raise
        raise MissingDependencyError('LangChain is not installed: pip install "trimem[langchain]"') from error


def __dir__() -> list[str]:
    return __all__
