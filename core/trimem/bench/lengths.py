"""Time to the first token against how much is read."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from trimem.bench.systems import System
from trimem.bench.trials import Trial, ask

QUESTIONS = 5
"""How many questions each length is timed with."""


@dataclass(frozen=True, slots=True)
class LengthRow:
    """One system's time with so many references.

    Attributes:
        system: Which; text RAG by its two orders.
        refs: References a question.
        context_tokens: Mean tokens of those references.
        ttft_ms_p50: Median milliseconds from the question to the first token, search included.
    """

    system: str
    refs: int
    context_tokens: float
    ttft_ms_p50: float


def measure_lengths(
    compared: Sequence[System], by_refs: Mapping[int, Sequence[Trial]], advance: Callable[[int], None]
) -> list[LengthRow]:
    """Take the time to first token at several numbers of references.

    Args:
        compared: What is timed; what was found must be compiled.
        by_refs: Trials by the number of references that were searched for.
        advance: Called with 1 after each trial and system.
    """
    rows = []
    for refs, trials in by_refs.items():
        times: dict[str, list[float]] = {system.name: [] for system in compared}
        for trial in trials:
            for system in compared:
                times[system.name].append(ask(system, trial, 1).first_token)
                advance(1)
        tokens = statistics.mean(sum(hit.slot.tokens for hit in trial.hits) for trial in trials)
        rows += [LengthRow(name, refs, tokens, 1000 * statistics.median(taken)) for name, taken in times.items()]
    return rows
