"""How a bank of transit memory is made; stored with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from trimem.checks import real
from trimem.errors import InvalidInputError
from trimem.store.capacity import Capacity
from trimem.transit.config import TransitConfig
from trimem.versioned import read_config

BANK_VERSION = 1
SLOTS = 10_000


@dataclass(frozen=True, slots=True)
class BankConfig:
    """Choices made when a bank is created; they hold for its whole life.

    Attributes:
        codec: How the codec is built.
        dim: Numbers of a vector.
        slots: How many there are.
        policy: Which make room when all are taken; see :class:`trimem.store.capacity.Capacity`.
        half_life: Slots written after which a use counts half; None is as many as there are.
        per: Whose the slots are, ``"bank"`` or ``"tenant"``.
        max_error: How far off any number of an expanded vector may be; None promises nothing.
        surprise: How far, in 1 - cosine, a new text must be from all that its namespace holds to be written; None
            writes all.

    Raises:
        InvalidInputError: A value is outside what is allowed.
    """

    codec: Mapping[str, Any] = field(repr=False)
    dim: int
    slots: int = SLOTS
    policy: str = "lfu_aged"
    half_life: float | None = None
    per: str = "bank"
    max_error: float | None = None
    surprise: float | None = None

    def __post_init__(self) -> None:
        if self.surprise is not None:
            real(self.surprise, "surprise", 0, 1)
        _ = self.capacity, replace(TransitConfig.from_json(self.codec), max_error=self.max_error)

    @property
    def capacity(self) -> Capacity:
        return Capacity(self.slots, self.policy, self.half_life, self.per)

    def to_json(self) -> dict[str, Any]:
        return {"version": BANK_VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> BankConfig:
        """Read what :meth:`to_json` made.

        Raises:
            InvalidInputError: It is of another version or has keys this version does not know.
        """
        return read_config(cls, data, BANK_VERSION, whose="bank", remake="remember its texts again in a new bank")


def check_given(folder: Path, config: BankConfig, given: Mapping[str, Any]) -> None:
    """Raise if a bank was made with another value than one that is given; None is any.

    Raises:
        InvalidInputError: It was.
    """
    for each in fields(config):
        wanted, held = given.get(each.name), getattr(config, each.name)
        if wanted is not None and wanted != held:
            raise InvalidInputError(
                f"the bank in {folder} was made with {each.name}={held!r}, got {wanted!r}: leave {each.name} out, or "
                "make a new bank"
            )
