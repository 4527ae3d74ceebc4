"""``trimem bench serving``: memory in use: read from each tier, exchanged, among many slots, cited."""

from __future__ import annotations

import os
import random
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from trimem.bench.corpus import Corpus, Question
from trimem.bench.environment import environment
from trimem.bench.squad import load_squad
from trimem.bench.systems import ExplicitMemory
from trimem.bench.trials import LEAD, found, search
from trimem.drawing import new_figure
from trimem.errors import CalibrationNotFoundError, InvalidInputError
from trimem.explicit.attribution import citations
from trimem.explicit.bank import ExplicitBank
from trimem.explicit.calibration import calibration_of
from trimem.explicit.read_config import READ_CONFIGS, ReadConfig
from trimem.lm.model import LanguageModel
from trimem.progress import track
from trimem.store.metadata import Document, MetadataStore, NewSlot
from trimem.text.encoders import Encoder, as_encoder
from trimem.types import Answer, Citation, Hit

NAMESPACE = "bench"
PASSAGES = 100
"""How many passages of the file are searched, from its beginning."""

TIERS = ("warm", "disk", "text", "compile")
"""Decoded in memory; on the disk, dropped from the system's cache; not compiled, its text serving; compiled first."""

SLOTS = (10, 100_000)
"""Among how many slots is searched."""

EXCHANGE = 64
"""Every so many new tokens memories are exchanged (Memory³, section 3.1)."""

_GROUP = 5000  # made-up slots stored in one transaction


@dataclass(frozen=True, slots=True)
class TierRow:
    """The time to the first token where memory comes from one tier.

    Attributes:
        tier: One of :data:`TIERS`.
        ttft_ms_p50: Median milliseconds from the question to the first token, search included.
        load_ms_p50: Those of reading the records and bringing them to their positions.
    """

    tier: str
    ttft_ms_p50: float
    load_ms_p50: float


@dataclass(frozen=True, slots=True)
class ExchangeRow:
    """The speed of speaking with and without exchanges.

    Attributes:
        every: New tokens from one exchange to the next; None is no exchange.
        new_tokens: Of each answer.
        decode_tok_s: Median tokens a second after the first.
    """

    every: int | None
    new_tokens: int
    decode_tok_s: float


@dataclass(frozen=True, slots=True)
class SlotsRow:
    """The time to the first token among so many slots.

    Attributes:
        slots: How many the namespace holds.
        ttft_ms_p50: Median milliseconds from the question to the first token, search included.
        search_ms_p50: Those of the search, the encoder included.
    """

    slots: int
    ttft_ms_p50: float
    search_ms_p50: float


@dataclass(frozen=True, slots=True)
class CitationsRow:
    """Whether the source most looked at is the one that holds the answer, the right answer being said.

    Attributes:
        read: How memory is read.
        n: Questions whose passage was read.
        top_is_gold: Share of them where the first citation is of that passage.
        first_hit_is_gold: Share of them where the first hit of the search is.
        erasing_top_costs_most: Share of them where the answer becomes less likely without the first
            citation's source than without any other.
    """

    read: str
    n: int
    top_is_gold: float
    first_hit_is_gold: float
    erasing_top_costs_most: float


def run(
    data: Path,
    *,
    lm: LanguageModel,
    refs: int = 5,
    n: int = 10,
    new_tokens: int = 128,
    slots: Sequence[int] = SLOTS,
    seed: int = 0,
    progress: bool | None = None,
) -> dict[str, Any]:
    """Ask questions of a SQuAD file of banks in use.

    Args:
        data: The file.
        lm: The model.
        refs: References a question.
        n: Questions, drawn from those about the first :data:`PASSAGES` passages.
        new_tokens: Of the answers whose speed is taken.
        slots: Among how many slots to search; beside those of the passages, they are made up.
        seed: Of the draw, and of what is made up.
        progress: Whether to show bars; None shows them where there is a terminal.

    Returns:
        What ``--json`` writes: the settings, and rows of ``tiers``, ``exchange``, ``slots`` and ``citations``.

    Raises:
        InvalidInputError: The file is not in SQuAD's format, n, refs or new_tokens is too small, or there
            are fewer slots than passages asked about.
    """
    if n < 1 or refs < 1 or new_tokens < 2:
        raise InvalidInputError(
            f"n and refs must be at least 1 and new_tokens at least 2, got {n}, {refs} and {new_tokens}"
        )
    corpus = load_squad(data)
    passages = corpus.passages[:PASSAGES]
    about = [question for question in corpus.questions if max(question.passages) < len(passages)]
    questions = random.Random(seed).sample(about, min(n, len(about)))  # noqa: S311 - a draw, no secret
    encoder = as_encoder(None)
    with tempfile.TemporaryDirectory(prefix="trimem-bench-") as folder:
        with ExplicitBank.open(Path(folder) / "bank", model=lm, encoder=encoder) as bank:
            keys = [str(index) for index in range(len(passages))]
            bank.remember(passages, namespace=NAMESPACE, ids=keys, compile=False, progress=progress)
            asked = [(question, search(bank, question, refs, NAMESPACE).hits) for question in questions]
            bank.compile([hit for _, hits in asked for hit in hits], progress=progress)
            exchanged = _exchange(bank, questions, refs, new_tokens, progress)
            cited = [_citations(bank, asked, name, progress) for name in _readable(lm)]
        tiers = _tiers(Path(folder), lm, encoder, asked, refs, progress)
        among = [
            _among(Path(folder) / f"bank{count}", lm, encoder, asked[:5], count, corpus, refs, seed, progress)
            for count in slots
        ]
    return {
        "benchmark": "serving",
        "data": data.name,
        "model": lm.name,
        "refs": refs,
        "n": len(questions),
        "seed": seed,
        "tiers": [asdict(row) for row in tiers],
        "exchange": [asdict(row) for row in exchanged],
        "slots": [asdict(row) for row in among],
        "citations": [asdict(row) for row in cited],
        "environment": environment(),
    }


