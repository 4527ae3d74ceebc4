"""``trimem bench explicit``: reading documents as memory against reading them as text."""

from __future__ import annotations

import random
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trimem.bench.bootstrap import gap_closed
from trimem.bench.corpus import Corpus
from trimem.bench.environment import environment
from trimem.bench.kv_retrieval import load_kv
from trimem.bench.kvpress.environment import kvpress_python
from trimem.bench.kvpress.process import KvpressProcess, running
from trimem.bench.kvpress.system import PRESSES, Kvpress, share_of
from trimem.bench.lengths import QUESTIONS, measure_lengths
from trimem.bench.locomo import load_locomo
from trimem.bench.squad import load_squad
from trimem.bench.systems import ClosedBook, ExplicitMemory, System, TextRag
from trimem.bench.trials import MAX_NEW_TOKENS, NAMESPACE, Outcome, Trial, ask, found, search, warm_up
from trimem.bench.variants import VARIANTS
from trimem.errors import InvalidInputError
from trimem.explicit.bank import ExplicitBank
from trimem.explicit.config import ExplicitConfig
from trimem.lm.model import LanguageModel
from trimem.progress import track
from trimem.types import Hit, Namespace

SYSTEMS = ("text_rag_cached_prefix", *VARIANTS, *PRESSES)
"""What can be compared with closed_book and text_rag."""

DEFAULT = ("text_rag_cached_prefix", "kv_concat", "explicit_dense", "explicit_mixed")

FORMATS: dict[str, Callable[[Path], list[Corpus]]] = {
    "squad": lambda path: [load_squad(path)],
    "squad_long": lambda path: [load_squad(path, paragraphs=8)],
    "kv": load_kv,
    "locomo": load_locomo,
}
"""What files of questions can be in; "squad_long" makes one document of eight paragraphs of an article."""


@dataclass(frozen=True, slots=True)
class Row:
    """One system's result.

    Attributes:
        system: Which. Text RAG is measured with the best reference last and first; "text_rag" is the
            better of the two, and what all are compared with.
        answer_nll: Mean negative log-likelihood of the reference answer's tokens, in nats, averaged
            over questions.
        f1: SQuAD's, of what was said greedily.
        em: SQuAD's exact match.
        ttft_ms_p50: Median milliseconds from the question to the first token, search included.
        prefill_tokens: Mean tokens through the model before the first new one.
        decode_tok_s: Median tokens a second after the first.
        bytes_per_ref: Bytes on the disk for one reference: its share of the database with the
            indexes, and its tensors. Of kvpress, its key-values count as if they were written in float16.
        gap_closed: (nll of closed_book - nll) / (nll of closed_book - nll of text_rag).
        gap_closed_low: Lower bound of its 95 % interval, questions resampled in pairs; None where
            there is none.
        gap_closed_high: Upper bound.
    """

    system: str
    answer_nll: float
    f1: float
    em: float
    ttft_ms_p50: float
    prefill_tokens: float
    decode_tok_s: float
    bytes_per_ref: float
    gap_closed: float
    gap_closed_low: float | None
    gap_closed_high: float | None


def load(path: Path, format: str) -> list[Corpus]:
    """Read a file of questions; each corpus is meant to be searched by itself.

    Args:
        path: The file.
        format: One of :data:`FORMATS`.

    Raises:
        InvalidInputError: There is no such format, or the file is not in it.
    """
    if format not in FORMATS:
        raise InvalidInputError(f"format must be one of {', '.join(FORMATS)}, got {format!r}")
    return FORMATS[format](path)


