"""``trimem bench recall``: which searches find what, how often and how fast."""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from sqlalchemy import column, select, table

from trimem.bench.bootstrap import mean_difference
from trimem.bench.collections import Collection, Query, load
from trimem.bench.environment import environment
from trimem.bench.plots import system_color
from trimem.drawing import new_figure
from trimem.errors import InvalidInputError
from trimem.explicit.bank import ExplicitBank
from trimem.lm.model import LanguageModel
from trimem.progress import track
from trimem.store.metadata import MetadataStore
from trimem.store.reader import SearchReader
from trimem.store.schema import SEARCH_TABLE, SlotRow
from trimem.store.scope import format_path, in_scope
from trimem.store.vectors import SlotVectors
from trimem.store.words import all_words
from trimem.text.encoders import Encoder, as_encoder
from trimem.types import Namespace

BASELINES = ("bm25", "minilm", "rrf")
DEFAULT = (*BASELINES, "trimem", "trimem_reread")
"""BM25 alone, cosine alone, their ranks fused with equal weights, and what a bank does without and with rereading."""

SYSTEMS = (*DEFAULT, "trimem_attention")
"""And with reranking by the attention of the question."""

METRICS = ("hit_at_1", "hit_at_5", "hit_at_10", "mrr")

RANKED = 100
"""Slots that each search returns."""

REREAD = 10
"""Slots that trimem_reread reads."""

_RRF = 60  # Cormack, Clarke and Büttcher, 2009
_INDEX = table(SEARCH_TABLE, column("rowid"), column(SEARCH_TABLE), column("rank"))


@dataclass(frozen=True, slots=True)
class Row:
    """One system's result on texts of one kind.

    Attributes:
        level: What one text is.
        system: Which.
        n: Queries.
        hit_at_1: Share of queries of which a right text is the first.
        hit_at_5: Is among the first five.
        hit_at_10: Is among the first ten.
        mrr: Mean of one divided by the rank of the first right text.
        p50_ms: Median milliseconds from the query to the slots.
    """

    level: str
    system: str
    n: int
    hit_at_1: float
    hit_at_5: float
    hit_at_10: float
    mrr: float
    p50_ms: float


@dataclass(frozen=True, slots=True)
class Difference:
    """By how much a system is better than the better of BM25 and cosine, queries resampled in pairs.

    Attributes:
        level: What one text is.
        system: Which.
        metric: Of which measure.
        than: What it is compared with.
        value: The difference.
        low: Lower bound of its 95 % interval.
        high: Upper bound.
    """

    level: str
    system: str
    metric: str
    than: str
    value: float
    low: float
    high: float


Search = Callable[[str, Namespace], list[str]]
"""Finds the documents of the best slots, best first, each once."""


def run(
    data: Path,
    *,
    lm: LanguageModel,
    format: str,
    n: int = 200,
    seed: int = 0,
    names: Sequence[str] = DEFAULT,
    progress: bool | None = None,
) -> dict[str, Any]:
    """Search for the queries of a file by each system.

    All systems search the same slots; a text is found where its best slot is. Slots are compiled only
    where they are to be reread, before any time is taken.

    Args:
        data: The file.
        lm: The model, which tells how long slots may be, and rereads.
        format: One of :data:`trimem.bench.collections.FORMATS`.
        n: Queries at each level, drawn at random; fewer if the file has fewer.
        seed: Of the draw.
        names: Which of :data:`SYSTEMS` to compare; BM25 and cosine always are.
        progress: Whether to show bars; None shows them where there is a terminal.

    Returns:
        What ``--json`` writes: the settings, a row for each level and system, and the differences.

    Raises:
        InvalidInputError: n is below 1, a name is unknown, or the file is not in the format.
    """
    if n < 1:
        raise InvalidInputError(f"n must be at least 1, got {n}")
    if unknown := [name for name in names if name not in SYSTEMS]:
        raise InvalidInputError(f"systems are {', '.join(SYSTEMS)}; got {', '.join(unknown)}")
    chosen = [name for name in SYSTEMS if name in names or name in BASELINES[:2]]
    levels = load(data, format)
    encoder = as_encoder(None)
    rows: list[Row] = []
    differences: list[Difference] = []
    for level, collections in levels.items():
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="trimem-bench-")))
            bank = stack.enter_context(ExplicitBank.open(folder, model=lm, encoder=encoder))
            asked = _draw(collections, n, seed)
            for i in sorted({i for i, _ in asked}):
                keys = [str(key) for key in range(len(collections[i].texts))]
                bank.remember(collections[i].texts, namespace=_of(i), ids=keys, compile=False, progress=progress)
            store = MetadataStore(bank.folder / "bank.sqlite")
            stack.callback(store.close)
            searches = _searches(bank, store, encoder, chosen)
            ranks, seconds = _measure(searches, asked, bank, progress)
        rows += [_row(level, name, ranks[name], seconds[name]) for name in chosen]
        differences += _differences(level, ranks)
    return {
        "benchmark": "recall",
        "data": data.name,
        "format": format,
        "model": lm.name,
        "n": n,
        "seed": seed,
        "texts": {level: sum(len(one.texts) for one in many) for level, many in levels.items()},
        "rows": [asdict(row) for row in rows],
        "differences": [asdict(difference) for difference in differences],
        "environment": environment(),
    }


