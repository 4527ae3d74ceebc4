"""``trimem bench needle``: one sentence in ever more text, found by search or with all of the text attached."""

from __future__ import annotations

import re
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trimem.bench.corpus import Corpus, Question
from trimem.bench.environment import environment
from trimem.bench.needle import needle
from trimem.bench.plots import system_color
from trimem.bench.systems import ExplicitMemory, System
from trimem.bench.trials import LEAD, MAX_NEW_TOKENS, Trial, ask, found, remember, search, warm_up
from trimem.bench.variants import read_from
from trimem.drawing import new_figure
from trimem.errors import InvalidInputError
from trimem.explicit.bank import ExplicitBank
from trimem.explicit.compiler import Compiler
from trimem.explicit.config import ExplicitConfig
from trimem.lm.model import LanguageModel
from trimem.progress import track
from trimem.text.encoders import Encoder, as_encoder
from trimem.types import Hit

MEMORY_ALL = "memory_all"
"""The system that searches nothing and has all passages attached, in the order of the text."""

DEFAULT = ("explicit_dense",)

ROOM = 64
"""Positions of the model's context that memory must leave free, more where question and answer take more."""


@dataclass(frozen=True, slots=True)
class Row:
    """One system's result in texts of one length.

    Attributes:
        system: Which.
        tokens: How long the text is.
        recall_at_k: Share of questions whose sentence was among what the system read.
        found: Share of answers that say the code.
        answer_nll: Mean negative log-likelihood of the code's tokens, in nats, averaged over questions.
        ttft_ms_p50: Median milliseconds from the question to the first token, search included.

    All measures are None where the text does not fit the model's context.
    """

    system: str
    tokens: int
    recall_at_k: float | None = None
    found: float | None = None
    answer_nll: float | None = None
    ttft_ms_p50: float | None = None


def run(
    data: Path,
    *,
    lm: LanguageModel,
    tokens: Sequence[int],
    refs: int = 5,
    n: int = 10,
    seed: int = 0,
    names: Sequence[str] = DEFAULT,
    progress: bool | None = None,
) -> dict[str, Any]:
    """Ask for a sentence hidden in essays, in a bank of its own for each length and depth.

    Depths are spread evenly, each with a seed of its own, the same at all lengths. Only references that
    are read are compiled, before any time is taken.

    Args:
        data: Folder of the essays, each a ``.txt`` file.
        lm: The model.
        tokens: How long the text is to be, one or many.
        refs: References a question.
        n: Questions at each length.
        seed: Of the first; the next ones have the next.
        names: Ways to read what search finds, of :data:`trimem.bench.variants.VARIANTS`.
        progress: Whether to show bars; None shows them where there is a terminal.

    Returns:
        What ``--json`` writes: the settings and a row for each length and system.

    Raises:
        InvalidInputError: A number is out of its range, or the essays are shorter than wanted.
    """
    sizes = sorted(set(tokens))
    if not sizes or min(refs, n) < 1:
        raise InvalidInputError(
            f"tokens must be at least one number, refs and n at least 1, got {sizes}, {refs} and {n}"
        )
    compiler = Compiler(lm, ExplicitConfig())
    haystacks = _hide(data, compiler, sizes, n, seed, progress)
    encoder = as_encoder(None)
    rows: list[Row] = []
    with track("asking", len(sizes) * n, progress) as advance:
        for size, corpora in haystacks.items():
            rows += _measure(size, corpora, compiler, encoder, refs, names, advance, cold=not rows)
    return {
        "benchmark": "needle",
        "data": data.name,
        "model": lm.name,
        "tokens": sizes,
        "refs": refs,
        "n": n,
        "seed": seed,
        "rows": [asdict(row) for row in rows],
        "environment": environment(),
    }


def _hide(
    data: Path, compiler: Compiler, sizes: Sequence[int], n: int, seed: int, progress: bool | None
) -> dict[int, list[Corpus]]:
    """Make all texts, so that too few essays are known of before anything is measured."""
    haystacks: dict[int, list[Corpus]] = defaultdict(list)
    with track("hiding needles", len(sizes) * n, progress) as advance:
        for size in sizes:
            for i in range(n):
                corpus = needle(
                    data,
                    tokens=size,
                    depth=i / (n - 1) if n > 1 else 0.5,
                    seed=seed + i,
                    length=lambda text: len(compiler.reference(text)),
                    passage_tokens=compiler.config.reference_tokens,
                )
                haystacks[size].append(corpus)
                advance(1)
    return haystacks


