"""Benchmarks of resonance memory: ``trimem bench resonance``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trimem.bench.commands.shared import ResultOption, benchmark, print_rows, write
from trimem.console import NewModelOption, quiet
from trimem.errors import InvalidInputError

TOKENS = 4096
"""How many a language model decodes, unless it is told."""


@benchmark
def resonance(
    text: Annotated[Path, typer.Option("--text", help="A text file in UTF-8, or one in LoCoMo's format.")],
    json_path: ResultOption,
    format: Annotated[
        str, typer.Option("--format", help="text, or locomo: questions about dialogues, with names misheard.")
    ] = "text",
    words: Annotated[
        list[int] | None, typer.Option("--words", help="Length to search at, made up to if need be; repeatable.")
    ] = None,
    n: Annotated[int, typer.Option("--n", help="Queries of each kind.")] = 100,
    seed: Annotated[int, typer.Option("--seed", help="Of places and errors.")] = 0,
    language: Annotated[str, typer.Option("--language", help="Of the text: en, or as espeak-ng calls it.")] = "en",
    system: Annotated[
        list[str] | None,
        typer.Option("--system", help="resonance, words, trigrams, rapidfuzz or minilm; repeatable."),
    ] = None,
    part: Annotated[
        list[str] | None, typer.Option("--part", help="codec, consensus or search; all by default; repeatable.")
    ] = None,
    tokens: Annotated[int, typer.Option("--tokens", help="Tokens that the language model decodes.")] = TOKENS,
    model: NewModelOption = None,
    device: Annotated[str | None, typer.Option("--device", help="Where to search, such as cuda.")] = None,
    query: Annotated[
        str | None,
        typer.Option("--query", help="What the plot listens for; by default a misheard part of the text."),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Where to draw the text's phases and the query's peak, as PNG or SVG.")
    ] = None,
) -> None:
    """Store a text as a trajectory, decode it, hear it through noise, and find misheard phrases in it."""
    from trimem.bench.resonance import FORMATS, PARTS, run, run_dialogues
    from trimem.bench.resonance_plot import plot_resonance
    from trimem.bench.resonance_search import SYSTEMS
    from trimem.resonance.lexicon import lexicon
    from trimem.resonance.phonemes import phonemizer

    quiet()
    if format not in FORMATS:
        raise InvalidInputError(f"formats are {', '.join(FORMATS)}; got {format!r}")
    if query is not None and plot is None:
        raise InvalidInputError("--query is of --plot: leave it out, or say where to draw")
    if format == "locomo":
        given = {"words": words, "system": system, "part": part, "model": model, "device": device, "plot": plot}
        for option in [name for name, value in given.items() if value] + ["tokens"] * (tokens != TOKENS):
            raise InvalidInputError(f"--{option} is of --format text: leave it out")
        result = run_dialogues(text, n=n, seed=seed, language=language)
        write(result, json_path)
        print_rows(result["dialogue"])
        return
    result = run(
        text,
        parts=part or PARTS,
        words=words or (),
        tokens=tokens,
        model=model,
        n=n,
        seed=seed,
        language=language,
        systems=system or SYSTEMS,
        device=device,
    )
    write(result, json_path)
    if plot is not None:
        plot_resonance(text, plot, query=query, words=lexicon(phonemizer(language)), seed=seed)
    for name in PARTS:
        if result.get(name):
            print_rows(result[name])
