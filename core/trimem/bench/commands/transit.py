"""Benchmarks of transit memory: ``trimem bench transit``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trimem.bench.commands.shared import PlotOption, ResultOption, benchmark, print_rows, write
from trimem.console import quiet


@benchmark
def transit(
    json_path: ResultOption,
    images: Annotated[Path | None, typer.Option("--images", help="Folder of images.")] = None,
    embeddings: Annotated[Path | None, typer.Option("--embeddings", help="A file in SQuAD's format.")] = None,
    fitted_to: Annotated[
        Path | None, typer.Option("--fitted-to", help="Texts, one a line, to fit to instead of those of --embeddings.")
    ] = None,
    kv: Annotated[
        Path | None, typer.Option("--kv", help="A file in SQuAD's format, whose passages' key-values are stored.")
    ] = None,
    bank: Annotated[
        Path | None, typer.Option("--bank", help="A file in SQuAD's format, whose paragraphs a bank of texts holds.")
    ] = None,
    talk: Annotated[
        Path | None, typer.Option("--talk", help="A file in LoCoMo's format, whose turns are written as they surprise.")
    ] = None,
    n: Annotated[
        int, typer.Option("--n", help="Questions to answer from key-values, or to look for in a bank or a talk.")
    ] = 20,
    train: Annotated[
        Path | None, typer.Option("--train", help="Images to fit to where others are measured; by default every other.")
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option("--task", help="paper_64, paper_full, paper_synthetic, patches_8, blocks_32; repeatable."),
    ] = None,
    system: Annotated[
        list[str] | None,
        typer.Option(
            "--system", help="idrp, pca, autoencoder, opq, pq, int8 or int4; of key-values float16, too; repeatable."
        ),
    ] = None,
    numbers: Annotated[str, typer.Option("--numbers", help="Of codes: int8, int4, int2, float16 or float32.")] = "int8",
    code: Annotated[
        list[int] | None, typer.Option("--code", help="Size of the code instead of each task's own; repeatable.")
    ] = None,
    slots: Annotated[list[int] | None, typer.Option("--slots", help="Slots to time reading with; repeatable.")] = None,
    churn: Annotated[int, typer.Option("--churn", help="Writes into the least of these numbers of slots.")] = 0,
    steps: Annotated[int | None, typer.Option("--steps", help="Of training, instead of each task's own.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of training.")] = 0,
    plot: PlotOption = None,
) -> None:
    """Store vectors in few bytes: what is left of images, embeddings and key-values, what banks find, how fast."""
    from trimem.bench.transit.bench import DEFAULT, IMAGE_TASKS, plot_transit, run

    quiet()
    result = run(
        images=images,
        train=train,
        squad=embeddings,
        fitted_to=fitted_to,
        kv=kv,
        bank=bank,
        talk=talk,
        n=n,
        tasks=task or IMAGE_TASKS,
        names=system or DEFAULT,
        numbers=numbers,
        codes=code or (),
        slots=slots or (),
        churn=churn,
        steps=steps,
        seed=seed,
    )
    write(result, json_path)
    if plot is not None:
        plot_transit(result, plot)
    measured = {name for row in result["rows"] for name, value in row.items() if value is not None}
    print_rows([{name: value for name, value in row.items() if name in measured} for row in result["rows"]])
    for rows in (result["bank"], result["talk"], result["slots"], [result["churn"]] if result["churn"] else []):
        print_rows(rows)
