"""The ``trimem`` command.

Exit codes: 0 done, 1 an error (said on stderr, with what to do), 2 wrong usage. ``remember`` also exits
with 1 when a file that should have been readable was not; everything else is stored then.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec, TypeVar, cast

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from trimem.errors import InvalidInputError, TrimemError
from trimem.types import Hit, as_namespace

if TYPE_CHECKING:
    from trimem.explicit.bank import ExplicitBank
    from trimem.explicit.density import Density

P = ParamSpec("P")
R = TypeVar("R")

app = typer.Typer(
    name="trimem", help="Memory that language models can really use.", no_args_is_help=True, add_completion=False
)
bench = typer.Typer(name="bench", help="Measure trimem against its peers.", no_args_is_help=True)
app.add_typer(bench)

out = Console(soft_wrap=True)  # a path stays in one piece, however long
err = Console(stderr=True, soft_wrap=True)

BankOption = Annotated[Path, typer.Option("--bank", help="Folder of the bank.", envvar="TRIMEM_BANK")]
NamespaceOption = Annotated[str, typer.Option("--namespace", help="Whose memory, as a/b.", envvar="TRIMEM_NAMESPACE")]
ModelOption = Annotated[
    str | None,
    typer.Option("--model", help="Hugging Face id, folder or GGUF file; by default the bank's model."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
WhereOption = Annotated[
    list[str] | None, typer.Option("--where", metavar="KEY=VALUE", help="Only slots with this metadata.")
]


def errors_said(command: Callable[P, R]) -> Callable[P, R]:
    """Let a command say trimem's errors in red and exit with 1."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except TrimemError as error:
            err.print(f"[red]{type(error).__name__}:[/] {escape(str(error))}")
            raise typer.Exit(1) from None

    return run


