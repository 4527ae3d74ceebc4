"""How a bank of explicit memory is compiled; stored with the bank, so that it is read as it was written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from trimem.errors import InvalidInputError

CONFIG_VERSION = 1

DTYPES = ("float16", "bfloat16", "float32")


@dataclass(frozen=True, slots=True)
class ExplicitConfig:
    """Choices made when a bank is created; they hold for its whole life.

    Attributes:
        reference_tokens: Most tokens of one reference, the line break after it included (Memory³,
            section 3.1: 128).
        instruction: What stands before the references, in the model's chat format where it has one.
        dtype: In which numbers are stored: ``"float16"``, ``"bfloat16"`` or ``"float32"``.

    Raises:
        InvalidInputError: A value is outside what is allowed.
    """

    reference_tokens: int = 128
    instruction: str = "You answer questions from these notes."
    dtype: str = "float16"

    def __post_init__(self) -> None:
        if not isinstance(self.reference_tokens, int) or self.reference_tokens < 8:
            raise InvalidInputError(
                f"reference_tokens must be a whole number of at least 8, got {self.reference_tokens!r}"
            )
        if not self.instruction.strip():
            raise InvalidInputError("instruction must not be empty: its first tokens are the sink all references share")
        if self.dtype not in DTYPES:
            raise InvalidInputError(f"dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}")

    def to_json(self) -> dict[str, Any]:
        return {"version": CONFIG_VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ExplicitConfig:
        """Read what :meth:`to_json` made.

        Raises:
            InvalidInputError: It is of another version or has keys this version does not know.
        """
        known = {field.name for field in fields(cls)}
        values = {key: value for key, value in data.items() if key != "version"}
        if data.get("version") != CONFIG_VERSION or not values.keys() <= known:
            raise InvalidInputError(
                f"the bank's configuration is version {data.get('version')!r} with {sorted(values)}, this trimem reads "
                f"version {CONFIG_VERSION} with {sorted(known)}: upgrade trimem"
            )
        return cls(**values)
