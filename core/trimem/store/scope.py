"""Who may see what: the one place where a namespace and a filter become SQL.

A namespace is stored as a path with ``/`` after every part.
"""

from __future__ import annotations

import hashlib
import json
import math
import operator
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, date, datetime, time
from typing import Any, TypeAlias

from sqlalchemy import ColumnElement, String, and_, case, false, func, literal, literal_column, or_, true

from trimem.checks import check_characters, check_nesting, shown
from trimem.errors import InvalidInputError
from trimem.store.schema import DocumentRow, SlotRow
from trimem.types import Namespace

Where: TypeAlias = Mapping[str, Any]
"""A filter on metadata: every key must have the value given, or one of a list of values, or compare as told.

``{"$gte": low, "$lt": high}`` compares numbers with numbers, and times, in ISO 8601 or as datetime, with times;
one without a zone is in UTC. ``$eq`` and ``$ne`` take anything that JSON can hold, lists and objects too, ``$in`` and
``$nin`` a list of values; what is missing is None. ``{"$or": [filter, ...]}``, ``$and`` and ``{"$not": filter}``
combine filters, and an object without a ``$`` looks inside: ``{"author": {"name": "Ada"}}``.
"""

DEEPEST = 20
"""Objects and lists of a filter within one another: SQLite's parser has room for little more."""

MOST = 900
"""Keys and values of a filter: SQLite takes 1000 conditions in one."""

COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}
MOMENT = "trimem_moment"
"""What :func:`moment` is called in SQL."""

CANONICAL = "trimem_canonical"
"""What :func:`canonical` is called in SQL."""


def in_scope(namespace: Namespace, where: Where | None, min_trust: float = 0.0) -> list[ColumnElement[bool]]:
    """Return the conditions that hold slots to a namespace, a filter and a least trust.

    Slots must be joined with their document where there is a filter.
    """
    trusted = [SlotRow.trust >= min_trust] if min_trust > 0 else []
    return [under(SlotRow.namespace, namespace), *trusted, *having(where)]


def having(where: Where | None) -> list[ColumnElement[bool]]:
    """Return the conditions that hold documents to a filter.

    Raises:
        InvalidInputError: It is no filter, or larger than SQLite can read.
    """
    check_filter(where)
    return _conditions(where or {}, "$")


def check_filter(where: Where | None) -> None:
    """Raise if what is given is no mapping, or larger than SQLite can read; its keys and values are not looked at.

    Raises:
        InvalidInputError: It is no mapping and not None, or nested too deeply or too large.
    """
    if where is not None and not isinstance(where, Mapping):
        raise InvalidInputError(f"a filter is a mapping of metadata keys to values, or None, got {shown(where)}")
    check_nesting(where, "a filter", DEEPEST, MOST)


def _conditions(where: Where, above: str) -> list[ColumnElement[bool]]:
    """Return the conditions of a filter on the object at a JSON path."""
    conditions: list[ColumnElement[bool]] = []
    for key, value in where.items():
        path = f'{above}."{check_key(key)}"'
        if key in ("$and", "$or", "$not"):
            conditions.append(_combined(key, value, above))
        elif isinstance(value, Mapping) and value and not any(str(name).startswith("$") for name in value):
            conditions += _conditions(value, path)
        elif isinstance(value, Mapping):
            conditions += _compared(key, path, value)
        else:
            allowed = value if isinstance(value, list | tuple | set | frozenset) else [value]
            conditions.append(_one_of(key, path, allowed))
    return conditions


def check_key(key: object) -> str:
    """Return ``key``, a key of metadata that is filtered by.

    Raises:
        InvalidInputError: It is no string, empty, or holds a quotation mark or half a character.
    """
    if not isinstance(key, str) or not key or '"' in key:
        raise InvalidInputError(f"a filter names metadata keys without quotation marks, got {shown(key)}")
    return check_characters(key, "a metadata key")


