"""``trimem bench follow-ups``: questions that are understood only from those before them.

64 of them about the handbook of the demo, each with what was said before: a pronoun for what was spoken of
last, a question cut short ("And the Curlew?"), one that goes back two questions, and one that has nothing to
do with what was said. The page and the words of the answer are known, so a slot either holds it or does not.
"""

from __future__ import annotations

import json
import math
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trimem.banks.folder import DATABASE
from trimem.bench.environment import environment
from trimem.bench.systems import LocalSystem, Setting
from trimem.bench.trials import LEAD
from trimem.explicit.bank import ExplicitBank
from trimem.lm.model import LanguageModel
from trimem.progress import track
from trimem.store.metadata import MetadataStore
from trimem.store.search import HybridSearch
from trimem.text import following
from trimem.text.encoders import Encoder, as_encoder
from trimem.types import Hit, Message

NAMESPACE = ("follow-ups",)
KINDS = ("pronoun", "ellipsis", "chain", "switch")
RANKED = 10
"""How many slots are looked at; the reciprocal rank of a right one further down counts as 0."""

Vector = NDArray[np.float32]
Encode = Callable[[str], Vector]
Query = Callable[[str, Sequence[Message], Encode], tuple[str, Vector]]
"""From question and history to the words and the vector to search for."""


@dataclass(frozen=True, slots=True)
class FollowUp:
    """A question with what was said before.

    Attributes:
        kind: One of :data:`KINDS`.
        page: Of the handbook, where the answer stands.
        history: What was said before.
        question: The question.
        answer: As it stands on the page.
    """

    kind: str
    page: str
    history: list[Message]
    question: str
    answer: str


def follow_ups() -> list[FollowUp]:
    """Return the questions."""
    text = (resources.files("trimem.bench") / "follow_ups.json").read_text(encoding="utf-8")
    return [FollowUp(**one) for one in json.loads(text)]


def _pages() -> dict[str, str]:
    """Return the pages of the demo's handbook by their names."""
    files = (resources.files("trimem") / "demo" / "handbook").iterdir()
    return {file.name: file.read_text(encoding="utf-8") for file in files if file.name.endswith(".md")}


def _said(history: Sequence[Message]) -> str:
    return " ".join(message["content"] for message in history[-2 * following.QUESTIONS :])


def _unit(vector: Vector) -> Vector:
    unit: Vector = vector / np.linalg.norm(vector)
    return unit


QUERIES: dict[str, Query] = {
    "question": lambda question, _, encode: (question, encode(question)),
    "followed": lambda question, history, encode: (following.words(question, history), encode(question)),
    "words_and_answers": lambda question, history, encode: (f"{_said(history)} {question}", encode(question)),
    "meaning": lambda question, history, encode: (question, encode(f"{_said(history)} {question}")),
    "mean": lambda question, history, encode: (question, _unit(encode(question) + encode(_said(history)))),
    "concatenated": lambda question, history, encode: (
        following.words(question, history),
        encode(following.words(question, history)),
    ),
}
"""Ways to search: ``followed`` is what ``recall`` does; "words and answers" adds what was answered, the next
two put what was said into the vector and not into the words, the last puts the questions into both."""


def run(*, lm: LanguageModel, refs: int = 3, progress: bool | None = None) -> dict[str, Any]:
    """Search for the answers in every way, and read what was found with and without history.

    Args:
        lm: The model.
        refs: References that are read.
        progress: Whether to show bars; None shows them where there is a terminal.

    Returns:
        What ``--json`` writes: a row for each way to search, with answers as they are and with answers that
        quote all that was read for them; and under ``reading`` how likely the right answer is.
    """
    asked, pages, encoder = follow_ups(), _pages(), as_encoder(None)
    with (
        tempfile.TemporaryDirectory(prefix="trimem-bench-") as folder,
        ExplicitBank.open(folder, model=lm, encoder=encoder) as bank,
    ):
        bank.remember(list(pages.values()), namespace=NAMESPACE, ids=list(pages), compile=False, progress=progress)
        wordy = [_wordy(bank, one) for one in asked]
        store = MetadataStore(Path(folder) / DATABASE)
        try:
            rows = [
                _row(store, encoder, name, answers, questions)
                for answers, questions in (("short", asked), ("long", wordy))
                for name in QUERIES
            ]
        finally:
            store.close()
        reading = _read(bank, asked, refs, progress)
    return {
        "benchmark": "follow_ups",
        "model": lm.name,
        "n": len(asked),
        "refs": refs,
        "rows": rows,
        "reading": reading,
        "environment": environment(),
    }


def _wordy(bank: ExplicitBank, one: FollowUp) -> FollowUp:
    """Return a question whose earlier answers quote what a model would have read for them."""
    history: list[Message] = []
    for message in one.history:
        content = message["content"]
        if message["role"] == "assistant":
            best = bank.recall(f"{history[-1]['content']} {content}", 1, namespace=NAMESPACE)[0]
            content = f"{content} {best.text}"
        history.append({"role": message["role"], "content": content})
    return FollowUp(one.kind, one.page, history, one.question, one.answer)


def _row(
    store: MetadataStore, encoder: Encoder, name: str, answers: str, questions: Sequence[FollowUp]
) -> dict[str, Any]:
    search = HybridSearch(store.reader)
    ranks: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for one in questions:
        words, vector = QUERIES[name](one.question, one.history, encoder.encode_query)
        found = [hit.slot for hit in search(words, vector, RANKED, NAMESPACE, None)]
        holds = (i for i, slot in enumerate(found, 1) if slot.document == one.page and one.answer in slot.text)
        ranks[one.kind].append(next(holds, math.inf))
    every = [rank for many in ranks.values() for rank in many]
    return {
        "query": name,
        "answers": answers,
        **{f"hit_at_{k}": statistics.mean(rank <= k for rank in every) for k in (1, 3, 5)},
        "mrr": _mrr(every),
        **{f"mrr_{kind}": _mrr(many) for kind, many in ranks.items()},
    }


def _mrr(ranks: Sequence[float]) -> float:
    return statistics.mean(1 / rank for rank in ranks)


@dataclass(frozen=True, slots=True)
class _Followed(LocalSystem):
    """Explicit memory with what was said before in the prompt.

    Attributes:
        history: What was said before.
    """

    name: str = "followed"
    history: Sequence[Message] = ()

    @contextmanager
    def prepare(self, question: str, hits: Sequence[Hit]) -> Iterator[Setting]:
        with self.bank.attach(hits=hits) as reading:
            yield Setting(self.bank.compiler.question(question, self.history), reading)


def _read(
    bank: ExplicitBank, questions: Sequence[FollowUp], refs: int, progress: bool | None
) -> list[Mapping[str, Any]]:
    """Return mean answer NLL, in nats a token, with history in the search, in the prompt, in both or neither."""
    ways = {"none": (False, False), "search": (True, False), "prompt": (False, True), "both": (True, True)}
    nll: dict[str, list[float]] = {way: [] for way in ways}
    with track("asking", len(questions), progress) as advance:
        for one in questions:
            for way, (sought, told) in ways.items():
                hits = bank.recall(one.question, refs, namespace=NAMESPACE, history=one.history if sought else ())
                system = _Followed(bank, history=one.history if told else ())
                nll[way].append(system.answer_nll(one.question, hits, one.answer, lead=LEAD))
            advance(1)
    return [{"history_in": way, "answer_nll": statistics.mean(many)} for way, many in nll.items()]
