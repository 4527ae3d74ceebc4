"""``trimem bench hops``: questions that take two facts, each a reference of its own."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trimem.bench.bootstrap import mean_difference
from trimem.bench.corpus import Question
from trimem.bench.environment import environment
from trimem.bench.plots import system_color
from trimem.bench.systems import System
from trimem.bench.trials import Outcome, Trial, ask, found, remember, search
from trimem.bench.two_facts import two_facts
from trimem.bench.variants import read_from
from trimem.drawing import new_figure
from trimem.errors import InvalidInputError
from trimem.explicit.bank import ExplicitBank
from trimem.lm.model import LanguageModel
from trimem.progress import track

BASELINE = "text_rag"
"""The system that all are compared with."""

DEFAULT = ("explicit_dense", "explicit_repair")


@dataclass(frozen=True, slots=True)
class Row:
    """One system's result.

    Attributes:
        system: Which.
        recall_at_k: Share of questions both of whose facts were among what the system read.
        answer_nll: Mean negative log-likelihood of the answer's tokens, in nats, averaged over questions.
        f1: SQuAD's, of what was said greedily.
        em: SQuAD's exact match.
        nll_minus_text_low: Lower bound of the 95 % interval of answer_nll minus that of text_rag,
            questions resampled in pairs.
        nll_minus_text_high: Upper bound.
    """

    system: str
    recall_at_k: float
    answer_nll: float
    f1: float
    em: float
    nll_minus_text_low: float
    nll_minus_text_high: float


def run(
    *,
    lm: LanguageModel,
    refs: int = 5,
    n: int = 50,
    distractors: int = 50,
    seed: int = 0,
    oracle: bool = False,
    names: Sequence[str] = DEFAULT,
    progress: bool | None = None,
) -> dict[str, Any]:
    """Compare the systems on invented questions of two facts.

    The facts of all questions are searched together with those that nothing is asked about; what is
    found is what every system reads. Only references that are found are compiled.

    Args:
        lm: The model.
        refs: References a question.
        n: Questions, at least 2.
        distractors: Pairs of facts that nothing is asked about.
        seed: Of all that is invented.
        oracle: Whether both facts are read of every question, however search ranks them; what search
            ranks best fills the rest, and all stand in its order.
        names: Ways to read memory, of :data:`trimem.bench.variants.VARIANTS`.
        progress: Whether to show bars; None shows them where there is a terminal.

    Returns:
        What ``--json`` writes: the settings and a row a system.

    Raises:
        InvalidInputError: A number is out of its range.
    """
    if n < 2 or refs < (2 if oracle else 1):
        raise InvalidInputError(
            f"n must be at least 2, refs at least 1 and with oracle 2, for both facts, got {n} and {refs}"
        )
    corpus = two_facts(n, seed=seed, distractors=distractors)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="trimem-bench-")))
        bank = stack.enter_context(ExplicitBank.open(folder, model=lm))
        remember(bank, corpus.passages, progress=progress)
        find = _with_both_facts if oracle else search
        trials = [find(bank, question, refs) for question in corpus.questions]
        bank.compile([hit for trial in trials for hit in trial.hits], progress=progress)
        rows = _measure(read_from(bank, names), trials, progress)
    return {
        "benchmark": "hops",
        "model": lm.name,
        "refs": refs,
        "n": n,
        "distractors": distractors,
        "oracle": oracle,
        "seed": seed,
        "facts": len(corpus.passages),
        "rows": [asdict(row) for row in rows],
        "environment": environment(),
    }


def _with_both_facts(bank: ExplicitBank, question: Question, refs: int) -> Trial:
    """Put the facts that search missed in the place of the worst hits, in the order of search."""
    ranked = search(bank, question, bank.stats().slots).hits
    needed = {str(passage) for passage in question.passages}
    facts = [hit for hit in ranked if hit.slot.document in needed]
    others = [hit for hit in ranked if hit.slot.document not in needed][: max(0, refs - len(facts))]
    return Trial(question, sorted([*facts, *others], key=lambda hit: -hit.score))


def _measure(compared: Sequence[System], trials: list[Trial], progress: bool | None) -> list[Row]:
    outcomes: dict[str, list[Outcome]] = {system.name: [] for system in compared}
    with track("asking", len(trials) * len(compared), progress) as advance:
        for trial in trials:
            for system in compared:
                outcomes[system.name].append(ask(system, trial))
                advance(1)
    nll = {name: [outcome.nll for outcome in many] for name, many in outcomes.items()}
    recall = statistics.mean(float(found(trial)) for trial in trials)
    rows = []
    for system in compared:
        many = outcomes[system.name]
        difference = mean_difference(nll[system.name], nll[BASELINE])
        rows.append(
            Row(
                system=system.name,
                recall_at_k=recall if system.searches else 0.0,
                answer_nll=statistics.mean(nll[system.name]),
                f1=statistics.mean(outcome.f1 for outcome in many),
                em=statistics.mean(outcome.em for outcome in many),
                nll_minus_text_low=difference.low,
                nll_minus_text_high=difference.high,
            )
        )
    return rows


def plot_hops(result: Mapping[str, Any], path: Path) -> None:
    """Draw likelihood of the answers, its difference to text RAG with intervals, and f1, a bar a system.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    rows = result["rows"]
    names = [row["system"] for row in rows]
    colors = [system_color(name) for name in names]
    figure = new_figure(11, 1.5 + 0.35 * len(rows))
    nll, against, overlap = figure.subplots(1, 3, sharey=True)
    for axes, key, title in ((nll, "answer_nll", "answer NLL (nats a token)"), (overlap, "f1", "f1")):
        bars = axes.barh(names, [row[key] for row in rows], color=colors)
        axes.bar_label(bars, fmt="{:,.3g}", padding=2)
        axes.set_title(title, fontsize=10)
        axes.margins(x=0.15)
    text = next(row["answer_nll"] for row in rows if row["system"] == BASELINE)
    lows, highs = ([row[f"nll_minus_text_{bound}"] for row in rows] for bound in ("low", "high"))
    against.hlines(names, lows, highs, colors=colors, linewidth=3)
    against.scatter([row["answer_nll"] - text for row in rows], names, color=colors)
    against.axvline(0, color="black", linestyle=":", linewidth=1)
    against.set_title("answer NLL minus that of text RAG", fontsize=10)
    nll.invert_yaxis()
    for axes in (nll, against, overlap):
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    facts = "both facts given" if result["oracle"] else "facts as found"
    figure.suptitle(f"{result['model']}, {facts}, {result['refs']} references, n = {result['n']}", fontsize=10)
    figure.savefig(path, dpi=150)
