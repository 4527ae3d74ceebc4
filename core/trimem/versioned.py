"""Configurations that are saved beside what was made with them, with a version; unknown keys are refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any, TypeVar

from trimem.checks import shown
from trimem.errors import InvalidInputError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

C = TypeVar("C", bound="DataclassInstance")


def read_config(cls: type[C], data: Mapping[str, Any], version: int, *, whose: str, remake: str) -> C:
    """Return a configuration as it was saved, its fields beside ``"version"``.

    Args:
        cls: A dataclass.
        data: What was saved.
        version: That this trimem reads.
        whose: What was made with it, for the message.
        remake: How to make that again, where an older trimem made it.

    Raises:
        InvalidInputError: It is of another version or has keys this version does not know.
    """
    if not isinstance(data, Mapping):
        raise InvalidInputError(f"the {whose}'s configuration must be a mapping, got {shown(data)}")
    known = {field.name for field in fields(cls)}
    needed = {field.name for field in fields(cls) if field.default is MISSING and field.default_factory is MISSING}
    values = {key: value for key, value in data.items() if key != "version"}
    found = data.get("version")
    if found != version or not needed <= values.keys() <= known:
        older = isinstance(found, int) and found < version
        raise InvalidInputError(
            f"the {whose}'s configuration is version {shown(found)} with {sorted(map(str, values))}, this trimem reads "
            f"version {version} with {sorted(known)}: {remake if older else 'upgrade trimem'}"
        )
    return cls(**values)
