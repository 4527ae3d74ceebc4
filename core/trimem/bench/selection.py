"""``trimem bench selection``: by which rule a KV head should choose the tokens it keeps."""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from trimem.bench.environment import environment
from trimem.bench.squad import load_squad
from trimem.bench.systems import ClosedBook, ExplicitMemory, LocalSystem, Setting
from trimem.bench.trials import LEAD, Trial, remember, search
from trimem.errors import InvalidInputError
from trimem.explicit.bank import ExplicitBank
from trimem.explicit.compiler import BATCH_TOKENS, Compiler
from trimem.explicit.record import Record
from trimem.explicit.select import NAMES
from trimem.explicit.write import batches
from trimem.lm.attach import attach
from trimem.lm.model import LanguageModel
from trimem.progress import track
from trimem.types import Hit, SlotId

TOKENS = (8, 16, 32, 64, 128)


@dataclass(frozen=True, slots=True)
class Row:
    """One rule at one number of tokens.

    Attributes:
        rule: By which the tokens of a head are ranked.
        tokens: Most tokens a head reads of each reference.
        answer_nll: Mean negative log-likelihood of the reference answer's tokens, in nats, averaged
            over questions.
        gap_closed: (nll of closed book - nll) / (nll of closed book - nll of all tokens).
        ms_per_ref: Milliseconds to compile a reference, the forward pass included.
    """

    rule: str
    tokens: int
    answer_nll: float
    gap_closed: float
    ms_per_ref: float


@dataclass(frozen=True, slots=True)
class _Selected(LocalSystem):
    """A system that reads records of its own."""

    compiler: Compiler
    records: dict[SlotId, Record]
    tokens: int

    @contextmanager
    def prepare(self, question: str, hits: Sequence[Hit]) -> Iterator[Setting]:
        placement = self.compiler.place([self.records[hit.id].first(self.tokens) for hit in hits])
        with attach(self.compiler.lm, placement.memory):
            yield Setting(self.compiler.question(question))


def run(
    data: Path,
    *,
    lm: LanguageModel,
    refs: int = 5,
    n: int = 40,
    seed: int = 0,
    progress: bool | None = None,
) -> dict[str, Any]:
    """Compare all rules of :mod:`trimem.explicit.select` on questions about a SQuAD file.

    Args:
        data: The file.
        lm: The model.
        refs: References a question, found by search.
        n: Questions, drawn at random; fewer if the file has fewer.
        seed: Of the draw.
        progress: Whether to show bars; None shows them where there is a terminal.

    Returns:
        What ``--json`` writes: the settings, ``nll_closed`` and ``nll_dense``, ``ms_per_ref_plain`` (a forward
        pass of the same tokens in the same batches, and nothing else), and a row a rule and number.
    """
    if min(refs, n) < 1:
        raise InvalidInputError(f"refs and n must be at least 1, got {refs} and {n}")
    corpus = load_squad(data)
    drawn = random.Random(seed).sample(corpus.questions, min(n, len(corpus.questions)))  # noqa: S311 - a draw
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="trimem-bench-")))
        bank = stack.enter_context(ExplicitBank.open(folder, model=lm))
        remember(bank, corpus.passages, progress=progress)
        trials = [search(bank, question, refs) for question in drawn]
        bank.compile([hit for trial in trials for hit in trial.hits], progress=progress)
        closed, dense = (_nll(system, trials) for system in (ClosedBook(bank), ExplicitMemory(bank)))
        rows = []
        plain = _plain_forward(bank.compiler, trials)
        with track("selecting", len(NAMES) * (1 + len(TOKENS)), progress) as advance:
            for rule in NAMES:
                compiler = Compiler(lm, replace(bank.config, selection=rule))
                records, seconds = _compile(compiler, trials)
                advance(1)
                for tokens in TOKENS:
                    nll = _nll(_Selected(bank, rule, compiler, records, tokens), trials)
                    rows.append(Row(rule, tokens, nll, (closed - nll) / (closed - dense), 1000 * seconds))
                    advance(1)
    return {
        "benchmark": "selection",
        "data": data.name,
        "model": lm.name,
        "refs": refs,
        "n": len(trials),
        "seed": seed,
        "nll_closed": closed,
        "nll_dense": dense,
        "ms_per_ref_plain": 1000 * plain,
        "rows": [asdict(row) for row in rows],
        "environment": environment(),
    }


def table(result: dict[str, Any]) -> dict[str, dict[int, float]]:
    """Return the likelihoods by rule and tokens."""
    by_rule: dict[str, dict[int, float]] = defaultdict(dict)
    for row in result["rows"]:
        by_rule[row["rule"]][row["tokens"]] = row["answer_nll"]
    return dict(by_rule)


def _compile(compiler: Compiler, trials: Sequence[Trial]) -> tuple[dict[SlotId, Record], float]:
    """Return the records of all hits, and the seconds that each took."""
    texts = {hit.id: hit.text for trial in trials for hit in trial.hits}
    slots = list(texts)
    started = time.perf_counter()
    records = {
        slots[i]: record
        for batch in compiler.compile([[text] for text in texts.values()])
        for i, record in batch.items()
    }
    return records, (time.perf_counter() - started) / len(texts)


@torch.no_grad()
def _plain_forward(compiler: Compiler, trials: Sequence[Trial]) -> float:
    """Return the seconds a reference that a forward pass of the decoder takes by itself."""
    references = [compiler.reference(text) for text in {hit.id: hit.text for t in trials for hit in t.hits}.values()]
    lm = compiler.lm
    started = time.perf_counter()
    for batch in batches([len(ids) for ids in references], BATCH_TOKENS):
        width = max(len(references[i]) for i in batch)
        ids = torch.tensor([[*references[i], *[0] * (width - len(references[i]))] for i in batch], device=lm.device)
        lm.model.base_model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    return (time.perf_counter() - started) / len(references)


def _nll(system: LocalSystem, trials: Sequence[Trial]) -> float:
    return statistics.mean(
        system.answer_nll(trial.question.text, trial.hits, trial.question.answers[0], lead=LEAD) for trial in trials
    )
