"""``trimem demo``: a company's handbook, compiled once, then questions answered in three ways."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from trimem.bench.variants import read_from
from trimem.explicit.bank import ExplicitBank
from trimem.explicit.read_config import as_read_config
from trimem.lm.load import cache_folder, load_model
from trimem.progress import track

NAMESPACE = "demo"
REFERENCES = 3
MAX_NEW_TOKENS = 32
TITLES = {
    "closed_book": "closed book",
    "text_rag": "text RAG",
    "explicit_dense": "explicit memory",
    "explicit_mixed": "mixed density",
}

QUESTIONS = (
    "What did the company sew to get through the Dry Winter?",
    "What is the snow tractor called?",
    "What was the cause of the Great Unravelling?",
    "How much do I have to pay if I lose my badge and want a new one?",
    "Where does the yarn for the mesh come from?",
)
"""What the demo asks: five of the handbook's sixty questions, picked for reading well.

``trimem demo --all`` asks all sixty and counts.
"""


def handbook() -> dict[str, str]:
    """Return the pages of the handbook of Pellwether Fogworks, a company that does not exist, by file name."""
    pages = (page for page in (resources.files(__name__) / "handbook").iterdir() if page.name.endswith(".md"))
    return {page.name: page.read_text(encoding="utf-8") for page in sorted(pages, key=lambda page: page.name)}


def handbook_questions() -> dict[str, dict[str, str]]:
    """Return sixty questions about the handbook, each with ``answer`` and ``page``, where it stands literally."""
    text = (resources.files(__name__) / "handbook" / "questions.json").read_text(encoding="utf-8")
    return {asked["question"]: asked for asked in json.loads(text)}


def run(
    bank_folder: Path | None = None,
    model: str | None = None,
    console: Console | None = None,
    *,
    refs: int = REFERENCES,
    ask_all: bool = False,
    read: str = "dense",
) -> dict[str, Any]:
    """Compile the handbook, if it is not yet, and answer questions about it.

    Args:
        bank_folder: Where the bank is kept; None is a folder in the cache.
        model: What :func:`trimem.load_model` takes.
        console: Where to show it; None shows nothing.
        refs: References a question.
        ask_all: Ask all sixty questions and show only the counts, instead of five with their answers.
        read: How memory is read, as in :meth:`trimem.ExplicitBank.ask`.

    Returns:
        Per question the answers of all systems, and what the bank holds.

    Raises:
        InvalidInputError: ``read`` is neither ``"dense"`` nor ``"mixed"``.
    """
    as_read_config(read)
    lm = load_model(model)
    pages = handbook()
    with ExplicitBank.open(bank_folder or cache_folder() / "demo", model=lm) as bank:
        already = bank.stats().slots
        bank.remember(
            list(pages.values()),
            namespace=NAMESPACE,
            metadata=[{"source": name} for name in pages],
            ids=list(pages),
        )
        stats = bank.stats()
        if console is not None:
            done = "was compiled before" if already == stats.slots else "is now compiled"
            console.print(
                f"The handbook of Pellwether Fogworks, {len(pages)} pages no model has seen, {done}: {stats.slots} "
                f"references, {stats.tokens:,} tokens, {_megabytes(stats.tensor_bytes)} of key-values beside "
                f"{_megabytes(stats.database_bytes)} of text and index. {lm.name} answers from {refs} references.\n",
                highlight=False,
            )
        known = handbook_questions()
        questions = list(known) if ask_all else list(QUESTIONS)
        asked = []
        with track("asking", len(questions), None if ask_all and console is not None else False) as advance:
            for question in questions:
                asked.append(_ask(bank, question, known[question]["answer"], refs, read, None if ask_all else console))
                advance(1)
    if console is not None:
        _summarize(asked, console)
    return {
        "model": lm.name,
        "pages": len(pages),
        "slots": stats.slots,
        "tokens": stats.tokens,
        "tensor_bytes": stats.tensor_bytes,
        "database_bytes": stats.database_bytes,
        "compiled_before": already == stats.slots,
        "refs": refs,
        "questions": asked,
    }


def _ask(
    bank: ExplicitBank, question: str, answer: str, refs: int, read: str, console: Console | None
) -> dict[str, Any]:
    hits = bank.recall(question, refs, namespace=NAMESPACE)
    systems = read_from(bank, [f"explicit_{read}"])
    systems[-1].speak(question, hits, max_new_tokens=1)  # what runs first pays for warming up
    spoken = {system.name: system.speak(question, hits, max_new_tokens=MAX_NEW_TOKENS) for system in systems}
    result = {
        "question": question,
        "answer": answer,
        "systems": {
            name: {
                "text": said.text,
                "right": answer.lower() in said.text.lower(),
                "ttft_ms": 1000 * said.first_token,
                "prefill_tokens": said.prefill_tokens,
            }
            for name, said in spoken.items()
        },
        "sources": [
            {"source": hit.source, "line": hit.slot.line, "attention": hit.attention}
            for hit in spoken[f"explicit_{read}"].hits
        ],
    }
    if console is not None:
        _show(result, console)
    return result


def _show(asked: Mapping[str, Any], console: Console) -> None:
    table = Table(title=escape(asked["question"]), title_justify="left", title_style="bold")
    table.add_column("")
    table.add_column("answer", max_width=64)
    table.add_column("first token", justify="right")
    table.add_column("tokens prefilled", justify="right")
    for name, said in asked["systems"].items():
        text = escape(" ".join(said["text"].split()))
        table.add_row(
            TITLES[name],
            f"[green]{text}[/]" if said["right"] else text,
            f"{said['ttft_ms']:,.0f} ms",
            f"{said['prefill_tokens']:,}",
        )
    console.print(table)
    sources = sorted(asked["sources"], key=lambda source: -(source["attention"] or 0.0))
    read = "   ".join(f"{one['attention'] or 0.0:.0%} {escape(one['source'])}:{one['line']}" for one in sources)
    console.print(f"  read as memory, by share of attention: {read}\n", highlight=False, style="dim")


def _summarize(asked: Sequence[Mapping[str, Any]], console: Console) -> None:
    table = Table(box=None)
    table.add_column("")
    for title in ("right answers", "first token, median", "tokens prefilled, mean"):
        table.add_column(title, justify="right")
    for name in asked[0]["systems"]:
        said = [one["systems"][name] for one in asked]
        table.add_row(
            TITLES[name],
            f"{sum(one['right'] for one in said)} of {len(said)}",
            f"{statistics.median(one['ttft_ms'] for one in said):,.0f} ms",
            f"{statistics.mean(one['prefill_tokens'] for one in said):,.0f}",
        )
    console.print(table)


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
