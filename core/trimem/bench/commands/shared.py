"""What the benchmark commands share: their options, and how they write and print results."""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, ParamSpec

import typer
from rich.console import Console
from rich.table import Table

from trimem.console import errors_said, out
from trimem.drawing import check_picture
from trimem.errors import InvalidInputError

P = ParamSpec("P")

_WIDTH = 200  # of tables that go into a file

ResultOption = Annotated[Path, typer.Option("--json", help="Where to write the result.")]
PlotOption = Annotated[Path | None, typer.Option("--plot", help="Where to draw the result, as PNG or SVG.")]
SystemOption = Annotated[
    list[str] | None, typer.Option("--system", help="A way to read memory, as of bench explicit; repeatable.")
]
FolderOption = Annotated[Path | None, typer.Option("--bank", help="Keep the bank here; else it is thrown away.")]
RefsOption = Annotated[int, typer.Option("--refs", help="References a question.")]


def benchmark(command: Callable[P, None]) -> Callable[P, None]:
    """Let a command say errors, and look before it measures whether its result and plot can be written."""

    @errors_said
    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        result, plot = kwargs["json_path"], kwargs.get("plot")
        if isinstance(result, Path) and (result.is_dir() or not result.parent.is_dir()):
            raise InvalidInputError(f"--json is a file in a folder that is there, got {result}")
        if isinstance(plot, Path):
            check_picture(plot)
        command(*args, **kwargs)

    return run


def check_empty(folder: Path) -> None:
    """Raise if anything lies in a folder.

    Raises:
        InvalidInputError: It does.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InvalidInputError(f"{folder} holds something already: give --bank a folder that is not there yet")


@contextmanager
def kept_or_thrown_away(folder: Path | None) -> Iterator[Path]:
    """Give the folder that the user named, or one that is thrown away afterwards."""
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
    console = out if out.is_terminal else Console(width=_WIDTH)
    console.print(table)


def _cell(value: str | float | None) -> str:
    """Show a number with about four digits."""
    if value is None or isinstance(value, str):
        return value or ""
    return f"{value:,.{0 if isinstance(value, int) or value >= 1000 else 1 if value >= 10 else 3}f}"


def write(result: Mapping[str, Any], path: Path) -> None:
    """Write a result as JSON."""
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
