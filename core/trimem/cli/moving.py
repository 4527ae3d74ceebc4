"""The commands by which a bank moves: ``trimem export``, ``import`` and ``recompile``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from trimem.checks import as_namespace
from trimem.cli.banks import open_bank
from trimem.console import BankOption, JsonOption, errors_said, out, print_json
from trimem.errors import InvalidInputError


@errors_said
def export(
    file: Annotated[Path, typer.Argument(help="Where to write it, say memory.zip.")],
    bank: BankOption,
    namespace: Annotated[str | None, typer.Option("--namespace", help="Only under this, as a/b.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Write all that a bank holds into one file: texts, vectors, tensors, metadata, receipts."""
    from trimem.banks.folder import opened_store
    from trimem.store.exporting import export_bank

    path = None if namespace is None else as_namespace(namespace.split("/"))
    with opened_store(bank) as store:
        report = export_bank(store, file, path)
    if as_json:
        print_json(asdict(report))
        return
    out.print(
        f"{report.documents:,} documents, {report.slots:,} slots, {report.records:,} of them with tensors, "
        f"{report.bytes / 1e6:,.1f} MB in {escape(str(file))}",
        highlight=False,
    )


@errors_said
def import_(
    file: Annotated[Path, typer.Argument(help="What trimem export wrote.")],
    bank: BankOption,
    as_json: JsonOption = False,
) -> None:
    """Store what was exported, bit by bit; what is there already is left alone.

    The bank is made if there is none. What an interruption leaves undone, the same command does when it is repeated.
    """
    from trimem.banks.folder import opened_store
    from trimem.store.importing import Export, import_bank
    from trimem.transit.bank_config import BankConfig

    with Export(file) as exported, opened_store(bank, create=True) as store:
        own = exported.bank  # a bank that is there has the same, or refuses
        capacity = BankConfig.from_json(own.config).capacity if own.mechanism == "transit" else None
        report, _ = import_bank(store, exported, capacity=capacity)
    if as_json:
        print_json(asdict(report))
        return
    out.print(
        f"{report.added:,} documents added, {report.replaced:,} replaced, {report.unchanged:,} unchanged: "
        f"{report.slots:,} slots, {report.records:,} with tensors",
        highlight=False,
    )


@errors_said
def recompile(
    bank: BankOption,
    model: Annotated[
        str | None,
        typer.Option("--model", help="Hugging Face id, folder, GGUF file or gemma-3-270m; by default the bank's own."),
    ] = None,
    encoder: Annotated[
        str | None, typer.Option("--encoder", help="Hugging Face id or folder; by default the bank's own.")
    ] = None,
    codec: Annotated[
        Path | None, typer.Option("--codec", help="File of a transit codec, by which transit memory stores vectors.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Bring a bank to another model or encoder, from the texts it keeps; it can be used meanwhile.

    Slots are cut anew and may get other ids. What an interruption leaves undone, the same command does when it is
    repeated.
    """
    from trimem.transit.bank import TransitBank

    with open_bank(bank) as opened:
        if isinstance(opened, TransitBank):
            report = opened.recompile(model=model, encoder=encoder, codec=codec)
        elif codec is not None:
            raise InvalidInputError(f"a bank of {opened.mechanism} memory has no codec of its own: leave --codec out")
        else:
            report = opened.recompile(model=model, encoder=encoder)
    if as_json:
        print_json(asdict(report))
        return
    out.print(
        f"{report.documents:,} documents, {report.slots_before:,} slots are {report.slots:,} by "
        f"{escape(report.model_name)}, found by {escape(report.encoder)}",
        highlight=False,
    )
