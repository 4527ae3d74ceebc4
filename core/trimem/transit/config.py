"""How a codec of transit memory is built; stored beside its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from trimem.checks import LARGEST, one_of, real, whole
from trimem.errors import InvalidInputError
from trimem.transit.numbers import COARSE, NUMBERS
from trimem.versioned import read_config

CONFIG_VERSION = 1


@dataclass(frozen=True, slots=True)
class TransitConfig:
    """Choices made when a codec is fitted; they hold for its whole life.

    Attributes:
        code_dim: Numbers that are stored of a vector.
        numbers: In what they are stored, one of :data:`trimem.transit.numbers.NUMBERS`.
        layers: Couplings of the flow; 0 is PCA with a predictor.
        hidden: Width of the couplings' sub-networks.
        predictor_hidden: Width of the predictor's.
        blocks: SwiGLU blocks of each sub-network.
        width: How many principal dimensions the couplings see; None is eight times ``code_dim``.
        max_error: How far off any number of an expanded vector may be, in units of the input; None promises
            nothing. Where the codec is further off, corrections are stored beside the code.

    Raises:
        InvalidInputError: A value is outside what is allowed.
    """

    code_dim: int
    numbers: str = "int8"
    layers: int = 2
    hidden: int = 256
    predictor_hidden: int = 384
    blocks: int = 1
    width: int | None = None
    max_error: float | None = None

    def __post_init__(self) -> None:
        for name, least in (("code_dim", 1), ("layers", 0), ("hidden", 1), ("predictor_hidden", 1), ("blocks", 1)):
            whole(getattr(self, name), name, least, LARGEST)
        one_of(self.numbers, "numbers", NUMBERS)
        if self.numbers in COARSE and self.code_dim * COARSE[self.numbers] % 8:
            raise InvalidInputError(
                f"codes in {self.numbers} fill whole bytes: code_dim must be a multiple of "
                f"{8 // COARSE[self.numbers]}, got {self.code_dim}"
            )
        if self.width is not None:
            whole(self.width, "width", self.code_dim + 1, LARGEST)
        if self.max_error is not None:
            real(self.max_error, "max_error", 0)

    def active(self, dim: int) -> int:
        """Return how many of ``dim`` principal dimensions the couplings see."""
        return min(dim, self.width if self.width is not None else 8 * self.code_dim)

    def to_json(self) -> dict[str, Any]:
        return {"version": CONFIG_VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TransitConfig:
        """Read what :meth:`to_json` made.

        Raises:
            InvalidInputError: It is of another version or has keys this version does not know.
        """
        return read_config(cls, data, CONFIG_VERSION, whose="codec", remake="fit the codec again")
