"""The ways to keep and read explicit memory that ``trimem bench explicit`` compares."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from trimem.bench.systems import ExplicitMemory
from trimem.explicit.bank import ExplicitBank
from trimem.explicit.config import ExplicitConfig
from trimem.explicit.density import Density
from trimem.explicit.read import Layout


@dataclass(frozen=True, slots=True)
class Variant:
    """How a bank is compiled and how it is read.

    Attributes:
        config: Of the bank.
        density, layout, bias: As of :meth:`ExplicitBank.attach`.
    """

    config: ExplicitConfig = field(default_factory=ExplicitConfig)
    density: Density = "dense"
    layout: Layout = "sequential"
    bias: float | tuple[float, ...] = 0.0

    def system(self, name: str, bank: ExplicitBank) -> ExplicitMemory:
        return ExplicitMemory(bank, name, self.density, self.layout, self.bias)


CALIBRATED = ExplicitConfig(heads="calibrated")

BY_RANK = (1.0, 0.5, 0.0, -0.5, -1.0)
"""More attention for what search ranks first; chosen on 100 questions of SQuAD drawn with seed 1."""

VARIANTS: dict[str, Variant] = {
    "explicit_dense": Variant(),
    "explicit_parallel": Variant(layout="parallel"),
    "explicit_calibrated": Variant(CALIBRATED),
    "explicit_mixed": Variant(CALIBRATED, density="mixed", bias=BY_RANK),
    "explicit_int8": Variant(ExplicitConfig(codec="int8")),
    "explicit_int4": Variant(ExplicitConfig(codec="int4")),
    "explicit_quarter": Variant(replace(CALIBRATED, codec="int4"), bias=BY_RANK),
    "explicit_eighth": Variant(
        ExplicitConfig(codec="int4", heads="calibrated", heads_kept=2 / 3, tokens=52), bias=BY_RANK
    ),
    "explicit_paper": Variant(ExplicitConfig(selection="paper", heads="first_half", tokens=8), layout="parallel"),
    "kv_concat": Variant(layout="original"),
}
"""By the name of their row.

``explicit_quarter`` and ``explicit_eighth`` take that share of the bytes of ``explicit_dense``. ``kv_concat`` is a
peer: key-values laid together where they were written.
"""