def _combined(name: str, filters: Any, above: str) -> ColumnElement[bool]:
    listed = [filters] if name == "$not" else filters
    if not isinstance(listed, list | tuple) or not listed or not all(isinstance(each, Mapping) for each in listed):
        raise InvalidInputError(
            f"{name} combines filters: $and and $or take a list of them, $not one; got {shown(filters)}"
        )
    parts = [and_(true(), *_conditions(each, above)) for each in listed]
    # What is unknown to SQL, as a comparison with what is missing, is not so.
    return or_(*parts) if name == "$or" else and_(*parts) if name == "$and" else ~func.coalesce(parts[0], false())


def _one_of(key: str, path: str, allowed: Collection[Any]) -> ColumnElement[bool]:
    """Return the condition that a value is among those allowed; of lists and objects, none is."""
    for item in allowed:
        if not isinstance(item, str | int | float | bool | None):
            raise InvalidInputError(
                f"a filter compares with strings, numbers, booleans or None, got {shown(item)} for {key!r}"
            )
    return or_(false(), *(_equal(key, path, item) for item in allowed))


def _equal(key: str, path: str, value: Any) -> ColumnElement[bool]:
    """Return the condition, never unknown, that a value is this one."""
    stored = func.json_extract(DocumentRow.meta, as_written(path))
    if isinstance(value, str):
        check_characters(value, f"what {key!r} is compared with")
    if isinstance(value, int) and value.bit_length() > 63:
        raise InvalidInputError(
            f"a filter compares with whole numbers of up to 64 bits, got {shown(value)} for {key!r}"
        )
    if isinstance(value, str | int | float | bool | None):
        return stored.is_not_distinct_from(value)
    try:
        wanted = canonical(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"a filter compares with what JSON can hold, got {shown(value)} for {key!r}") from error
    composed = func.json_type(DocumentRow.meta, path).in_(("array", "object"))
    return case((composed, getattr(func, CANONICAL)(stored) == wanted), else_=false())


def as_written(path: str) -> ColumnElement[str]:
    """Return a JSON path as it stands in an index (:meth:`trimem.store.database.Database.index_metadata`).

    SQLite uses an index of an expression only where the very expression is asked for, which none with a parameter is.
    What a statement cannot hold is a parameter all the same.
    """
    if not path.isprintable():
        return literal(path)
    quoted = path.replace("'", "''")
    return literal_column(f"'{quoted}'", String)


def canonical(value: str | None) -> str | None:
    """Return JSON as it is compared, whatever the order of its keys."""
    return None if value is None else json.dumps(json.loads(value), sort_keys=True)


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
        raise InvalidInputError(
            f"a filter for {key!r} holds no comparison: give one of $eq, $ne, $in, $nin, {', '.join(COMPARISONS)}"
        )
    stored = func.json_extract(DocumentRow.meta, as_written(path))
    number = func.json_type(DocumentRow.meta, path).in_(("integer", "real"))
    conditions: list[ColumnElement[bool]] = []
    for name, bound in comparisons.items():
        if name in ("$eq", "$ne"):
            equal = _equal(key, path, bound)
            conditions.append(equal if name == "$eq" else ~equal)
        elif name in ("$in", "$nin"):
            if not isinstance(bound, list | tuple | set | frozenset):
                raise InvalidInputError(f"{name} takes a list of values, got {shown(bound)} for {key!r}")
            among = _one_of(key, path, bound)
            conditions.append(among if name == "$in" else ~among)
        elif name not in COMPARISONS:
            raise InvalidInputError(
                "a filter compares with a value, a list of values, or by $eq, $ne, $in, $nin, $gt, $gte, $lt and "
                f"$lte; got {shown(name)} for {key!r}"
            )
        elif _is_number(bound):
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
        raise InvalidInputError(f"what {key!r} is compared with is a number or an ISO 8601 time, got {shown(bound)}")
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