def _measure(
    size: int,
    corpora: Sequence[Corpus],
    compiler: Compiler,
    encoder: Encoder,
    refs: int,
    names: Sequence[str],
    advance: Callable[[int], None],
    *,
    cold: bool,
) -> list[Row]:
    whole = all(_fits(compiler, corpus) for corpus in corpora)
    measured: dict[str, list[dict[str, float]]] = defaultdict(list)
    for i, corpus in enumerate(corpora):
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="trimem-bench-")))
            bank = stack.enter_context(
                ExplicitBank.open(folder, model=compiler.lm, encoder=encoder, config=compiler.config)
            )
            asked = _asked(bank, corpus, refs, names, whole=whole)
            for system, trial in asked if cold and i == 0 else ():
                warm_up(system, trial)
            for system, trial in asked:
                measured[system.name].append(_ask(system, trial))
        advance(1)
    rows = [
        Row(
            system=name,
            tokens=size,
            recall_at_k=statistics.mean(one["recall"] for one in many),
            found=statistics.mean(one["found"] for one in many),
            answer_nll=statistics.mean(one["nll"] for one in many),
            ttft_ms_p50=1000 * statistics.median(one["first_token"] for one in many),
        )
        for name, many in measured.items()
    ]
    return rows if whole else [*rows, Row(MEMORY_ALL, size)]


def _fits(compiler: Compiler, corpus: Corpus) -> bool:
    """Tell whether all passages at once leave room for question and answer in the model's context."""
    memory = len(compiler.prefix_ids) + sum(len(compiler.reference(passage)) for passage in corpus.passages)
    prompt = max(len(compiler.question(question.text)) for question in corpus.questions)
    room = prompt + len(compiler.lm.tokenize(LEAD)) + MAX_NEW_TOKENS
    return memory + max(ROOM, room) < compiler.lm.context_length


def _asked(
    bank: ExplicitBank, corpus: Corpus, refs: int, names: Sequence[str] = DEFAULT, *, whole: bool
) -> list[tuple[System, Trial]]:
    """Remember a text, and return each system with what it is to read of it, compiled."""
    (question,) = corpus.questions
    remember(bank, corpus.passages, progress=False)
    trial = search(bank, question, refs)
    asked: list[tuple[System, Trial]] = [(system, trial) for system in read_from(bank, names) if system.searches]
    if whole:
        asked.append((ExplicitMemory(bank, MEMORY_ALL), Trial(question, _all(bank, question))))
    bank.compile([hit for _, each in asked for hit in each.hits], progress=False)
    return asked


def _all(bank: ExplicitBank, question: Question) -> list[Hit]:
    """Return all slots, the last of the text first, as what is first stands nearest to the question."""
    hits = search(bank, question, bank.stats().slots).hits
    return sorted(hits, key=lambda hit: (int(hit.slot.document), hit.slot.start), reverse=True)


def _ask(system: System, trial: Trial) -> dict[str, float]:
    outcome = ask(system, trial)
    (code,) = trial.question.answers
    return {
        "recall": float(found(trial)),
        "found": float(re.search(rf"\b{re.escape(code)}\b", outcome.said.text) is not None),
        "nll": outcome.nll,
        "first_token": outcome.first_token,
    }


def plot_needle(result: Mapping[str, Any], path: Path) -> None:
    """Draw how often the code is said and the time to first token against the length of the text.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    rows = result["rows"]
    figure = new_figure(9, 3.5)
    for axes, (key, title) in zip(
        figure.subplots(1, 2),
        (("found", "answers that say the code"), ("ttft_ms_p50", "time to first token (ms, median)")),
        strict=True,
    ):
        for name in dict.fromkeys(row["system"] for row in rows):
            measured = [row for row in rows if row["system"] == name and row[key] is not None]
            sizes, values = [row["tokens"] for row in measured], [row[key] for row in measured]
            axes.plot(sizes, values, marker="o", color=system_color(name), label=name)
        axes.set_xscale("log")
        axes.minorticks_off()
        axes.set_xticks(result["tokens"], [f"{size:,}" for size in result["tokens"]])
        axes.set_xlabel("tokens of text")
        axes.set_ylim(bottom=0)
        axes.set_title(title, fontsize=10)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    figure.suptitle(f"{result['model']}, {result['data']}, {result['refs']} references, n = {result['n']}", fontsize=10)
    figure.savefig(path, dpi=150)
