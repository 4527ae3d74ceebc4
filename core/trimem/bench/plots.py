"""Pictures of benchmark results; needs ``pip install "trimem[bench]"``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trimem.errors import MissingDependencyError


def plot_explicit(result: Mapping[str, Any], path: Path) -> None:
    """Draw likelihood of the answers and time to first token, a bar a system.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError('plots need matplotlib: pip install "trimem[bench]"') from error
    rows = result["rows"]
    names = [row["system"] for row in rows]
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    for axes, (key, title) in zip(
        figure.subplots(1, 3),
        (
            ("answer_nll", "answer NLL (nats a token)"),
            ("ttft_ms_p50", "time to first token (ms, median)"),
            ("prefill_tokens", "tokens prefilled"),
        ),
        strict=True,
    ):
        bars = axes.bar(names, [row[key] for row in rows], color=["#9aa0a6", "#f4a259", "#2a7f62"])
        axes.bar_label(bars, fmt="{:.3g}")
        axes.set_title(title, fontsize=10)
        axes.tick_params(axis="x", labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{result['model']}, {result['data']}, {result['refs']} references, n = {result['n']}", fontsize=10)
    figure.savefig(path, dpi=150)
