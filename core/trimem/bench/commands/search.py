"""Benchmarks of finding texts: ``trimem bench recall``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trimem.bench.commands.shared import PlotOption, ResultOption, benchmark, print_rows, write
from trimem.console import NewModelOption, quiet


@benchmark
def recall(
    data: Annotated[Path, typer.Option("--data", help="A file of texts and queries.")],
    json_path: ResultOption,
    format: Annotated[str, typer.Option("--format", help="Of the file: squad, nq, cranfield or locomo.")] = "squad",
    n: Annotated[int, typer.Option("--n", help="Queries at each level.")] = 200,
    model: NewModelOption = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the draw of queries.")] = 0,
    system: Annotated[
        list[str] | None, typer.Option("--system", help="What to compare with bm25 and minilm; repeatable.")
    ] = None,
    plot: PlotOption = None,
) -> None:
    """Search by words, by vectors, by both and by rereading: what is found, how often, how fast."""
    from trimem.bench.recall import DEFAULT, plot_recall, run
    from trimem.lm.load import load_model

    quiet()
    result = run(data, lm=load_model(model), format=format, n=n, seed=seed, names=system or DEFAULT)
    write(result, json_path)
    if plot is not None:
        plot_recall(result, plot)
    print_rows(result["rows"])
    if result["differences"]:
        print_rows(result["differences"])
