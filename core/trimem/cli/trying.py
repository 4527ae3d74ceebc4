"""What is tried before anything is remembered: the demo, advice on what is cheapest, calibration of a model."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from trimem.console import JsonOption, NewModelOption, errors_said, out, print_json, quiet


@errors_said
def demo(
    bank: Annotated[
        Path | None, typer.Option("--bank", help="Where to keep the demo's bank; by default the cache.")
    ] = None,
    model: NewModelOption = None,
    refs: Annotated[int, typer.Option("--refs", help="References a question.")] = 3,
    ask_all: Annotated[bool, typer.Option("--all", help="Ask all sixty questions and count.")] = False,
    read: Annotated[str, typer.Option("--read", help="dense or mixed, as of ask.")] = "dense",
    as_json: JsonOption = False,
) -> None:
    """Compile a handbook and answer five questions: closed book, from text, from memory."""
    from trimem.demo import run

    quiet()
    result = run(bank, model, None if as_json else out, refs=refs, ask_all=ask_all, read=read)
    if as_json:
        print_json(result)


@errors_said
def advise(
    uses: Annotated[float, typer.Option("--uses", help="How often the text is used in the model's lifetime.")],
    model: NewModelOption = None,
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
        print_json({"model": name, **asdict(advised)})
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


@errors_said
def calibrate(
    model: NewModelOption = None,
    samples: Annotated[int, typer.Option("--samples", help="Made-up facts to measure on.")] = 12,
    seed: Annotated[int, typer.Option("--seed", help="Of the facts.")] = 0,
    head_bias: Annotated[bool, typer.Option("--head-bias", help="Also fit how much each head heeds memory.")] = False,
    path: Annotated[
        Path | None, typer.Option("--out", help="Where to write it; by default where trimem looks for it.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Find the heads by which a model fetches facts from memory, once a model.

    Banks made with heads="calibrated" or bytes_per_ref go by it.
    """
    from trimem.explicit.calibrate import calibrate as measure
    from trimem.explicit.calibration import own_calibration, save
    from trimem.explicit.head_bias import fit_head_bias
    from trimem.lm.load import load_model

    quiet()
    lm = load_model(model)
    made = measure(lm, samples=samples, seed=seed)
    if head_bias:
        made = replace(made, head_bias=fit_head_bias(lm, samples=samples, seed=seed).tolist())
    where = own_calibration(lm) if path is None else path
    save(made, where)
    if as_json:
        print_json(asdict(made))
        return
    table = Table("head", "copies", "is missed by, nats", box=None)
    for layer, head in made.ranking()[:12]:
        scores = (f"{score[layer][head]:.3f}" for score in (made.copy_score, made.ablation))
        table.add_row(f"layer {layer} head {head}", *scores)
    out.print(table)
    out.print(f"all {len(made.ranking())} heads of {escape(lm.name)} are in {escape(str(where))}", highlight=False)
