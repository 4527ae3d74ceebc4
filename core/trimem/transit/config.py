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

LEAST_PICTURE = 16
"""Pixels: smaller patches are learned well enough as numbers in a row, and faster."""


@dataclass(frozen=True, slots=True)
class TransitConfig:
    """Choices made when a codec is fitted; they hold for its whole life.

    Attributes:
        code_dim: Numbers that are stored of a vector.
        numbers: In what they are stored, one of :data:`trimem.transit.numbers.NUMBERS`.
        layers: Couplings of the flow; 0 is PCA with a predictor.
        hidden: Width of the couplings' sub-networks.
        predictor_hidden: Width of the predictor's; of pictures, channels.
        blocks: SwiGLU blocks of each sub-network; of pictures, the predictor's residual blocks.
        width: How many principal dimensions the couplings see; None is eight times ``code_dim``.
        max_error: How far off any number of an expanded vector may be, in units of the input; None promises
            nothing. Where the codec is further off, corrections are stored beside the code.
        patch: Height and width of the square patches that vectors are, with 3 channels. The predictor is then one that
            knows pictures (:mod:`trimem.transit.pictures`), there are no couplings, and PCA takes each patch in all
            eight ways to look at a square. None takes vectors of any kind.
        refine: Steps in which a code is moved to where it expands to what is nearest the vector
            (:mod:`trimem.transit.refine`); each takes three times as long as expanding it.

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
    patch: int | None = None
    refine: int = 0

    def __post_init__(self) -> None:
        for name, least in (
            ("code_dim", 1),
            ("layers", 0),
            ("hidden", 1),
            ("predictor_hidden", 1),
            ("blocks", 1),
            ("refine", 0),
        ):
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
        if self.patch is not None:
            whole(self.patch, "patch", 2, LARGEST)
            if self.layers:
                raise InvalidInputError(f"of pictures there are no couplings: layers must be 0, got {self.layers}")

    @classmethod
    def of_patches(
        cls, patch: int, code_dim: int, *, numbers: str = "int8", max_error: float | None = None
    ) -> TransitConfig:
        """Return what was best for square patches of photographs, of ``patch`` pixels."""
        if patch < LEAST_PICTURE:
            return cls(code_dim, numbers=numbers, max_error=max_error, layers=0, blocks=2, refine=9)
        return cls(
            code_dim,
            numbers=numbers,
            max_error=max_error,
            layers=0,
            predictor_hidden=64,
            blocks=4,
            patch=patch,
            refine=3,
        )

    def active(self, dim: int) -> int:
        """Return how many of ``dim`` principal dimensions the couplings see."""
        return min(dim, self.width if self.width is not None else 8 * self.code_dim)

    def to_json(self) -> dict[str, Any]:
        values = asdict(self)
        for name in ("patch", "refine"):  # left out, so that codecs of before them keep their fingerprints
            if not values[name]:
                del values[name]
        return {"version": CONFIG_VERSION, **values}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TransitConfig:
        """Read what :meth:`to_json` made.

        Raises:
            InvalidInputError: It is of another version or has keys this version does not know.
        """
        return read_config(cls, data, CONFIG_VERSION, whose="codec", remake="fit the codec again")
