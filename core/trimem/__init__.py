"""Memory that language models can really use: explicit, resonance and transit memory.

Importing this loads neither torch nor any framework; names are loaded as they are used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from trimem.errors import (
    BankBusyError,
    BankNotFoundError,
    CalibrationNotFoundError,
    ContextLengthError,
    CorruptDatabaseError,
    CorruptExportError,
    CorruptTensorError,
    DiskError,
    FileTooLargeError,
    FingerprintMismatch,
    InvalidInputError,
    InvalidNamespaceError,
    MissingDependencyError,
    ModelError,
    PeerError,
    SchemaVersionError,
    SlotNotFoundError,
    StoreError,
    TrimemError,
    UnfinishedCallError,
    UnreadableFileError,
    UnsupportedModelError,
)
from trimem.reports import (
    BankStats,
    CacheStats,
    CompactReport,
    ErasureReceipt,
    EvictionReport,
    ExportReport,
    ImportReport,
    IntegrityReport,
    Problem,
    RecompileReport,
    RepairReport,
    SyncReport,
    Unreadable,
)
from trimem.types import Answer, Citation, Hit, Item, Slot, StoredText, Timings, Turn

if TYPE_CHECKING:
    from trimem.bank import Bank
    from trimem.banks.items import Items, NewItem
    from trimem.explicit.bank import ExplicitBank
    from trimem.explicit.config import ExplicitConfig
    from trimem.explicit.read_config import ReadConfig
    from trimem.explicit.reading import AnswerStream, Reading
    from trimem.lm.load import load_model
    from trimem.lm.model import LanguageModel
    from trimem.resonance.bank import ResonanceBank
    from trimem.resonance.config import ResonanceConfig
    from trimem.resonance.consensus import Reconstruction
    from trimem.resonance.heard import Heard
    from trimem.store.capacity import Capacity
    from trimem.text.encoders import Encoder
    from trimem.transit.bank import TransitBank
    from trimem.transit.config import TransitConfig

_LAZY = {
    "AnswerStream": "trimem.explicit.reading",
    "Bank": "trimem.bank",
    "Capacity": "trimem.store.capacity",
    "Encoder": "trimem.text.encoders",
    "ExplicitBank": "trimem.explicit.bank",
    "ExplicitConfig": "trimem.explicit.config",
    "Heard": "trimem.resonance.heard",
    "Items": "trimem.banks.items",
    "LanguageModel": "trimem.lm.model",
    "NewItem": "trimem.banks.items",
    "ReadConfig": "trimem.explicit.read_config",
    "Reading": "trimem.explicit.reading",
    "Reconstruction": "trimem.resonance.consensus",
    "ResonanceBank": "trimem.resonance.bank",
    "ResonanceConfig": "trimem.resonance.config",
    "TransitBank": "trimem.transit.bank",
    "TransitConfig": "trimem.transit.config",
    "load_model": "trimem.lm.load",
}

__all__ = [
    "Answer",
    "AnswerStream",
    "Bank",
    "BankBusyError",
    "BankNotFoundError",
    "BankStats",
    "CacheStats",
    "CalibrationNotFoundError",
    "Capacity",
    "Citation",
    "CompactReport",
    "ContextLengthError",
    "CorruptDatabaseError",
    "CorruptExportError",
    "CorruptTensorError",
    "DiskError",
    "Encoder",
    "ErasureReceipt",
    "EvictionReport",
    "ExplicitBank",
    "ExplicitConfig",
    "ExportReport",
    "FileTooLargeError",
    "FingerprintMismatch",
    "Heard",
    "Hit",
    "ImportReport",
    "IntegrityReport",
    "InvalidInputError",
    "InvalidNamespaceError",
    "Item",
    "Items",
    "LanguageModel",
    "MissingDependencyError",
    "ModelError",
    "NewItem",
    "PeerError",
    "Problem",
    "ReadConfig",
    "Reading",
    "RecompileReport",
    "Reconstruction",
    "RepairReport",
    "ResonanceBank",
    "ResonanceConfig",
    "SchemaVersionError",
    "Slot",
    "SlotNotFoundError",
    "StoreError",
    "StoredText",
    "SyncReport",
    "Timings",
    "TransitBank",
    "TransitConfig",
    "TrimemError",
    "Turn",
    "UnfinishedCallError",
    "Unreadable",
    "UnreadableFileError",
    "UnsupportedModelError",
    "__version__",
    "load_model",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("trimem")
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'trimem' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
