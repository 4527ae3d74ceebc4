"""Benchmarks of what lies on the disk: ``trimem bench crash`` and ``store``."""

from __future__ import annotations

from typing import Annotated

import typer

from trimem.bench.commands.shared import FolderOption, ResultOption, own_folder, write
from trimem.console import errors_said, out


@errors_said
def crash(
    json_path: ResultOption,
    kills: Annotated[int, typer.Option("--kills", help="How often a process that writes is killed.")] = 200,
    seed: Annotated[int, typer.Option("--seed", help="Of operations and moments.")] = 0,
    folder: FolderOption = None,
) -> None:
    """Kill a process at random moments of whatever changes a bank, exports or imports, and look at what it leaves."""
    from trimem.bench.durability import run

    with own_folder(folder) as bank:
        result = run(bank, kills, seed)
    write(result, json_path)
    out.print_json(data=result)


@errors_said
def store(
    json_path: ResultOption,
    writers: Annotated[int, typer.Option("--writers", help="Processes that write.")] = 12,
    readers: Annotated[int, typer.Option("--readers", help="Processes that read.")] = 12,
    seconds: Annotated[float, typer.Option("--seconds", help="For how long.")] = 60.0,
    slots: Annotated[
        int, typer.Option("--slots", help="Instead: open and search a bank of so many made-up slots, alone.")
    ] = 0,
    seed: Annotated[int, typer.Option("--seed", help="Of what they do.")] = 0,
    folder: FolderOption = None,
) -> None:
    """Let many processes write and read one bank at once, and count errors, lost writes and torn reads."""
    from trimem.bench import concurrency, many_slots

    with own_folder(folder) as bank:
        if slots:
            result = many_slots.run(bank, slots, seed=seed)
        else:
            result = concurrency.run(bank, writers, readers, seconds, seed)
    write(result, json_path)
    out.print_json(data=result)
