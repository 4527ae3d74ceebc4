"""Who may see what: the one place where a namespace and a filter become SQL.

A namespace is stored as a path with ``/`` after every part.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, TypeAlias

from sqlalchemy import ColumnElement, func, or_

from trimem.errors import InvalidInputError
from trimem.store.schema import DocumentRow, SlotRow
from trimem.types import Namespace

Where: TypeAlias = Mapping[str, Any]
"""A filter on metadata: every key must have the value given, or one of a list of values."""


def in_scope(namespace: Namespace, where: Where | None) -> list[ColumnElement[bool]]:
    """Return the conditions that hold slots (joined with their document) to a namespace and a filter."""
    conditions = [under(SlotRow.namespace, namespace)]
    for key, value in (where or {}).items():
        if not isinstance(key, str) or not key or '"' in key:
            raise InvalidInputError(f"a filter names metadata keys without quotation marks, got {key!r}")
        allowed = list(value) if isinstance(value, list | tuple | set | frozenset) else [value]
        for item in allowed:
            if not isinstance(item, str | int | float | bool | None):
                raise InvalidInputError(
                    f"a filter compares with strings, numbers, booleans or None, got {item!r} for {key!r}"
                )
        stored = func.json_extract(DocumentRow.meta, f'$."{key}"')
        conditions.append(or_(*(stored.is_(None) if item is None else stored == item for item in allowed)))
    return conditions


def under(column: Any, namespace: Namespace) -> ColumnElement[bool]:
    """Return the condition that a path is this namespace's or lies below it.

    A range, not LIKE: LIKE folds case and has wildcards. Every path ends in ``/`` and ``0`` is the
    character after it, so ("a",) takes a/ and a/b/ but never ab/.
    """
    path = format_path(namespace)
    condition: ColumnElement[bool] = (column >= path) & (column < f"{path[:-1]}0")
    return condition


def format_path(namespace: Namespace) -> str:
    """Return how a namespace is stored."""
    return "".join(f"{part}/" for part in namespace)


def parse_path(path: str) -> Namespace:
    """Return the namespace that is stored as ``path``."""
    return tuple(path.split("/")[:-1])


def scope_words(namespace: Namespace) -> str:
    """Return the words by which the full-text index finds a slot of this namespace: its own, and all above."""
    return " ".join(scope_word(namespace[:depth]) for depth in range(1, len(namespace) + 1))


def scope_word(namespace: Namespace) -> str:
    """Return the word that all slots in and below a namespace share in the full-text index.

    It only narrows down where words are looked for; what may be seen is decided by :func:`in_scope`. A
    digit at its end keeps the stemmer from changing it.
    """
    return f"n{hashlib.sha256(format_path(namespace).encode()).hexdigest()[:16]}0"
