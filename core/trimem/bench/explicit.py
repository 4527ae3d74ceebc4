"""``trimem bench explicit``: reading documents as memory against reading them as text."""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trimem.bench.environment import environment
from trimem.bench.squad import Question, exact_match, f1, load_squad
from trimem.bench.systems import System, answer_nll, speak, systems
from trimem.errors import InvalidInputError
from trimem.explicit.bank import ExplicitBank
from trimem.lm.model import LanguageModel
from trimem.progress import track
from trimem.types import Hit

NAMESPACE = "bench"
LEAD = "The answer is"
MAX_NEW_TOKENS = 24


@dataclass(frozen=True, slots=True)
class Row:
    """One system's result.

    Attributes:
        system: Which.
        answer_nll: Mean negative log-likelihood of the reference answer's tokens, in nats, averaged
            over questions.
        f1: SQuAD's, of what was said greedily.
        em: SQuAD's exact match.
        ttft_ms_p50: Median milliseconds from the question to the first token, search included.
        prefill_tokens: Mean tokens through the model before the first new one.
        decode_tok_s: Median tokens a second after the first.
        bytes_per_ref: Bytes on the disk for one reference: its share of the database with the
            indexes, and its tensors.
        gap_closed: (nll of closed_book - nll) / (nll of closed_book - nll of text_rag).
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


@dataclass(frozen=True, slots=True)
class _Trial:
    question: Question
    hits: list[Hit]
    search_seconds: float


def run(
    data: Path,
    *,
    lm: LanguageModel,
    refs: int = 5,
    n: int = 50,
    seed: int = 0,
    bank_folder: Path | None = None,
    progress: bool | None = None,
) -> dict[str, Any]:
    """Compare the systems on questions about a SQuAD file.

    All paragraphs of the file are searched for every question; what is found is what every system
    reads. Only references that are found are compiled, before any time is taken.

    Args:
        data: The file.
        lm: The model.
        refs: References a question.
        n: Questions, drawn at random; fewer if the file has fewer.
        seed: Of the draw.
        bank_folder: Where to keep the bank; None throws it away.
        progress: Whether to show bars; None shows them where there is a terminal.

    Returns:
        What ``--json`` writes: the settings, ``recall_at_k`` and a row a system.
    """
    if refs < 1 or n < 1:
        raise InvalidInputError(f"refs and n must be at least 1, got {refs} and {n}")
    paragraphs, questions = load_squad(data)
    drawn = random.Random(seed).sample(questions, min(n, len(questions)))  # noqa: S311 - a draw, no secret
    with ExitStack() as stack:
        folder = bank_folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="trimem-bench-")))
        bank = stack.enter_context(ExplicitBank.open(folder, model=lm))
        keys = [str(i) for i in range(len(paragraphs))]
        bank.remember(paragraphs, namespace=NAMESPACE, ids=keys, compile=False, progress=progress)
        bank.recall("warm up", 1, namespace=NAMESPACE)
        trials = [_search(bank, question, refs) for question in drawn]
        bank.compile([hit for trial in trials for hit in trial.hits], progress=progress)
        rows = _measure(bank, trials, progress)
    return {
        "benchmark": "explicit",
        "data": data.name,
        "model": lm.name,
        "refs": refs,
        "n": len(trials),
        "seed": seed,
        "paragraphs": len(paragraphs),
        "recall_at_k": statistics.mean(_found(trial) for trial in trials),
        "rows": [asdict(row) for row in rows],
        "environment": environment(),
    }


def _search(bank: ExplicitBank, question: Question, refs: int) -> _Trial:
    started = time.perf_counter()
    hits = bank.recall(question.text, refs, namespace=NAMESPACE)
    return _Trial(question, hits, time.perf_counter() - started)


def _found(trial: _Trial) -> bool:
    """Tell whether a reference of the right paragraph that holds an answer was found."""
    return any(
        hit.slot.document == str(trial.question.paragraph) and answer in hit.text
        for hit in trial.hits
        for answer in trial.question.answers
    )


def _measure(bank: ExplicitBank, trials: list[_Trial], progress: bool | None) -> list[Row]:
    compared = systems(bank)
    measured: dict[str, list[dict[str, float]]] = {system.name: [] for system in compared}
    speak(bank, compared[-1], "warm up", trials[0].hits, max_new_tokens=2)
    with track("asking", len(trials) * len(compared), progress) as advance:
        for trial in trials:
            for system in compared:
                measured[system.name].append(_ask(bank, system, trial))
                advance(1)
    nll = {name: statistics.mean(one["nll"] for one in many) for name, many in measured.items()}
    gap = nll["closed_book"] - nll["text_rag"]
    size = _bytes_per_ref(bank)
    return [
        Row(
            system=name,
            answer_nll=nll[name],
            f1=statistics.mean(one["f1"] for one in many),
            em=statistics.mean(one["em"] for one in many),
            ttft_ms_p50=1000 * statistics.median(one["first_token"] for one in many),
            prefill_tokens=statistics.mean(one["prefill"] for one in many),
            decode_tok_s=statistics.median(one["speed"] for one in many),
            bytes_per_ref=size[name],
            gap_closed=(nll["closed_book"] - nll[name]) / gap,
        )
        for name, many in measured.items()
    ]


def _ask(bank: ExplicitBank, system: System, trial: _Trial) -> dict[str, float]:
    question, hits = trial.question, trial.hits
    said = speak(bank, system, question.text, hits, max_new_tokens=MAX_NEW_TOKENS, lead=LEAD)
    line = said.text.split("\n")[0].rstrip(".")
    searched = 0.0 if system.name == "closed_book" else trial.search_seconds
    return {
        "nll": answer_nll(bank, system, question.text, hits, question.answers[0], lead=LEAD),
        "f1": f1(line, question.answers),
        "em": exact_match(line, question.answers),
        "first_token": searched + said.first_token,
        "prefill": said.prefill_tokens,
        "speed": said.tokens_per_second,
    }


def _bytes_per_ref(bank: ExplicitBank) -> dict[str, float]:
    stats = bank.stats()
    rows = stats.database_bytes / stats.slots
    return {
        "closed_book": 0.0,
        "text_rag": rows,
        "explicit_dense": rows + stats.tensor_bytes / stats.compiled,
    }
