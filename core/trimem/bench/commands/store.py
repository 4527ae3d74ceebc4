"""Benchmarks of what lies on the disk: ``trimem bench crash`` and ``store``."""

from __future__ import annotations

from typing import Annotated

import typer

from trimem.bench.commands.shared import FolderOption, ResultOption, benchmark, check_empty, kept_or_thrown_away, write
from trimem.checks import real, whole
from trimem.console import out


@benchmark
def crash(
    json_path: ResultOption,
    kills: Annotated[int, typer.Option("--kills", help="How often a process that writes is killed.")] = 200,
    seed: Annotated[int, typer.Option("--seed", help="Of operations and moments.")] = 0,
    folder: FolderOption = None,
) -> None:
    """Kill a process at random moments of whatever changes a bank, exports or imports, and look at what it leaves."""
    from trimem.bench.durability import run

    whole(kills, "kills", 1)
    with kept_or_thrown_away(folder) as bank:
        check_empty(bank)
        result = run(bank, kills, seed)
    write(result, json_path)
    out.print_json(data=result)


@benchmark
def store(
    json_path: ResultOption,
    writers: Annotated[int, typer.Option("--writers", help="Processes that write.")] = 12,
    readers: Annotated[int, typer.Option("--readers", help="Processes that read.")] = 12,
    seconds: Annotated[float, typer.Option("--seconds", help="For how long.")] = 60.0,
    slots: Annotated[
        int | None, typer.Option("--slots", help="Instead: open and search a bank of so many made-up slots, alone.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of what they do.")] = 0,
    folder: FolderOption = None,
) -> None:
    """Let many processes write and read one bank at once, and count errors, lost writes and torn reads."""
    from trimem.bench import concurrency, many_slots

    with kept_or_thrown_away(folder) as bank:
        if slots is not None:
            result = many_slots.run(bank, whole(slots, "slots", many_slots.TOPICS), seed=seed)
        else:
            whole(writers, "writers", 1)
            whole(readers, "readers", 0)
            real(seconds, "seconds", 0)
            check_empty(bank)
            result = concurrency.run(bank, writers, readers, seconds, seed)
    write(result, json_path)
    out.print_json(data=result)