@app.command()
@errors_said
def remember(
    paths: Annotated[list[Path], typer.Argument(help="Files and folders: Markdown, text, HTML, PDF.")],
    bank: BankOption,
    namespace: NamespaceOption,
    model: ModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compile documents; unchanged files are skipped, changed ones replace what they were."""
    from trimem.text.readers import SourceText, read_paths

    path = as_namespace(namespace.split("/"))
    files = list(read_paths(paths))
    texts = [file for file in files if isinstance(file, SourceText)]
    unread = [file for file in files if not isinstance(file, SourceText)]
    with _open(bank, model, create=True) as opened:
        before = opened.stats(namespace=path)
        if texts:
            opened.remember(
                [file.text for file in texts],
                namespace=path,
                metadata=[{"source": file.source} for file in texts],
                ids=[file.source for file in texts],
            )
        after = opened.stats(namespace=path)
    if as_json:
        _print_json(
            {
                "files": len(texts),
                "slots": after.slots,
                "new_slots": after.slots - before.slots,
                "tensor_bytes": after.tensor_bytes,
                "unread": [asdict(file) for file in unread],
            }
        )
    else:
        out.print(
            f"{len(texts)} files are {after.slots} references under {namespace} "
            f"({after.slots - before.slots:+d}), {_megabytes(after.tensor_bytes)}"
        )
        for file in unread:
            style = "yellow" if file.unexpected else "dim"
            err.print(f"[{style}]not read: {escape(file.source)} {escape(file.reason)}[/]")
    if any(file.unexpected for file in unread) or not texts:
        if not texts:
            err.print(f"[red]there is nothing to read in {escape(', '.join(map(str, paths)))}[/]")
        raise typer.Exit(1)


@app.command()
@errors_said
def ask(
    question: Annotated[str, typer.Argument(help="The question.")],
    bank: BankOption,
    namespace: NamespaceOption,
    k: Annotated[int, typer.Option("--k", "-k", help="References to read.")] = 5,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", help="Longest answer, in tokens.")] = 128,
    where: WhereOption = None,
    density: Annotated[
        str, typer.Option("--density", help="dense, mixed, or tokens a head of each reference: 128,32,8.")
    ] = "dense",
    bias: Annotated[float, typer.Option("--bias", help="Above 0, memory is heeded more than text would be.")] = 0.0,
    model: ModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Answer a question from memory, without reading the documents again."""
    with _open(bank, model) as opened:
        stream = opened.ask(
            question,
            namespace=namespace.split("/"),
            k=k,
            where=_where(where),
            max_new_tokens=max_new_tokens,
            density=_density(density),
            bias=bias,
            stream=True,
        )
        if not as_json:
            for piece in stream:
                out.print(piece, end="", markup=False, highlight=False)
            out.print()
        answer = stream.answer
    if as_json:
        _print_json(
            {
                "text": answer.text,
                "hits": [_hit(hit) for hit in answer.hits],
                "timings": asdict(answer.timings),
                "prompt_tokens": answer.prompt_tokens,
                "memory_tokens": answer.memory_tokens,
                "new_tokens": answer.new_tokens,
            }
        )
        return
    if not answer.hits:
        err.print(f"[yellow]nothing is remembered under {escape(namespace)}: the model answered by itself[/]")
    for hit in sorted(answer.hits, key=lambda hit: -(hit.attention or 0.0)):
        out.print(f"  {hit.attention or 0.0:4.0%}  {escape(hit.source)}:{hit.slot.line}", highlight=False, style="dim")
    out.print(
        f"  first token {1000 * answer.timings.first_token:,.0f} ms, {answer.prompt_tokens} tokens read, "
        f"{answer.memory_tokens} in memory",
        highlight=False,
        style="dim",
    )


@app.command()
@errors_said
def recall(
    query: Annotated[str, typer.Argument(help="What to look for.")],
    bank: BankOption,
    namespace: NamespaceOption,
    k: Annotated[int, typer.Option("--k", "-k", help="How many at most.")] = 4,
    where: WhereOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find references by words and by meaning."""
    with _open(bank) as opened:
        hits = opened.recall(query, k, namespace=namespace.split("/"), where=_where(where))
    if as_json:
        _print_json([_hit(hit) for hit in hits])
        return
    if not hits:
        err.print(f"[yellow]nothing is remembered under {escape(namespace)}[/]")
    for hit in hits:
        out.print(f"[bold]{hit.score:.2f}[/]  {escape(hit.source)}:{hit.slot.line}  [dim]{hit.id}[/]", highlight=False)
        out.print(f"      {escape(' '.join(hit.text.split()))}", highlight=False)


@app.command()
@errors_said
def forget(
    bank: BankOption,
    namespace: NamespaceOption,
    ids: Annotated[list[str] | None, typer.Option("--id", help="A slot's id, or a document's key.")] = None,
    source: Annotated[list[str] | None, typer.Option("--source", help="A document's source.")] = None,
    where: WhereOption = None,
    everything: Annotated[bool, typer.Option("--all", help="Everything under the namespace.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Erase references from the disk: rows, words in the index, tensors."""
    selection = _where(where) or {}
    if source:
        selection["source"] = source
    if everything == bool(ids or selection):
        raise InvalidInputError("say what to forget, by --id, --source or --where, or say --all, but not both")
    with _open(bank) as opened:
        receipt = opened.forget(namespace=namespace.split("/"), ids=ids, where=selection or None)
    if as_json:
        _print_json({**asdict(receipt), "erased_at": receipt.erased_at.isoformat()})
        return
    out.print(
        f"erased {len(receipt.slots)} slots of {receipt.documents} whole documents, {receipt.records} records, "
        f"{_megabytes(receipt.tensor_bytes)}   receipt {receipt.id}",
        highlight=False,
    )


@app.command()
@errors_said
def stats(
    bank: BankOption,
    namespace: Annotated[str | None, typer.Option("--namespace", help="Only under this, as a/b.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a bank holds."""
    with _open(bank) as opened:
        counted = opened.stats(namespace=None if namespace is None else namespace.split("/"))
    names = {"/".join(name): slots for name, slots in counted.namespaces.items()}
    if as_json:
        _print_json({**asdict(counted), "namespaces": names})
        return
    table = Table(box=None, show_header=False)
    for name, value in (
        ("documents", f"{counted.documents:,}"),
        ("slots", f"{counted.slots:,} ({counted.compiled:,} compiled)"),
        ("tokens", f"{counted.tokens:,}"),
        ("tensors", _megabytes(counted.tensor_bytes)),
        ("database", _megabytes(counted.database_bytes)),
        *((f"  {escape(name)}", f"{slots:,} slots") for name, slots in names.items()),
    ):
        table.add_row(name, value)
    out.print(table)


@app.command()
@errors_said
def demo(
    bank: Annotated[
        Path | None, typer.Option("--bank", help="Where to keep the demo's bank; by default the cache.")
    ] = None,
    model: ModelOption = None,
    refs: Annotated[int, typer.Option("--refs", help="References a question.")] = 3,
    ask_all: Annotated[bool, typer.Option("--all", help="Ask all sixty questions and count.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Compile a handbook and answer five questions: closed book, from text, from memory."""
    from trimem.demo import run

    _quiet()
    result = run(bank, model, None if as_json else out, refs=refs, ask_all=ask_all)
    if as_json:
        _print_json(result)


@app.command()
@errors_said
def advise(
    uses: Annotated[float, typer.Option("--uses", help="How often the text is used in the model's lifetime.")],
    model: Annotated[
        str | None, typer.Option("--model", help="Hugging Face id, folder or GGUF file; by default the small one.")
    ] = None,
    as_json: JsonOption = False,
    plot: Annotated[Path | None, typer.Option("--plot", help="Where to draw the costs, as PNG or SVG.")] = None,
) -> None:
    """Say where a text is cheapest: in the parameters, as explicit memory, or read again each time.

    Compute alone, by the formulas of Memory³ and for its recipe: 8 of 128 tokens kept at the first half of the layers.
    """
    from trimem.explicit.cost import Shape, advice, costs
    from trimem.lm.load import DEFAULT_NAME, model_config

    name = DEFAULT_NAME if model is None else model
    shape = Shape.of(model_config(model))
    cost = costs(shape)
    advised = advice(cost, uses)
    if plot is not None:
        from trimem.bench.plots import plot_costs

        plot_costs(cost, plot, model=name, uses=uses)
    if as_json:
        _print_json({"model": name, **asdict(advised)})
        return
    times = f"{uses:,.10g} uses"
    table = Table("TFlop", "write", "a use", times, box=None)
    for medium, write, read, total in (
        ("parameters", cost.implicit_write, 0.0, advised.parameters),
        ("explicit memory", cost.explicit_write, cost.explicit_read, advised.explicit_memory),
        ("RAG", 0.0, cost.rag_read, advised.rag),
    ):
        style = "bold" if medium == advised.best else None
        table.add_row(medium, *(f"{value:,.3g}" for value in (write, read, total)), style=style)
    out.print(table)
    stretch = "never the cheapest"
    if advised.interval is not None:
        stretch = "the cheapest from {:,.2f} to {:,.0f} uses".format(*advised.interval)
    out.print(f"cheapest at {times}: {advised.best}; explicit memory is {stretch}", highlight=False)
    out.print(
        f"{escape(name)}, memory at {shape.memory_layers} of {shape.num_layers} layers; compute alone, "
        "neither bytes nor transfers",
        highlight=False,
        style="dim",
    )


@app.command()
@errors_said
def calibrate(
    model: ModelOption = None,
    samples: Annotated[int, typer.Option("--samples", help="Made-up facts to measure on.")] = 12,
    seed: Annotated[int, typer.Option("--seed", help="Of the facts.")] = 0,
    path: Annotated[
        Path | None, typer.Option("--out", help="Where to write it; by default where trimem looks for it.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Find the heads by which a model fetches facts from memory, once a model.

    Banks made with heads="calibrated" or bytes_per_ref go by it.
    """
    from trimem.explicit.calibration import calibrate as measure
    from trimem.explicit.calibration import own_calibration
    from trimem.explicit.compiler import Compiler
    from trimem.explicit.config import ExplicitConfig
    from trimem.lm.load import load_model

    _quiet()
    lm = load_model(model)
    made = measure(Compiler(lm, ExplicitConfig()), samples=samples, seed=seed)
    where = own_calibration(lm) if path is None else path
    made.save(where)
    if as_json:
        _print_json(asdict(made))
        return
    table = Table("head", "copies", "is missed by, nats", box=None)
    for layer, head in made.ranking()[:12]:
        scores = (f"{score[layer][head]:.3f}" for score in (made.copy_score, made.ablation))
        table.add_row(f"layer {layer} head {head}", *scores)
    out.print(table)
    out.print(f"all {len(made.ranking())} heads of {escape(lm.name)} are in {where}", highlight=False)


@bench.command("explicit")
@errors_said
def bench_explicit(
    data: Annotated[Path, typer.Option("--data", help="A file of questions.")],
    json_path: Annotated[Path, typer.Option("--json", help="Where to write the result.")],
    format: Annotated[str, typer.Option("--format", help="Of the file: squad or kv.")] = "squad",
    refs: Annotated[int, typer.Option("--refs", help="References a question.")] = 5,
    n: Annotated[int, typer.Option("--n", help="Questions.")] = 50,
    model: ModelOption = None,
    dtype: Annotated[str | None, typer.Option("--dtype", help="Precision of the model, such as bfloat16.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the draw of questions.")] = 0,
    system: Annotated[
        list[str] | None, typer.Option("--system", help="What to compare with closed book and text RAG; repeatable.")
    ] = None,
    new_tokens: Annotated[int, typer.Option("--new-tokens", help="Longest answer; 1 measures no f1, em, speed.")] = 24,
    bank: Annotated[Path | None, typer.Option("--bank", help="Keep the bank here; else it is thrown away.")] = None,
    plot: Annotated[Path | None, typer.Option("--plot", help="Where to draw the result, as PNG or SVG.")] = None,
) -> None:
    """Read documents as memory and as text: likelihood of the answers, time, bytes."""
    from trimem.bench.explicit import DEFAULT, run
    from trimem.bench.plots import plot_explicit
    from trimem.lm.load import load_model

    _quiet()
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
        bank_folder=bank,
    )
    json_path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if plot is not None:
        plot_explicit(result, plot)
    names, *measures = result["rows"][0]
    table = Table(names, *measures, box=None)
    for row in result["rows"]:
        table.add_row(row[names], *("" if row[key] is None else f"{row[key]:,.3f}" for key in measures))
    out.print(table)
    out.print(f"recall@{refs} {result['recall_at_k']:.3f} over {result['paragraphs']} paragraphs", highlight=False)


@bench.command("needle")
@errors_said
def bench_needle(
    data: Annotated[Path, typer.Option("--data", help="Folder of essays, each a .txt file.")],
    tokens: Annotated[list[int], typer.Option("--tokens", help="Length of the text; repeatable.")],
    json_path: Annotated[Path, typer.Option("--json", help="Where to write the result.")],
    refs: Annotated[int, typer.Option("--refs", help="References a question.")] = 5,
    n: Annotated[int, typer.Option("--n", help="Questions at each length, at depths from first to last.")] = 10,
    model: ModelOption = None,
    seed: Annotated[int, typer.Option("--seed", help="Of essays and sentences.")] = 0,
    plot: Annotated[Path | None, typer.Option("--plot", help="Where to draw the result, as PNG or SVG.")] = None,
) -> None:
    """Find one sentence in ever more text: by search, and with all of the text in memory."""
    from trimem.bench.haystack import plot_needle, run
    from trimem.lm.load import load_model

    _quiet()
    result = run(data, lm=load_model(model), tokens=tokens, refs=refs, n=n, seed=seed)
    json_path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if plot is not None:
        plot_needle(result, plot)
    out.print(_rows(result["rows"]))


@bench.command("hops")
@errors_said
def bench_hops(
    json_path: Annotated[Path, typer.Option("--json", help="Where to write the result.")],
    refs: Annotated[int, typer.Option("--refs", help="References a question.")] = 5,
    n: Annotated[int, typer.Option("--n", help="Questions.")] = 50,
    distractors: Annotated[int, typer.Option("--distractors", help="Pairs of facts that nothing is asked about.")] = 50,
    oracle: Annotated[bool, typer.Option("--oracle", help="Read both facts, even where search misses one.")] = False,
    model: ModelOption = None,
    seed: Annotated[int, typer.Option("--seed", help="Of all that is invented.")] = 0,
    plot: Annotated[Path | None, typer.Option("--plot", help="Where to draw the result, as PNG or SVG.")] = None,
) -> None:
    """Answer questions that take two facts, read as memory and as text."""
    from trimem.bench.hops import plot_hops, run
    from trimem.lm.load import load_model

    _quiet()
    result = run(lm=load_model(model), refs=refs, n=n, distractors=distractors, seed=seed, oracle=oracle)
    json_path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if plot is not None:
        plot_hops(result, plot)
    out.print(_rows(result["rows"]))


@contextmanager
def _open(bank: Path, model: str | None = None, *, create: bool = False) -> Iterator[ExplicitBank]:
    from trimem.explicit.bank import ExplicitBank

    _quiet()
    with ExplicitBank.open(bank, model=model, create=create) as opened:
        yield opened


def _quiet() -> None:
    """Keep transformers' own progress bars out of the output."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def _where(pairs: list[str] | None) -> dict[str, Any] | None:
    where: dict[str, Any] = {}
    for pair in pairs or ():
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise InvalidInputError(f"--where takes KEY=VALUE, got {pair!r}")
        try:
            where[key] = json.loads(value)
        except ValueError:
            where[key] = value
    return where or None


def _density(given: str) -> Density:
    numbers = given.split(",")
    if all(number.strip().isdecimal() for number in numbers):
        return [int(number) for number in numbers]
    return cast("Density", given)  # what is unknown is refused where it is used


def _hit(hit: Hit) -> dict[str, Any]:
    slot = hit.slot
    return {
        "id": slot.id,
        "score": hit.score,
        "attention": hit.attention,
        "source": slot.source,
        "line": slot.line,
        "start": slot.start,
        "stop": slot.stop,
        "text": slot.text,
        "metadata": dict(slot.metadata),
    }


def _rows(rows: list[dict[str, Any]]) -> Table:
    """Return rows of a benchmark as a table, blank where nothing was measured."""
    table = Table(*rows[0], box=None)
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    return table


def _cell(value: str | float | None) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.3f}"


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
