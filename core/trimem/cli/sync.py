"""The command ``trimem sync``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from trimem.checks import is_folder
from trimem.console import (
    BankOption,
    EncoderOption,
    JsonOption,
    LargestOption,
    ModelOption,
    NamespaceOption,
    as_bytes,
    errors_said,
    out,
    print_json,
    print_unread,
    quiet,
)
from trimem.errors import InvalidInputError


@errors_said
def sync(
    folder: Annotated[Path, typer.Argument(help="The folder to follow.", metavar="DIR")],
    bank: BankOption,
    namespace: NamespaceOption,
    max_mb: LargestOption = 16,
    model: ModelOption = None,
    encoder: EncoderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Follow a folder: compile files that are new or changed, forget those that are gone, leave the rest alone.

    Only what was synced from the same folder is replaced or forgotten.
    """
    from trimem.explicit.bank import ExplicitBank

    if not is_folder(folder) and is_folder(bank) is None:
        raise InvalidInputError(f"there is no folder {folder}")
    quiet()
    with ExplicitBank.open(bank, model=model, encoder=encoder) as opened:
        report = opened.sync(folder, namespace=namespace.split("/"), max_bytes=as_bytes(max_mb))
    if as_json:
        print_json(asdict(report))
    else:
        counts = {name: len(getattr(report, name)) for name in ("added", "changed", "removed", "unchanged")}
        said = ", ".join(f"{count} {name}" for name, count in counts.items())
        out.print(f"{escape(str(folder))} under {escape(namespace)}: {said}", highlight=False)
        print_unread(report.skipped)
    if any(file.unexpected for file in report.skipped):
        raise typer.Exit(1)
