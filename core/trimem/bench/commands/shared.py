"""What the benchmark commands share: their options, and how they write and print results."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from trimem.console import out

ResultOption = Annotated[Path, typer.Option("--json", help="Where to write the result.")]
PlotOption = Annotated[Path | None, typer.Option("--plot", help="Where to draw the result, as PNG or SVG.")]
SystemOption = Annotated[
    list[str] | None, typer.Option("--system", help="A way to read memory, as of bench explicit; repeatable.")
]
FolderOption = Annotated[Path | None, typer.Option("--bank", help="Keep the bank here; else it is thrown away.")]
RefsOption = Annotated[int, typer.Option("--refs", help="References a question.")]


@contextmanager
def own_folder(folder: Path | None) -> Iterator[Path]:
    """Give a folder that is not there yet, thrown away afterwards unless the user named it."""
    if folder is not None:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="trimem-") as made:
        yield Path(made) / "bank"


def print_rows(rows: list[dict[str, Any]]) -> None:
    """Print rows of a benchmark as a table, blank where nothing was measured; no rows print nothing."""
    if not rows:
        return
    table = Table(box=None, padding=(0, 1, 0, 0))
    for i, name in enumerate(rows[0]):
        table.add_column(name, overflow="fold", no_wrap=i == 0)
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    out.print(table, width=None if out.is_terminal else 200)


def _cell(value: str | float | None) -> str:
    """Show a number with about four digits."""
    if value is None or isinstance(value, str):
        return value or ""
    return f"{value:,.{0 if isinstance(value, int) or value >= 1000 else 1 if value >= 10 else 3}f}"


def write(result: Mapping[str, Any], path: Path) -> None:
    """Write a result as JSON."""
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
