"""What the commands share: where they print, how they say errors, and the options that many take."""

from __future__ import annotations

import functools
import json
import re
import sys
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.markup import escape

from trimem.checks import real
from trimem.errors import InvalidInputError, TrimemError
from trimem.reports import Unreadable

P = ParamSpec("P")
R = TypeVar("R")

out = Console(soft_wrap=True)  # a path stays in one piece, however long
err = Console(stderr=True, soft_wrap=True)

BankOption = Annotated[Path, typer.Option("--bank", help="Folder of the bank.", envvar="TRIMEM_BANK")]
NamespaceOption = Annotated[str, typer.Option("--namespace", help="Whose memory, as a/b.", envvar="TRIMEM_NAMESPACE")]
LargestOption = Annotated[float, typer.Option("--max-mb", help="The largest file to read, in megabytes.")]
ModelOption = Annotated[
    str | None,
    typer.Option("--model", help="Hugging Face id, folder, GGUF file or gemma-3-270m; by default the bank's model."),
]
EncoderOption = Annotated[
    str | None,
    typer.Option(
        "--encoder",
        help="What finds by meaning: Hugging Face id or folder; by default the bank's.",
        envvar="TRIMEM_ENCODER",
    ),
]
NewModelOption = Annotated[
    str | None,
    typer.Option("--model", help="Hugging Face id, folder, GGUF file or gemma-3-270m; by default the small one."),
]
MinTrustOption = Annotated[float, typer.Option("--min-trust", help="Only slots trusted so far, from 0 to 1.")]
MaxSlotsOption = Annotated[
    int | None, typer.Option("--max-slots", help="The most slots the bank may hold; those used least make room.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def duration(told: str | None) -> timedelta | None:
    """Return the time that ``30d``, ``12h``, ``45m`` or ``90s`` tells; None of None.

    Raises:
        InvalidInputError: It is none of these.
    """
    if told is None:
        return None
    found = re.fullmatch(r"(\d{1,9})([dhms])", told.strip())
    if found is None:
        raise InvalidInputError(f"a time is a number of days, hours, minutes or seconds, as 30d or 12h; got {told!r}")
    names = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
    try:
        return timedelta(**{names[found[2]]: int(found[1])})
    except OverflowError as error:
        raise InvalidInputError(f"{told!r} is longer than anything is held") from error


def as_bytes(megabytes: float) -> int:
    """Return the bytes of so many megabytes.

    Raises:
        InvalidInputError: It is no number above 0 and up to a million.
    """
    return int(1e6 * real(megabytes, "--max-mb", 0, 1e6))


def errors_said(command: Callable[P, R]) -> Callable[P, R]:
    """Let a command say trimem's errors, and the system's about files it is told of, in red and exit with 1."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except (TrimemError, OSError) as error:
            if isinstance(error, OSError) and error.filename is None:
                raise  # not about a file
            err.print(f"[red]{type(error).__name__}:[/] {escape(str(error))}")
            raise typer.Exit(1) from None

    return run


def quiet() -> None:
    """Keep transformers' own progress bars out of the output."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def print_unread(files: Iterable[Unreadable]) -> None:
    """Say on standard error what was not read."""
    for file in files:
        style = "yellow" if file.unexpected else "dim"
        err.print(f"[{style}]not read: {escape(file.source)} {escape(file.reason)}[/]")


def print_json(value: Any) -> None:
    """Print a value as JSON on standard output."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
