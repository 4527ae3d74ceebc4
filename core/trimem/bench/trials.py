"""One question put to one system: what search found, what the system says of it, how likely the answer is."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from trimem.bench.corpus import Question
from trimem.bench.squad import exact_match, f1
from trimem.bench.systems import Spoken, System
from trimem.explicit.bank import ExplicitBank
from trimem.types import Hit, Namespace

NAMESPACE = "bench"
LEAD = "The answer is"
MAX_NEW_TOKENS = 24


@dataclass(frozen=True, slots=True)
class Trial:
    """A question with what is read for it.

    Attributes:
        question: The question.
        hits: Best first.
        search_seconds: How long it took to find them.
    """

    question: Question
    hits: Sequence[Hit]
    search_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a question.

    Attributes:
        said: The answer, and what it took from the given hits on.
        nll: Mean negative log-likelihood of the reference answer's tokens, in nats.
        f1: SQuAD's, of the first line of what was said.
        em: SQuAD's exact match, likewise.
        first_token: Seconds from the question to the first token, search included.
    """

    said: Spoken
    nll: float
    f1: float
    em: float
    first_token: float


def remember(bank: ExplicitBank, passages: Sequence[str], *, progress: bool | None = None) -> None:
    """Store the passages of a corpus under their indices, for what is found to be compiled later."""
    keys = [str(index) for index in range(len(passages))]
    bank.remember(passages, namespace=NAMESPACE, ids=keys, compile=False, progress=progress)
    bank.recall("warm up", 1, namespace=NAMESPACE)


def search(bank: ExplicitBank, question: Question, refs: int, namespace: str | Namespace = NAMESPACE) -> Trial:
    """Find ``refs`` references for a question."""
    started = time.perf_counter()
    hits = bank.recall(question.text, refs, namespace=namespace)
    return Trial(question, hits, time.perf_counter() - started)


def found(trial: Trial) -> bool:
    """Tell whether a reference of each passage that is needed is read, an answer in one if it stands in any."""
    needed = {str(passage) for passage in trial.question.passages}
    among = [hit for hit in trial.hits if hit.slot.document in needed]
    said = any(answer in hit.text for hit in among for answer in trial.question.answers)
    return (said or not trial.question.literal) and {hit.slot.document for hit in among} == needed


def warm_up(system: System, trial: Trial) -> None:
    """Let a system speak once before times are taken."""
    system.ask("warm up", trial.hits, "warm up", max_new_tokens=2, lead=LEAD)


def ask(system: System, trial: Trial, new_tokens: int = MAX_NEW_TOKENS) -> Outcome:
    """Let a system answer in at most ``new_tokens``, and see how likely the right answer was to it."""
    question, answers = trial.question.text, trial.question.answers
    said, nll = system.ask(question, trial.hits, answers[0], max_new_tokens=new_tokens, lead=LEAD)
    line = said.text.split("\n")[0].rstrip(".")
    searched = trial.search_seconds if system.searches else 0.0
    return Outcome(
        said, nll, f1=f1(line, answers), em=exact_match(line, answers), first_token=searched + said.first_token
    )
