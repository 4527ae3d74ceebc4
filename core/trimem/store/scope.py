"""Who may see what: the one place where a namespace and a filter become SQL.

A namespace is stored as a path with ``/`` after every part.
"""

from __future__ import annotations

import hashlib
import math
import operator
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time
from typing import Any, TypeAlias

from sqlalchemy import ColumnElement, and_, func, or_

from trimem.errors import InvalidInputError
from trimem.store.schema import DocumentRow, SlotRow
from trimem.types import Namespace, check_characters

Where: TypeAlias = Mapping[str, Any]
"""A filter on metadata: every key must have the value given, or one of a list of values, or compare as told.

``{"$gte": low, "$lt": high}`` compares numbers with numbers, and times, in ISO 8601 or as datetime, with times;
one without a zone is in UTC.
"""

COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}
MOMENT = "trimem_moment"
"""What :func:`moment` is called in SQL."""


def in_scope(namespace: Namespace, where: Where | None, min_trust: float = 0.0) -> list[ColumnElement[bool]]:
    """Return the conditions that hold slots to a namespace, a filter and a least trust.

    Slots must be joined with their document where there is a filter.
    """
    conditions = [under(SlotRow.namespace, namespace)]
    if min_trust > 0:
        conditions.append(SlotRow.trust >= min_trust)
    for key, value in (where or {}).items():
        if not isinstance(key, str) or not key or '"' in key:
            raise InvalidInputError(f"a filter names metadata keys without quotation marks, got {key!r}")
        path = f'$."{key}"'
        if isinstance(value, Mapping):
            conditions += _compared(key, path, value)
            continue
        allowed = list(value) if isinstance(value, list | tuple | set | frozenset) else [value]
        for item in allowed:
            if not isinstance(item, str | int | float | bool | None):
                raise InvalidInputError(
                    f"a filter compares with strings, numbers, booleans or None, got {item!r} for {key!r}"
                )
            if isinstance(item, str):
                check_characters(item, f"what {key!r} is compared with")
        stored = func.json_extract(DocumentRow.meta, path)
        conditions.append(or_(*(stored.is_(None) if item is None else stored == item for item in allowed)))
    return conditions


def moment(value: object) -> int | None:
    """Return microseconds from 1970 in UTC to a time in ISO 8601; None if it is none."""
    try:
        told = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return None if told is None else _microseconds(told)


def _microseconds(told: datetime) -> int:
    aware = told if told.tzinfo is not None else told.replace(tzinfo=UTC)
    since = aware - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _compared(key: str, path: str, comparisons: Mapping[Any, Any]) -> list[ColumnElement[bool]]:
    if not comparisons:
        raise InvalidInputError(f"a filter for {key!r} holds no comparison: give one of {', '.join(COMPARISONS)}")
    stored = func.json_extract(DocumentRow.meta, path)
    number = func.json_type(DocumentRow.meta, path).in_(("integer", "real"))
    conditions: list[ColumnElement[bool]] = []
    for name, bound in comparisons.items():
        if name not in COMPARISONS:
            raise InvalidInputError(
                f"a filter compares with a value, a list of values, or by $gt, $gte, $lt and $lte; got {name!r} for "
                f"{key!r}"
            )
        if _is_number(bound):
            conditions.append(and_(number, COMPARISONS[name](stored, bound)))
        else:
            conditions.append(COMPARISONS[name](getattr(func, MOMENT)(stored), _bound(key, bound)))
    return conditions


def _is_number(bound: object) -> bool:
    if isinstance(bound, float):
        return math.isfinite(bound)
    return isinstance(bound, int) and not isinstance(bound, bool) and bound.bit_length() < 64  # what SQLite holds


def _bound(key: str, bound: object) -> int:
    if isinstance(bound, date) and not isinstance(bound, datetime):
        bound = datetime.combine(bound, time())
    told = _microseconds(bound) if isinstance(bound, datetime) else moment(bound)
    if told is None:
        raise InvalidInputError(f"what {key!r} is compared with is a number or an ISO 8601 time, got {bound!r}")
    return told


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
