"""``trimem bench``: the commands that print every number of the documentation."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from trimem.console import ModelOption, errors_said, out, quiet
from trimem.errors import InvalidInputError

bench = typer.Typer(name="bench", help="Measure trimem against its peers.", no_args_is_help=True)

ResultOption = Annotated[Path, typer.Option("--json", help="Where to write the result.")]
PlotOption = Annotated[Path | None, typer.Option("--plot", help="Where to draw the result, as PNG or SVG.")]
SystemOption = Annotated[
    list[str] | None, typer.Option("--system", help="A way to read memory, as of bench explicit; repeatable.")
]
FolderOption = Annotated[Path | None, typer.Option("--bank", help="Keep the bank here; else it is thrown away.")]
RefsOption = Annotated[int, typer.Option("--refs", help="References a question.")]


@bench.command("explicit")
@errors_said
def bench_explicit(
    data: Annotated[Path, typer.Option("--data", help="A file of questions.")],
    json_path: ResultOption,
    format: Annotated[str, typer.Option("--format", help="Of the file: squad, squad_long, kv or locomo.")] = "squad",
    refs: RefsOption = 5,
    n: Annotated[int, typer.Option("--n", help="Questions.")] = 50,
    model: ModelOption = None,
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
    _write(result, json_path)
    if plot is not None:
        plot_explicit(result, plot)
    _print(result["rows"])
    for part in result.get("categories", ()):
        out.print(
            f"\n{part['category']}, {part['n']} questions, recall@{refs} {part['recall_at_k']:.3f}", highlight=False
        )
        _print(part["rows"])
    if result["lengths"]:
        _print(result["lengths"])
    out.print(f"recall@{refs} {result['recall_at_k']:.3f} over {result['paragraphs']} paragraphs", highlight=False)


@bench.command("needle")
@errors_said
def bench_needle(
    data: Annotated[Path, typer.Option("--data", help="Folder of essays, each a .txt file.")],
    tokens: Annotated[list[int], typer.Option("--tokens", help="Length of the text; repeatable.")],
    json_path: ResultOption,
    refs: RefsOption = 5,
    n: Annotated[int, typer.Option("--n", help="Questions at each length, at depths from first to last.")] = 10,
    model: ModelOption = None,
    seed: Annotated[int, typer.Option("--seed", help="Of essays and sentences.")] = 0,
    system: SystemOption = None,
    plot: PlotOption = None,
) -> None:
    """Find one sentence in ever more text: by search, and with all of the text in memory."""
    from trimem.bench.haystack import DEFAULT, plot_needle, run
    from trimem.lm.load import load_model

    quiet()
    result = run(data, lm=load_model(model), tokens=tokens, refs=refs, n=n, seed=seed, names=system or DEFAULT)
    _write(result, json_path)
    if plot is not None:
        plot_needle(result, plot)
    _print(result["rows"])


@bench.command("hops")
@errors_said
def bench_hops(
    json_path: ResultOption,
    refs: RefsOption = 5,
    n: Annotated[int, typer.Option("--n", help="Questions.")] = 50,
    distractors: Annotated[int, typer.Option("--distractors", help="Pairs of facts that nothing is asked about.")] = 50,
    oracle: Annotated[bool, typer.Option("--oracle", help="Read both facts, even where search misses one.")] = False,
    model: ModelOption = None,
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
    _write(result, json_path)
    if plot is not None:
        plot_hops(result, plot)
    _print(result["rows"])


@bench.command("follow-ups")
@errors_said
def bench_follow_ups(
    json_path: ResultOption,
    refs: RefsOption = 3,
    model: ModelOption = None,
) -> None:
    """Find and read answers to questions that are understood only from those before them."""
    from trimem.bench.follow_ups import run
    from trimem.lm.load import load_model

    quiet()
    result = run(lm=load_model(model), refs=refs)
    _write(result, json_path)
    _print(result["rows"])
    _print(result["reading"])


@bench.command("selection")
@errors_said
def bench_selection(
    data: Annotated[Path, typer.Option("--data", help="A file in SQuAD's format.")],
    json_path: ResultOption,
    refs: RefsOption = 5,
    n: Annotated[int, typer.Option("--n", help="Questions.")] = 40,
    model: ModelOption = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the draw of questions.")] = 0,
) -> None:
    """Compare the rules by which a head chooses the tokens it keeps."""
    from trimem.bench.selection import run, table
    from trimem.lm.load import load_model

    quiet()
    result = run(data, lm=load_model(model), refs=refs, n=n, seed=seed)
    _write(result, json_path)
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


@bench.command("recall")
@errors_said
def bench_recall(
    data: Annotated[Path, typer.Option("--data", help="A file of texts and queries.")],
    json_path: ResultOption,
    format: Annotated[str, typer.Option("--format", help="Of the file: squad, nq, cranfield or locomo.")] = "squad",
    n: Annotated[int, typer.Option("--n", help="Queries at each level.")] = 200,
    model: ModelOption = None,
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
    _write(result, json_path)
    if plot is not None:
        plot_recall(result, plot)
    _print(result["rows"])
    if result["differences"]:
        _print(result["differences"])


@bench.command("resonance")
@errors_said
def bench_resonance(
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
    tokens: Annotated[int, typer.Option("--tokens", help="Tokens that the language model decodes.")] = 4096,
    model: ModelOption = None,
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
    if format == "locomo":
        result = run_dialogues(text, n=n, seed=seed, language=language)
        _write(result, json_path)
        _print(result["dialogue"])
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
    _write(result, json_path)
    if plot is not None:
        plot_resonance(text, plot, query=query, words=lexicon(phonemizer(language)), seed=seed)
    for name in PARTS:
        if result.get(name):
            _print(result[name])


@bench.command("serving")
@errors_said
def bench_serving(
    data: Annotated[Path, typer.Option("--data", help="A file in SQuAD's format.")],
    json_path: ResultOption,
    refs: RefsOption = 5,
    n: Annotated[int, typer.Option("--n", help="Questions.")] = 10,
    new_tokens: Annotated[int, typer.Option("--new-tokens", help="Of answers whose speed is taken.")] = 128,
    slots: Annotated[
        list[int] | None, typer.Option("--slots", help="Among how many to search; repeatable. [default: 10, 100000]")
    ] = None,
    model: ModelOption = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the draw of questions.")] = 0,
    plot: PlotOption = None,
) -> None:
    """Time memory from each tier, exchanged while speaking, among many slots; check the citations."""
    from trimem.bench.serving import SLOTS, plot_serving, run
    from trimem.lm.load import load_model

    quiet()
    lm = load_model(model)
    result = run(data, lm=lm, refs=refs, n=n, new_tokens=new_tokens, slots=slots or SLOTS, seed=seed)
    _write(result, json_path)
    if plot is not None:
        plot_serving(result, plot)
    for measured in ("tiers", "exchange", "slots", "citations"):
        _print(result[measured])


@bench.command("transit")
@errors_said
def bench_transit(
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
    """Store vectors in few bytes: what is left of images and embeddings, and how fast slots are."""
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
    _write(result, json_path)
    if plot is not None:
        plot_transit(result, plot)
    measured = {name for row in result["rows"] for name, value in row.items() if value is not None}
    _print([{name: value for name, value in row.items() if name in measured} for row in result["rows"]])
    for rows in (result["bank"], result["talk"], result["slots"], [result["churn"]] if result["churn"] else []):
        _print(rows)


@bench.command("crash")
@errors_said
def bench_crash(
    json_path: ResultOption,
    kills: Annotated[int, typer.Option("--kills", help="How often a process that writes is killed.")] = 200,
    seed: Annotated[int, typer.Option("--seed", help="Of operations and moments.")] = 0,
    folder: FolderOption = None,
) -> None:
    """Kill a process at random moments of whatever changes a bank, exports or imports, and look at what it leaves."""
    from trimem.bench.durability import run

    with _folder(folder) as bank:
        result = run(bank, kills, seed)
    _write(result, json_path)
    out.print_json(data=result)


@bench.command("store")
@errors_said
def bench_store(
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

    with _folder(folder) as bank:
        if slots:
            result = many_slots.run(bank, slots, seed=seed)
        else:
            result = concurrency.run(bank, writers, readers, seconds, seed)
    _write(result, json_path)
    out.print_json(data=result)


@contextmanager
def _folder(folder: Path | None) -> Iterator[Path]:
    """Give a folder that is not there yet, thrown away afterwards unless the user named it."""
    if folder is not None:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="trimem-") as made:
        yield Path(made) / "bank"


def _print(rows: list[dict[str, Any]]) -> None:
    """Print rows of a benchmark as a table, blank where nothing was measured; no rows print nothing."""
    if not rows:
        return
    table = Table(box=None, padding=(0, 1, 0, 0))
    for i, name in enumerate(rows[0]):
        table.add_column(name, overflow="fold", no_wrap=i == 0)
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    out.print(table, width=None if out.is_terminal else 200)


def _cell(value: str | float | None) -> str:
    """Show a number with about four digits."""
    if value is None or isinstance(value, str):
        return value or ""
    return f"{value:,.{0 if isinstance(value, int) or value >= 1000 else 1 if value >= 10 else 3}f}"


def _write(result: Mapping[str, Any], path: Path) -> None:
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
