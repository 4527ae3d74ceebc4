"""Progress of what takes more than two seconds: shown on a terminal or in a notebook, silent elsewhere."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

_shown: ContextVar[Progress | None] = ContextVar("_shown", default=None)


def _console() -> Console:
    return Console(file=sys.stderr)


def _has_widgets(console: Console) -> bool:
    """Return whether this is a notebook that can show a bar."""
    return console.is_jupyter and importlib.util.find_spec("ipywidgets") is not None


@contextmanager
def track(description: str, total: int, show: bool | None = None) -> Iterator[Callable[[int], None]]:
    """Show a bar while the ``with`` block runs; it gets a function to call with each step's size.

    In the block of another bar, it is shown below that one, or not if that one is not.

    Args:
        description: What is going on.
        total: Sum of all steps.
        show: None shows the bar where there is a terminal, or a notebook with ipywidgets.
    """
    outer = _shown.get()
    if outer is not None:
        inner = outer.add_task(description, total=total)
        try:
            yield lambda step: outer.advance(inner, step)
        finally:
            outer.remove_task(inner)
        return
    console = _console()
    visible = (console.is_terminal or _has_widgets(console)) if show is None else show
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    # In a notebook, what rich would take from stdout and stderr it would display, which writes to stdout again.
    redirect = not console.is_jupyter
    with Progress(
        *columns,
        console=console,
        disable=not visible,
        transient=True,
        redirect_stdout=redirect,
        redirect_stderr=redirect,
    ) as progress:
        task = progress.add_task(description, total=total)
        token = _shown.set(progress)
        try:
            yield lambda step: progress.advance(task, step)
        finally:
            _shown.reset(token)


@contextmanager
def announce(description: str) -> Iterator[None]:
    """Say what is going on while the ``with`` block runs, where the length is not known."""
    console = _console()
    if not console.is_terminal:
        console.print(f"{description} ...", highlight=False)
        yield
        return
    with console.status(f"{description} ..."):
        yield
