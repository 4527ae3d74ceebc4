"""Pictures of benchmark results; needs ``pip install "trimem[bench]"``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trimem.drawing import new_figure
from trimem.errors import InvalidInputError
from trimem.explicit.cost import Costs, Medium


def plot_explicit(result: Mapping[str, Any], path: Path) -> None:
    """Draw likelihood of the answers, time to first token, and likelihood against bytes on the disk.

    Where lengths were timed, also the time to first token against how much is read.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    rows = result["rows"]
    names = [row["system"] for row in rows]
    colors = [system_color(name) for name in names]
    timed = result.get("lengths") or []
    figure = new_figure(18 if timed else 13, max(1.5 + 0.35 * len(rows), 4.5 if timed else 0))
    nll, first, against, *grown = figure.subplots(1, 4 if timed else 3)
    for axes, key, title in (
        (nll, "answer_nll", "answer NLL (nats a token)"),
        (first, "ttft_ms_p50", "time to first token (ms, median)"),
    ):
        bars = axes.barh(names, [row[key] for row in rows], color=colors)
        axes.bar_label(bars, fmt="{:,.3g}", padding=2)
        axes.set_title(title, fontsize=10)
        axes.invert_yaxis()
        axes.margins(x=0.15)
    first.set_yticklabels([])
    stored = [row for row in rows if row["bytes_per_ref"] > 0]
    for row in stored:
        against.scatter(row["bytes_per_ref"], row["answer_nll"], color=system_color(row["system"]))
        against.annotate(row["system"], (row["bytes_per_ref"], row["answer_nll"]), fontsize=7, rotation=20)
    if stored:
        against.set_xscale("log")
    against.set_title("answer NLL against bytes a reference", fontsize=10)
    against.margins(x=0.25, y=0.2)
    for axes in grown:
        for name in dict.fromkeys(row["system"] for row in timed):
            of = [row for row in timed if row["system"] == name]
            tokens, taken = [row["context_tokens"] for row in of], [row["ttft_ms_p50"] for row in of]
            axes.plot(tokens, taken, marker="o", markersize=3, color=system_color(name))
            axes.annotate(name, (tokens[-1], taken[-1]), fontsize=7)
        axes.set_yscale("log")
        axes.set_xlabel("tokens of references", fontsize=8)
        axes.set_title("time to first token (ms, median)", fontsize=10)
        axes.margins(x=0.25)
    for axes in (nll, first, against, *grown):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    figure.suptitle(f"{result['model']}, {result['data']}, {result['refs']} references, n = {result['n']}", fontsize=10)
    figure.savefig(path, dpi=150)


def system_color(system: str) -> str:
    """Return the colour of a system: ours, text, or another."""
    if system.startswith(("explicit", "trimem")):
        return "#2a7f62"
    return "#f4a259" if system.startswith("text") else "#9aa0a6"


def plot_costs(costs: Costs, path: Path, *, model: str, uses: float | None = None) -> None:
    """Draw what each way to know a text costs against how often it is used, the stretch of memory shaded.

    Args:
        costs: Of one reference.
        path: Where to draw, by its suffix as PNG, SVG or another format of matplotlib's.
        model: Whose costs they are, for the title.
        uses: A number of uses to mark.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        InvalidInputError: Nothing can be drawn at ``path``.
    """
    lower, upper = costs.interval or (1.0, 1e4)
    marked = uses or lower  # a logarithmic axis has no zero
    start, stop = min(lower, marked) / 30, max(upper, marked) * 30
    points = [start * (stop / start) ** (step / 200) for step in range(201)]
    figure = new_figure(6, 4)
    axes = figure.subplots()
    colors: dict[Medium, str] = {"parameters": "#9aa0a6", "explicit memory": "#2a7f62", "RAG": "#f4a259"}
    for medium, color in colors.items():
        axes.loglog(points, [costs.totals(point)[medium] for point in points], color=color, label=medium)
    if costs.interval is not None:
        axes.axvspan(lower, upper, color=colors["explicit memory"], alpha=0.12, linewidth=0)
        axes.set_title(f"explicit memory is the cheapest from {lower:,.2f} to {upper:,.0f} uses", fontsize=10)
    if uses:
        axes.axvline(uses, color="black", linestyle=":", linewidth=1)
    axes.set_xlim(start, stop)
    axes.set_xlabel("uses of the text")
    axes.set_ylabel("TFlop, writing included")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(model, fontsize=10)
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"the plot cannot be drawn at {path}: {error}") from error
