"""LlamaIndex's filters on metadata as trimem's."""

from __future__ import annotations

from typing import Any

from llama_index.core.vector_stores import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters

from trimem.errors import InvalidInputError

_OPERATORS = {
    FilterOperator.EQ: "$eq",
    FilterOperator.NE: "$ne",
    FilterOperator.GT: "$gt",
    FilterOperator.GTE: "$gte",
    FilterOperator.LT: "$lt",
    FilterOperator.LTE: "$lte",
    FilterOperator.IN: "$in",
    FilterOperator.NIN: "$nin",
}


def as_where(filters: MetadataFilters) -> dict[str, Any]:
    """Return what :meth:`trimem.Bank.recall` takes as ``where``.

    ``and``, ``or`` and ``not`` (none of them) may be nested. Numbers compare with numbers, times in ISO 8601 with
    times.

    Raises:
        InvalidInputError: An operator looks into texts or lists (``text_match``, ``contains``, ``any``, ``all``).
    """
    parts = [as_where(each) if isinstance(each, MetadataFilters) else _condition(each) for each in filters.filters]
    if not parts:
        return {}
    match filters.condition:
        case FilterCondition.OR:
            return {"$or": parts}
        case FilterCondition.NOT:
            return {"$not": {"$or": parts}}
        case _:
            return {"$and": parts}


def _condition(condition: MetadataFilter) -> dict[str, Any]:
    if condition.operator == FilterOperator.IS_EMPTY:
        return {"$or": [{condition.key: {"$in": [None, ""]}}, {condition.key: {"$eq": []}}]}
    if condition.operator not in _OPERATORS:
        raise InvalidInputError(
            f"a filter of a bank compares by {', '.join(operator.value for operator in _OPERATORS)} and is_empty, got "
            f"{condition.operator.value!r} for {condition.key!r}"
        )
    return {condition.key: {_OPERATORS[condition.operator]: condition.value}}