def run(
    data: Path,
    *,
    lm: LanguageModel,
    refs: int = 5,
    n: int = 50,
    seed: int = 0,
    format: str = "squad",
    names: Sequence[str] = DEFAULT,
    new_tokens: int = MAX_NEW_TOKENS,
    lengths: Sequence[int] = (),
    bank_folder: Path | None = None,
    progress: bool | None = None,
) -> dict[str, Any]:
    """Compare the systems on the questions of a file.

    All passages of a corpus are searched for each of its questions; what is found is what every
    system reads. Only references that are found are compiled, before any time is taken.

    Args:
        data: The file.
        lm: The model.
        refs: References a question.
        n: Questions, drawn at random; fewer if the file has fewer.
        seed: Of the draw.
        format: Of the file, one of :data:`FORMATS`.
        names: Which of :data:`SYSTEMS` to compare; closed_book and text_rag always are.
        new_tokens: Longest answer. Where it is 1, nothing is spoken but the first token: ``f1``, ``em`` and
            ``decode_tok_s`` say nothing then.
        lengths: Numbers of references at which the time to first token is taken besides, with
            :data:`trimem.bench.lengths.QUESTIONS` of the questions.
        bank_folder: Where to keep the bank; None throws it away.
        progress: Whether to show bars; None shows them where there is a terminal.

    Returns:
        What ``--json`` writes: the settings, ``recall_at_k``, a row a system, and in ``lengths`` a row for
        each of the lengths and systems; where questions have categories, also ``categories`` with recall
        and rows for the questions of each.

    Raises:
        InvalidInputError: A number is below 1, or a name is unknown.
        MissingDependencyError: The environment for kvpress is wanted and cannot be made.
        PeerError: kvpress fails.
    """
    if min(refs, n, new_tokens, *lengths) < 1:
        raise InvalidInputError(
            f"refs, n, new_tokens and lengths must be at least 1, got {refs}, {n}, {new_tokens} and {list(lengths)}"
        )
    if unknown := [name for name in names if name not in SYSTEMS]:
        raise InvalidInputError(f"systems are {', '.join(SYSTEMS)}; got {', '.join(unknown)}")
    corpora = load(data, format)
    asked = [(i, question) for i, corpus in enumerate(corpora) for question in corpus.questions]
    drawn = random.Random(seed).sample(asked, min(n, len(asked)))  # noqa: S311 - a draw, no secret
    with ExitStack() as stack:
        kvpress = stack.enter_context(running(lm, kvpress_python())) if PRESSES.keys() & set(names) else None
        folder = bank_folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="trimem-bench-")))
        bank = stack.enter_context(ExplicitBank.open(folder / "float16", model=lm))
        for i in {i for i, _ in drawn}:
            told, keys = corpora[i], [str(key) for key in range(len(corpora[i].passages))]
            bank.remember(
                told.passages, namespace=_of(i), metadata=told.metadata, ids=keys, compile=False, progress=progress
            )
        bank.recall("warm up", 1, namespace=NAMESPACE)
        trials = [search(bank, question, refs, _of(i)) for i, question in drawn]
        by_refs = {k: [search(bank, q, k, _of(i)) for i, q in drawn[:QUESTIONS]] for k in sorted(set(lengths))}
        hits = [hit for several in (trials, *by_refs.values()) for trial in several for hit in trial.hits]
        banks = _banks(bank, folder, names, corpora, hits, stack, progress)
        compared = _systems(bank, banks, names, hits, kvpress)
        measured = _measure(compared, trials, new_tokens, progress)
        better = _better(measured)
        rows = _rows(compared, measured, better)
        categories = _by_category(compared, trials, measured, better)
        with track("timing lengths", sum(map(len, by_refs.values())) * len(compared), progress) as advance:
            timed = measure_lengths(compared, by_refs, advance)
    return {
        "benchmark": "explicit",
        "data": data.name,
        "model": lm.name,
        "refs": refs,
        "n": len(trials),
        "seed": seed,
        "paragraphs": sum(len(corpus.passages) for corpus in corpora),
        "recall_at_k": statistics.mean(found(trial) for trial in trials),
        "rows": rows,
        **({"categories": categories} if categories else {}),
        "lengths": [asdict(row) for row in timed],
        "environment": {**environment(), **({} if kvpress is None else {"kvpress": kvpress.versions})},
    }


def _of(corpus: int) -> tuple[str, str]:
    return NAMESPACE, str(corpus)


def _banks(
    bank: ExplicitBank,
    folder: Path,
    names: Sequence[str],
    corpora: Sequence[Corpus],
    hits: Sequence[Hit],
    stack: ExitStack,
    progress: bool | None,
) -> dict[ExplicitConfig, ExplicitBank]:
    """Open a bank for each configuration that is compared, and compile what was found."""
    banks = {bank.config: bank}
    variants = [PRESSES[name].as_small_as if name in PRESSES else name for name in names]
    for name in variants:
        if name in VARIANTS and VARIANTS[name].config not in banks:
            other = ExplicitBank.open(folder / name, model=bank.model, config=VARIANTS[name].config)
            banks[VARIANTS[name].config] = stack.enter_context(other)
            _copy(hits, corpora, other)
    for one in banks.values():
        one.compile(hits, progress=progress)
    return banks


