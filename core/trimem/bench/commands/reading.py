"""Benchmarks of a model that reads memory: ``trimem bench explicit``, ``needle``, ``hops`` and others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from trimem.bench.commands.shared import (
    PlotOption,
    RefsOption,
    ResultOption,
    SystemOption,
    benchmark,
    print_rows,
    write,
)
from trimem.console import NewModelOption, out, quiet


@benchmark
def explicit(
    data: Annotated[Path, typer.Option("--data", help="A file of questions.")],
    json_path: ResultOption,
    format: Annotated[str, typer.Option("--format", help="Of the file: squad, squad_long, kv or locomo.")] = "squad",
    refs: RefsOption = 5,
    n: Annotated[int, typer.Option("--n", help="Questions.")] = 50,
    model: NewModelOption = None,
    dtype: Annotated[str | None, typer.Option("--dtype", help="Precision of the model, such as bfloat16.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the draw of questions.")] = 0,
    system: Annotated[
        list[str] | None, typer.Option("--system", help="What to compare with closed book and text RAG; repeatable.")
    ] = None,
    new_tokens: Annotated[int, typer.Option("--new-tokens", help="Longest answer; 1 measures no f1, em, speed.")] = 24,
    length: Annotated[
        list[int] | None,
        typer.Option("--length", help="References to time the first token with, too; repeatable."),
    ] = None,
    bank: Annotated[Path | None, typer.Option("--bank", help="Keep the bank here; else it is thrown away.")] = None,
    plot: PlotOption = None,
) -> None:
    """Read documents as memory and as text: likelihood of the answers, time, bytes."""
    from trimem.bench.explicit import DEFAULT, run
    from trimem.bench.plots import plot_explicit
    from trimem.lm.load import load_model

    quiet()
    lm = load_model(model, **({} if dtype is None else {"dtype": dtype}))
    result = run(
        data,
        lm=lm,
        refs=refs,
        n=n,
        seed=seed,
        format=format,
        names=system or DEFAULT,
        new_tokens=new_tokens,
        lengths=length or (),
        bank_folder=bank,
    )
    write(result, json_path)
    if plot is not None:
        plot_explicit(result, plot)
    print_rows(result["rows"])
    for part in result.get("categories", ()):
        out.print(
            f"\n{part['category']}, {part['n']} questions, recall@{refs} {part['recall_at_k']:.3f}", highlight=False
        )
        print_rows(part["rows"])
    if result["lengths"]:
        print_rows(result["lengths"])
    out.print(f"recall@{refs} {result['recall_at_k']:.3f} over {result['paragraphs']} paragraphs", highlight=False)


@benchmark
def needle(
    data: Annotated[Path, typer.Option("--data", help="Folder of essays, each a .txt file.")],
    tokens: Annotated[list[int], typer.Option("--tokens", help="Length of the text; repeatable.")],
    json_path: ResultOption,
    refs: RefsOption = 5,
    n: Annotated[int, typer.Option("--n", help="Questions at each length, at depths from first to last.")] = 10,
    model: NewModelOption = None,
    seed: Annotated[int, typer.Option("--seed", help="Of essays and sentences.")] = 0,
    system: SystemOption = None,
    plot: PlotOption = None,
) -> None:
    """Find one sentence in ever more text: by search, and with all of the text in memory."""
    from trimem.bench.haystack import DEFAULT, plot_needle, run
    from trimem.lm.load import load_model

    quiet()
    result = run(data, lm=load_model(model), tokens=tokens, refs=refs, n=n, seed=seed, names=system or DEFAULT)
    write(result, json_path)
    if plot is not None:
        plot_needle(result, plot)
    print_rows(result["rows"])


@benchmark
def hops(
    json_path: ResultOption,
    refs: RefsOption = 5,
    n: Annotated[int, typer.Option("--n", help="Questions.")] = 50,
    distractors: Annotated[int, typer.Option("--distractors", help="Pairs of facts that nothing is asked about.")] = 50,
    oracle: Annotated[bool, typer.Option("--oracle", help="Read both facts, even where search misses one.")] = False,
    model: NewModelOption = None,
    seed: Annotated[int, typer.Option("--seed", help="Of all that is invented.")] = 0,
    system: SystemOption = None,
    plot: PlotOption = None,
) -> None:
    """Answer questions that take two facts, read as memory and as text."""
    from trimem.bench.hops import DEFAULT, plot_hops, run
    from trimem.lm.load import load_model

    quiet()
    result = run(
        lm=load_model(model),
        refs=refs,
        n=n,
        distractors=distractors,
        seed=seed,
        oracle=oracle,
        names=system or DEFAULT,
    )
    write(result, json_path)
    if plot is not None:
        plot_hops(result, plot)
    print_rows(result["rows"])


@benchmark
def follow_ups(
    json_path: ResultOption,
    refs: RefsOption = 3,
    model: NewModelOption = None,
) -> None:
    """Find and read answers to questions that are understood only from those before them."""
    from trimem.bench.follow_ups import run
    from trimem.lm.load import load_model

    quiet()
    result = run(lm=load_model(model), refs=refs)
    write(result, json_path)
    print_rows(result["rows"])
    print_rows(result["reading"])


@benchmark
def selection(
    data: Annotated[Path, typer.Option("--data", help="A file in SQuAD's format.")],
    json_path: ResultOption,
    refs: RefsOption = 5,
    n: Annotated[int, typer.Option("--n", help="Questions.")] = 40,
    model: NewModelOption = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the draw of questions.")] = 0,
) -> None:
    """Compare the rules by which a head chooses the tokens it keeps."""
    from trimem.bench.selection import run, table
    from trimem.lm.load import load_model

    quiet()
    result = run(data, lm=load_model(model), refs=refs, n=n, seed=seed)
    write(result, json_path)
    cost = {row["rule"]: row["ms_per_ref"] for row in result["rows"]}
    by_rule = table(result)
    shown = Table("rule", "ms a reference", *(f"{tokens} tokens" for tokens in next(iter(by_rule.values()))), box=None)
    for rule, nll in by_rule.items():
        shown.add_row(rule, f"{cost[rule]:.0f}", *(f"{value:.3f}" for value in nll.values()))
    out.print(shown)
    out.print(
        f"answer NLL; closed book {result['nll_closed']:.3f}, all tokens {result['nll_dense']:.3f}; "
        f"a forward pass alone takes {result['ms_per_ref_plain']:.0f} ms a reference",
        highlight=False,
    )


@benchmark
def serving(
    data: Annotated[Path, typer.Option("--data", help="A file in SQuAD's format.")],
    json_path: ResultOption,
    refs: RefsOption = 5,
    n: Annotated[int, typer.Option("--n", help="Questions.")] = 10,
    new_tokens: Annotated[int, typer.Option("--new-tokens", help="Of answers whose speed is taken.")] = 128,
    slots: Annotated[
        list[int] | None,
        typer.Option("--slots", help="Among how many to search, 10 and 100,000 by default; repeatable."),
    ] = None,
    model: NewModelOption = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the draw of questions.")] = 0,
    plot: PlotOption = None,
) -> None:
    """Time memory from each tier, exchanged while speaking, among many slots; check the citations."""
    from trimem.bench.serving import SLOTS, plot_serving, run
    from trimem.lm.load import load_model

    quiet()
    lm = load_model(model)
    result = run(data, lm=lm, refs=refs, n=n, new_tokens=new_tokens, slots=slots or SLOTS, seed=seed)
    write(result, json_path)
    if plot is not None:
        plot_serving(result, plot)
    for measured in ("tiers", "exchange", "slots", "citations"):
        print_rows(result[measured])