def _of(collection: int) -> tuple[str, str]:
    return "bench", str(collection)


def _draw(collections: Sequence[Collection], n: int, seed: int) -> list[tuple[int, Query]]:
    asked = [(i, query) for i, collection in enumerate(collections) for query in collection.queries]
    return random.Random(seed).sample(asked, min(n, len(asked)))  # noqa: S311 - a draw, no secret


def _searches(bank: ExplicitBank, store: MetadataStore, encoder: Encoder, names: Sequence[str]) -> dict[str, Search]:
    plain = PlainSearch(store.reader, encoder)
    all_searches: dict[str, Search] = {
        "bm25": lambda query, namespace: plain.documents(plain.by_words(query, namespace), namespace),
        "minilm": lambda query, namespace: plain.documents(plain.by_vectors(query, namespace), namespace),
        "rrf": lambda query, namespace: plain.documents(plain.by_ranks(query, namespace), namespace),
        "trimem": lambda query, namespace: _documents(bank, query, namespace, 0),
        "trimem_reread": lambda query, namespace: _documents(bank, query, namespace, REREAD),
        "trimem_attention": lambda query, namespace: _documents(bank, query, namespace, REREAD, "attention"),
    }
    return {name: all_searches[name] for name in names}


def _documents(
    bank: ExplicitBank,
    query: str,
    namespace: Namespace,
    rerank: int,
    by: Literal["likelihood", "attention"] = "likelihood",
) -> list[str]:
    hits = bank.recall(query, RANKED, namespace=namespace, rerank=rerank, rerank_by=by)
    return list(dict.fromkeys(hit.slot.document for hit in hits))


class PlainSearch:
    """The searches that trimem is compared with, over the very same slots.

    Args:
        reader: Of the bank's database.
        encoder: The bank's.
    """

    def __init__(self, reader: SearchReader, encoder: Encoder) -> None:
        self._reader = reader
        self._encoder = encoder
        with reader.session() as session:
            rows = reader.vectors_after(session, 0, 1 << 30)
        assert rows is not None  # every collection has texts
        self._vectors = SlotVectors(rows.vectors.shape[1], exact_slots=len(rows.ids))
        self._vectors.put(rows.ids, rows.paths, rows.vectors)

    def by_words(self, query: str, namespace: Namespace) -> list[int]:
        """Rank by SQLite's bm25() of all words, whatever it takes."""
        either = " OR ".join(f'"{word}"' for word in all_words(query))
        statement = (
            select(SlotRow.id)
            .join(_INDEX, _INDEX.c.rowid == SlotRow.id)
            .where(_INDEX.c[SEARCH_TABLE].op("MATCH", is_comparison=True)(f"text : ({either})"))
            .where(*in_scope(namespace, None))
            .order_by(_INDEX.c.rank)
            .limit(RANKED)
        )
        with self._reader.session() as session:
            return list(session.scalars(statement)) if either else []

    def by_vectors(self, query: str, namespace: Namespace) -> list[int]:
        """Rank by cosine."""
        vector = self._encoder.encode_query(query)
        found: list[int] = self._vectors.nearest(vector, RANKED, format_path(namespace), None).tolist()
        return found

    def by_ranks(self, query: str, namespace: Namespace) -> list[int]:
        """Rank by the sum of one divided by 60 plus the rank in either."""
        scores: dict[int, float] = defaultdict(float)
        for ranked in (self.by_words(query, namespace), self.by_vectors(query, namespace)):
            for rank, row in enumerate(ranked, start=1):
                scores[row] += 1 / (_RRF + rank)
        return sorted(scores, key=lambda row: -scores[row])[:RANKED]

    def documents(self, rows: Sequence[int], namespace: Namespace) -> list[str]:
        """Return the documents of slots, each once."""
        with self._reader.session() as session:
            of = self._reader.documents(session, rows, namespace)
        return list(dict.fromkeys(of[row] for row in rows))