def _tiers(
    folder: Path,
    lm: LanguageModel,
    encoder: Encoder,
    asked: Sequence[tuple[Question, Sequence[Hit]]],
    refs: int,
    progress: bool | None,
) -> list[TierRow]:
    """Ask each question of banks that hold its references alone, from each tier in turn."""
    answers: dict[str, list[Answer]] = {tier: [] for tier in TIERS}

    def ask(bank: ExplicitBank, question: Question, cold: Literal["compile", "text"] = "compile") -> Answer:
        bank.recall("warm up", 1, namespace=NAMESPACE)
        return bank.ask(question.text, namespace=NAMESPACE, k=refs, max_new_tokens=1, cold=cold)

    with track("reading from each tier", len(asked), progress) as advance:
        for i, (question, hits) in enumerate(asked):
            texts = [hit.text for hit in hits]
            cold: Literal["compile", "text"]
            for cold in ("compile", "text"):
                with ExplicitBank.open(folder / f"{i}{cold}", model=lm, encoder=encoder) as bank:
                    bank.remember(texts, namespace=NAMESPACE, compile=False, progress=False)
                    assert bank.compiler.prefix.tokens  # is made once, at a bank's first use
                    answers[cold].append(ask(bank, question, cold))
            with ExplicitBank.open(folder / f"{i}compile", model=lm, encoder=encoder) as bank:
                assert bank.compiler.prefix.tokens
                _drop_from_system_cache(bank.folder)
                answers["disk"].append(ask(bank, question))
                answers["warm"].append(ask(bank, question))
            advance(1)
    return [
        TierRow(
            tier,
            1000 * statistics.median(answer.timings.first_token for answer in given),
            1000 * statistics.median(answer.timings.load for answer in given),
        )
        for tier, given in answers.items()
    ]


def _drop_from_system_cache(folder: Path) -> None:
    """Ask the system to forget what it has read of tensor files, where it can."""
    if not hasattr(os, "posix_fadvise"):
        return
    for file in folder.rglob("*.safetensors"):
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _exchange(
    bank: ExplicitBank, questions: Sequence[Question], refs: int, new_tokens: int, progress: bool | None
) -> list[ExchangeRow]:
    """Answer at length with and without exchanges, in turn."""
    speeds: dict[int | None, list[float]] = {None: [], EXCHANGE: []}
    with track("exchanging memories", 2 * len(questions), progress) as advance:
        for question in questions:
            for every, taken in speeds.items():
                answer = bank.ask(
                    question.text,
                    namespace=NAMESPACE,
                    k=refs,
                    max_new_tokens=new_tokens,
                    min_new_tokens=new_tokens,
                    read=ReadConfig(exchange=every),
                )
                taken.append(answer.tokens_per_second)
                advance(1)
    return [ExchangeRow(every, new_tokens, statistics.median(taken)) for every, taken in speeds.items()]


def _among(
    folder: Path,
    lm: LanguageModel,
    encoder: Encoder,
    asked: Sequence[tuple[Question, Sequence[Hit]]],
    count: int,
    corpus: Corpus,
    refs: int,
    seed: int,
    progress: bool | None,
) -> SlotsRow:
    """Ask questions of a bank that holds their references and, up to ``count`` slots, made-up ones."""
    with ExplicitBank.open(folder, model=lm, encoder=encoder) as bank:
        texts = list(dict.fromkeys(hit.text for _, hits in asked for hit in hits))[:count]
        bank.remember(texts, namespace=NAMESPACE, progress=False)
        store = MetadataStore(bank.folder / "bank.sqlite")
        try:
            _make_up(store, count - bank.stats().slots, encoder, corpus, seed, progress)
        finally:
            store.close()
        bank.recall("warm up", 1, namespace=NAMESPACE)  # reads the vectors
        answers: list[Answer] = []
        for _ in range(2):  # what made-up slots are found is compiled at the first time
            answers = [bank.ask(each.text, namespace=NAMESPACE, k=refs, max_new_tokens=1) for each, _ in asked]
        return SlotsRow(
            bank.stats().slots,
            1000 * statistics.median(answer.timings.first_token for answer in answers),
            1000 * statistics.median(answer.timings.search for answer in answers),
        )


