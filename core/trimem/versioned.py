"""Configurations that are saved beside what was made with them, with a version; unknown keys are refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

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
    known = {field.name for field in fields(cls)}
    values = {key: value for key, value in data.items() if key != "version"}
    found = data.get("version")
    if found != version or not values.keys() <= known:
        older = isinstance(found, int) and found < version
        raise InvalidInputError(
            f"the {whose}'s configuration is version {found!r} with {sorted(values)}, this trimem reads version "
            f"{version} with {sorted(known)}: {remake if older else 'upgrade trimem'}"
        )
    return cls(**values)