def _measure(
    searches: Mapping[str, Search], asked: Sequence[tuple[int, Query]], bank: ExplicitBank, progress: bool | None
) -> tuple[dict[str, list[int | None]], dict[str, list[float]]]:
    """Return, for each system, the rank of the first right text of each query, and the seconds."""
    ranks: dict[str, list[int | None]] = {name: [] for name in searches}
    seconds: dict[str, list[float]] = {name: [] for name in searches}
    if {"trimem_reread", "trimem_attention"} & set(searches):
        with track("reading candidates", len(asked), progress) as advance:
            for i, query in asked:
                bank.compile(bank.recall(query.text, REREAD, namespace=_of(i)), progress=False)
                advance(1)
    for name, search in searches.items():
        search("warm up", _of(asked[0][0]))
        with track(f"searching by {name}", len(asked), progress) as advance:
            for i, query in asked:
                started = time.perf_counter()
                found = search(query.text, _of(i))
                seconds[name].append(time.perf_counter() - started)
                right = [rank for rank, key in enumerate(found, start=1) if int(key) in query.relevant]
                ranks[name].append(right[0] if right else None)
                advance(1)
    return ranks, seconds


def _values(ranks: Sequence[int | None], metric: str) -> list[float]:
    if metric == "mrr":
        return [1 / rank if rank else 0.0 for rank in ranks]
    most = int(metric.removeprefix("hit_at_"))
    return [float(rank is not None and rank <= most) for rank in ranks]


def _row(level: str, system: str, ranks: Sequence[int | None], seconds: Sequence[float]) -> Row:
    measured = {metric: statistics.mean(_values(ranks, metric)) for metric in METRICS}
    return Row(level, system, len(ranks), **measured, p50_ms=1000 * statistics.median(seconds))


def _differences(level: str, ranks: Mapping[str, Sequence[int | None]]) -> list[Difference]:
    """Compare every system of ours with the better of BM25 and cosine, measure by measure."""
    found: list[Difference] = []
    if len(ranks["bm25"]) < 2:
        return found
    for system in [name for name in ranks if name not in BASELINES[:2]]:
        for metric in METRICS:
            than = max(BASELINES[:2], key=lambda name: float(np.mean(_values(ranks[name], metric))))
            by = mean_difference(_values(ranks[system], metric), _values(ranks[than], metric))
            found.append(Difference(level, system, metric, than, by.value, by.low, by.high))
    return found


def plot_recall(result: Mapping[str, Any], path: Path) -> None:
    """Draw hit@1, hit@5 and the time of a search, level by level.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    rows = result["rows"]
    levels = list(dict.fromkeys(row["level"] for row in rows))
    systems = list(dict.fromkeys(row["system"] for row in rows))
    figure = new_figure(11, 1 + 0.45 * len(rows))
    measures = (("hit_at_1", "hit@1"), ("hit_at_5", "hit@5"), ("p50_ms", "milliseconds (median)"))
    for i, (axes, (key, title)) in enumerate(zip(figure.subplots(1, len(measures)), measures, strict=True)):
        names = [f"{level} {system}" for level in levels for system in systems]
        values = [next(row[key] for row in rows if f"{row['level']} {row['system']}" == name) for name in names]
        bars = axes.barh(names, values, color=[system_color(name.split()[-1]) for name in names])
        axes.bar_label(bars, fmt="{:,.3g}", padding=2, fontsize=8)
        axes.invert_yaxis()
        axes.set_title(title, fontsize=10)
        axes.margins(x=0.15)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        if i:
            axes.set_yticklabels([])
    figure.suptitle(f"{result['data']}, n = {result['n']}", fontsize=10)
    figure.savefig(path, dpi=150)
