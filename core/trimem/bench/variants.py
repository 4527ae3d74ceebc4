"""The ways to keep and read explicit memory that ``trimem bench explicit`` compares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from trimem.bench.systems import ClosedBook, ExplicitMemory, LocalSystem, TextRag
from trimem.errors import InvalidInputError
from trimem.explicit.bank import ExplicitBank
from trimem.explicit.config import ExplicitConfig
from trimem.explicit.read_config import BY_RANK, READ_CONFIGS, ReadConfig


@dataclass(frozen=True, slots=True)
class Variant:
    """How a bank is compiled and how it is read.

    Attributes:
        config: Of the bank.
        read: As of :meth:`ExplicitBank.attach`.
    """

    config: ExplicitConfig = field(default_factory=ExplicitConfig)
    read: ReadConfig = READ_CONFIGS["dense"]


CALIBRATED = ExplicitConfig(heads="calibrated")

VARIANTS: dict[str, Variant] = {
    "explicit_dense": Variant(),
    "explicit_parallel": Variant(read=ReadConfig(layout="parallel")),
    "explicit_document": Variant(ExplicitConfig(context="document")),
    "explicit_repair": Variant(read=ReadConfig(repair=16)),
    "explicit_calibrated": Variant(CALIBRATED),
    "explicit_mixed": Variant(CALIBRATED, READ_CONFIGS["mixed"]),
    "explicit_int8": Variant(ExplicitConfig(codec="int8")),
    "explicit_int4": Variant(ExplicitConfig(codec="int4")),
    "explicit_pq": Variant(ExplicitConfig(codec="pq")),
    "explicit_quarter": Variant(replace(CALIBRATED, codec="int4"), ReadConfig(bias=BY_RANK)),
    "explicit_eighth": Variant(
        ExplicitConfig(codec="int4", heads="calibrated", heads_kept=2 / 3, tokens=52), ReadConfig(bias=BY_RANK)
    ),
    "explicit_paper": Variant(
        ExplicitConfig(selection="paper", heads="first_half", tokens=8), ReadConfig(layout="parallel")
    ),
    "kv_concat": Variant(read=ReadConfig(layout="original")),
}
"""By the name of their row.

``explicit_quarter`` and ``explicit_eighth`` take that share of the bytes of ``explicit_dense``. ``kv_concat`` is a
peer: key-values laid together where they were written.
"""


def read_from(bank: ExplicitBank, names: Sequence[str]) -> tuple[LocalSystem, ...]:
    """Return the question alone, text RAG, and ways to read one and the same bank.

    Args:
        bank: All its heads and tokens are stored.
        names: Of :data:`VARIANTS`; how they would compile a bank does not count.

    Raises:
        InvalidInputError: A name is unknown.
    """
    if unknown := [name for name in names if name not in VARIANTS]:
        raise InvalidInputError(f"systems are {', '.join(VARIANTS)}; got {', '.join(unknown)}")
    memories = (ExplicitMemory(bank, name, VARIANTS[name].read) for name in dict.fromkeys(names))
    return ClosedBook(bank), TextRag(bank), *memories