def _systems(
    bank: ExplicitBank,
    banks: Mapping[ExplicitConfig, ExplicitBank],
    names: Sequence[str],
    hits: Sequence[Hit],
    kvpress: KvpressProcess | None,
) -> list[System]:
    compared: list[System] = [
        ClosedBook(bank),
        TextRag(bank, "text_rag_best_last"),
        TextRag(bank, "text_rag_best_first", best_first=True),
    ]
    for name in dict.fromkeys(names):
        if name == "text_rag_cached_prefix":
            compared.append(TextRag(bank, name, cached_prefix=True))
        elif name in VARIANTS:
            compared.append(ExplicitMemory(banks[VARIANTS[name].config], name, VARIANTS[name].read))
        else:
            assert kvpress is not None  # it runs wherever a press is named
            press = PRESSES[name]
            share = 1.0
            if press.as_small_as is not None:
                share = share_of(banks[VARIANTS[press.as_small_as].config], hits)
            compared.append(Kvpress(bank, name, kvpress, press.classes, share))
    return compared


def _copy(hits: Iterable[Hit], corpora: Sequence[Corpus], to: ExplicitBank) -> None:
    """Remember the documents of hits in another bank, where their slots have the same ids."""
    documents: dict[Namespace, set[str]] = defaultdict(set)
    for hit in hits:
        documents[hit.slot.namespace].add(hit.slot.document)
    for namespace, names in documents.items():
        passages = corpora[int(namespace[-1])].passages
        keys = sorted(names)
        to.remember([passages[int(key)] for key in keys], namespace=namespace, ids=keys, compile=False, progress=False)


def _measure(
    compared: Sequence[System], trials: Sequence[Trial], new_tokens: int, progress: bool | None
) -> dict[str, list[Outcome]]:
    """Ask every system every question, and return what came of it by the system's name."""
    measured: dict[str, list[Outcome]] = {system.name: [] for system in compared}
    for system in compared:
        warm_up(system, trials[0])
    with track("asking", len(trials) * len(compared), progress) as advance:
        for trial in trials:
            for system in compared:
                measured[system.name].append(ask(system, trial, new_tokens))
                advance(1)
    return measured


def _better(measured: Mapping[str, Sequence[Outcome]]) -> str:
    """Return the better of the two orders of references in text."""
    orders = ("text_rag_best_last", "text_rag_best_first")
    return min(orders, key=lambda name: statistics.mean(one.nll for one in measured[name]))


def _by_category(
    compared: Sequence[System], trials: Sequence[Trial], measured: Mapping[str, Sequence[Outcome]], better: str
) -> list[dict[str, Any]]:
    """Return recall and rows for the questions of each category."""
    parts = []
    for category in sorted({trial.question.category for trial in trials if trial.question.category is not None}):
        of = [i for i, trial in enumerate(trials) if trial.question.category == category]
        parts.append(
            {
                "category": category,
                "n": len(of),
                "recall_at_k": statistics.mean(found(trials[i]) for i in of),
                "rows": _rows(compared, {name: [many[i] for i in of] for name, many in measured.items()}, better),
            }
        )
    return parts


def _rows(compared: Sequence[System], measured: Mapping[str, Sequence[Outcome]], better: str) -> list[dict[str, Any]]:
    nll = {name: [one.nll for one in many] for name, many in measured.items()}
    rows = []
    for system in compared:
        many, gap = measured[system.name], None
        if len(many) > 1:
            gap = gap_closed(nll["closed_book"], nll[system.name], nll[better])
        means = [statistics.mean(nll[name]) for name in ("closed_book", system.name, better)]
        rows.append(
            Row(
                system="text_rag" if system.name == better else system.name,
                answer_nll=means[1],
                f1=statistics.mean(one.f1 for one in many),
                em=statistics.mean(one.em for one in many),
                ttft_ms_p50=1000 * statistics.median(one.first_token for one in many),
                prefill_tokens=statistics.mean(one.said.prefill_tokens for one in many),
                decode_tok_s=statistics.median(one.said.tokens_per_second for one in many),
                bytes_per_ref=system.bytes_per_ref([one.said for one in many]),
                gap_closed=(means[0] - means[1]) / (means[0] - means[2]),
                gap_closed_low=None if gap is None else gap.low,
                gap_closed_high=None if gap is None else gap.high,
            )
        )
    return [asdict(row) for row in rows]