def _make_up(
    store: MetadataStore, count: int, encoder: Encoder, corpus: Corpus, seed: int, progress: bool | None
) -> None:
    """Store slots of sentences drawn from a corpus, with vectors drawn at random."""
    said = [sentence for passage in corpus.passages for sentence in passage.split(". ")]
    draw, drawn = random.Random(seed), np.random.default_rng(seed)  # noqa: S311 - a draw, no secret
    dim = len(encoder.encode_query("dimensions"))
    with track("making slots up", max(count, 0), progress) as advance:
        for first in range(0, count, _GROUP):
            size = min(_GROUP, count - first)
            vectors = drawn.standard_normal((size, dim), dtype=np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            group = []
            for i, vector in enumerate(vectors, start=first):
                text = ". ".join(draw.choices(said, k=3))
                slot = NewSlot(f"{i:032x}", text, 0, len(text), 1, len(text) // 4, vector, None)
                group.append((Document(f"made up {i}", text, {}), [slot]))
            store.put((NAMESPACE,), group)
            advance(size)


def _readable(lm: LanguageModel) -> list[str]:
    """Return the names of the ways to read that the model has the calibration for."""
    try:
        calibration_of(lm)
    except CalibrationNotFoundError:
        return [name for name, read in READ_CONFIGS.items() if read.heads == "all"]
    return list(READ_CONFIGS)


def _citations(
    bank: ExplicitBank, asked: Sequence[tuple[Question, Sequence[Hit]]], name: str, progress: bool | None
) -> CitationsRow:
    """Let the model say the right answers, and see where it looked."""
    system = ExplicitMemory(bank, name, READ_CONFIGS[name])
    gold: list[bool] = []
    first: list[bool] = []
    costs_most: list[bool] = []
    with track(f"citing, {name}", len(asked), progress) as advance:
        for question, hits in asked:
            trial = search(bank, question, len(hits), NAMESPACE)
            if len(trial.hits) > 1 and found(trial):
                top = _cited(system, question, trial.hits)[0].hit
                gold.append(_holds(top, question))
                first.append(_holds(trial.hits[0], question))

                def without(hit: Hit, question: Question = question, hits: Sequence[Hit] = trial.hits) -> float:
                    rest = [each for each in hits if each.id != hit.id]
                    return system.answer_nll(question.text, rest, question.answers[0], lead=LEAD)

                costs_most.append(max(trial.hits, key=without).id == top.id)
            advance(1)
    share: Callable[[Sequence[bool]], float] = lambda each: statistics.mean(each) if each else 0.0  # noqa: E731
    return CitationsRow(name, len(gold), share(gold), share(first), share(costs_most))


def _holds(hit: Hit, question: Question) -> bool:
    """Tell whether a hit is of the right passage and says an answer."""
    return hit.slot.document == str(question.passages[0]) and any(answer in hit.text for answer in question.answers)


@torch.no_grad()
def _cited(system: ExplicitMemory, question: Question, hits: Sequence[Hit]) -> tuple[Citation, ...]:
    """Return the citations of the right answer, said token by token."""
    lm = system.bank.model
    with system.prepare(question.text, hits) as setting:
        assert setting.reading is not None  # memory is attached
        said = [*setting.prompt, *lm.tokenize(LEAD)]
        answer = lm.tokenize(f" {question.answers[0]}")
        cache = None
        for step in (said, *([token] for token in answer[:-1])):
            ids = torch.tensor([step], device=lm.device)
            seen = 0 if cache is None else cache.get_seq_length()
            mask = torch.ones(1, seen + len(step), dtype=torch.long, device=lm.device)
            cache = lm.model(ids, attention_mask=mask, past_key_values=cache, use_cache=True).past_key_values
    return citations(lm, setting.reading.passages, len(answer))


def plot_serving(result: Mapping[str, Any], path: Path) -> None:
    """Draw times to the first token by tier and by slots, and the speed with exchanges.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    drawn = (
        ("time to first token (ms, median)", [(row["tier"], row["ttft_ms_p50"]) for row in result["tiers"]]),
        (
            "time to first token by slots (ms, median)",
            [(f"{row['slots']:,}", row["ttft_ms_p50"]) for row in result["slots"]],
        ),
        (
            "tokens a second by exchange",
            [(f"each {row['every']}" if row["every"] else "none", row["decode_tok_s"]) for row in result["exchange"]],
        ),
    )
    figure = new_figure(12, 2.6)
    for axes, (title, bars) in zip(figure.subplots(1, len(drawn)), drawn, strict=True):
        labels, values = zip(*bars, strict=True)
        axes.bar_label(axes.barh(labels, values, color="#2a7f62"), fmt="{:,.4g}", padding=2, fontsize=8)
        axes.invert_yaxis()
        axes.set_title(title, fontsize=10)
        axes.margins(x=0.2)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{result['model']}, {result['data']}, {result['refs']} references, n = {result['n']}", fontsize=10)
    figure.savefig(path, dpi=150)
