"""What Alembic runs; the connection is handed over by :mod:`trimem.store.engine`."""

from __future__ import annotations

from typing import Any

from alembic import context

from trimem.store.schema import SEARCH_TABLE, Base


def include_object(_: Any, name: str | None, kind: str, *__: Any) -> bool:
    """Leave out the full-text index and its shadow tables, which the models do not describe."""
    return not (kind == "table" and name is not None and name.startswith(SEARCH_TABLE))


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    include_object=include_object,
    render_as_batch=True,
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
