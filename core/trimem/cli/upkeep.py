"""The commands that look after a bank: ``trimem verify``, ``repair``, ``compact`` and ``evict``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import typer
from rich.markup import escape

from trimem.cli.banks import open_bank
from trimem.console import (
    BankOption,
    EncoderOption,
    JsonOption,
    MaxSlotsOption,
    ModelOption,
    err,
    errors_said,
    out,
    print_json,
)
from trimem.reports import Problem


@errors_said
def verify(bank: BankOption, as_json: JsonOption = False) -> None:
    """Compare every file and row of a bank with its checksum; exits with 1 if anything is damaged."""
    with open_bank(bank) as opened:
        report = opened.verify()
        swept = opened.swept
    if as_json:
        print_json({**asdict(report), "ok": report.ok, "swept": asdict(swept)})
    else:
        out.print(f"{report.documents:,} documents, {report.slots:,} slots, {report.shards:,} shards", highlight=False)
        if swept.files:
            out.print(f"removed {swept.files} files that an interrupted call had left", highlight=False)
        _say(report.problems)
    if not report.ok:
        raise typer.Exit(1)


@errors_said
def repair(
    bank: BankOption, model: ModelOption = None, encoder: EncoderOption = None, as_json: JsonOption = False
) -> None:
    """Make again what is damaged and can be made again; exits with 1 if anything is left."""
    with open_bank(bank, model, encoder=encoder) as opened:
        report = opened.repair()
    if as_json:
        print_json(asdict(report))
    else:
        out.print(
            f"{len(report.recompiled)} slots compiled again, {len(report.rewritten)} cut again from their documents",
            highlight=False,
        )
        _say(report.problems)
    if report.problems:
        raise typer.Exit(1)


@errors_said
def compact(bank: BankOption, as_json: JsonOption = False) -> None:
    """Merge small files of tensors and give back what deletions left free; the bank can be used meanwhile."""
    with open_bank(bank) as opened:
        report = opened.compact()
    if as_json:
        print_json(asdict(report))
        return
    out.print(
        f"{report.shards_before:,} shards are {report.shards_after:,}, {report.bytes_before / 1e6:,.1f} MB are "
        f"{report.bytes_after / 1e6:,.1f} MB",
        highlight=False,
    )


@errors_said
def evict(bank: BankOption, max_slots: MaxSlotsOption = None, as_json: JsonOption = False) -> None:
    """Erase from the disk what has expired, which nobody sees any more, and what is more than a bank may hold."""
    with open_bank(bank, max_slots=max_slots) as opened:
        erased = (*opened.evicted.receipts, *opened.evict().receipts)
    if as_json:
        receipts = [{**asdict(one), "erased_at": one.erased_at.isoformat()} for one in erased]
        print_json({"slots": sum(len(one.slots) for one in erased), "receipts": receipts})
        return
    for receipt in erased:
        name = escape("/".join(receipt.namespace))
        out.print(f"{name}: {len(receipt.slots):,} slots {receipt.reason}   receipt {receipt.id}", highlight=False)
    out.print(f"{sum(len(one.slots) for one in erased):,} slots erased", highlight=False)


def _say(problems: Sequence[Problem]) -> None:
    for problem in problems:
        slots = f" [dim]{len(problem.slots)} slots: {', '.join(problem.slots[:5])}[/]" if problem.slots else ""
        err.print(f"[red]{problem.kind}[/] {escape(problem.where)} {escape(problem.what)}{slots}", highlight=False)
