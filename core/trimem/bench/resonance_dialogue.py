"""Questions about what was said, asked with names misheard, in LoCoMo's dialogues."""

from __future__ import annotations

import random
import re
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from trimem.bench.locomo import Dialogue, load_dialogues
from trimem.bench.mishearing import Mishearing
from trimem.bench.recall import PlainSearch
from trimem.bench.sounds import stretches_by_rarity, trigrams_of, words_of
from trimem.errors import InvalidInputError
from trimem.progress import track
from trimem.resonance.bank import By, ResonanceBank
from trimem.resonance.config import ResonanceConfig
from trimem.resonance.lexicon import Lexicon
from trimem.resonance.units import split_units, spoken_form
from trimem.store.metadata import MetadataStore
from trimem.store.words import FUNCTION_WORDS
from trimem.text.encoders import as_encoder

KINDS = ("quotation", "who_said", "question")
"""Six words of a turn with a name among them; "Who talked about" a rare name; LoCoMo's own questions with names."""

RANKED = 5

_NAME = re.compile(r"[A-Z][a-z]{2,}")
_QUOTED = 6  # words of a quotation
_RARE = 3  # most turns that a name stands in which is asked for by itself

Search = Callable[[str, str], Sequence[int]]
"""From a query and a namespace to turns, best first."""


@dataclass(frozen=True, slots=True)
class DialogueRow:
    """How one system fares with one kind of question.

    Attributes:
        question: Which of :data:`KINDS`.
        names: ``"heard"`` or ``"misheard"``.
        system: Which.
        recall_at_1: Share of questions whose first turn is a right one.
        recall_at_5: Share with a right one among the first five.
        p50_ms: Median time of a question.
        n: Questions.
    """

    question: str
    names: str
    system: str
    recall_at_1: float
    recall_at_5: float
    p50_ms: float
    n: int


@dataclass(frozen=True, slots=True)
class Asked:
    """A question.

    Attributes:
        namespace: The dialogue it is about.
        text: With its names as they are.
        right: Turns that answer it.
    """

    namespace: str
    text: str
    right: frozenset[int]


def measure_dialogues(
    path: Path,
    lexicon: Lexicon,
    *,
    n: int = 100,
    seed: int = 0,
    config: ResonanceConfig | None = None,
    progress: bool | None = None,
) -> list[DialogueRow]:
    """Ask about the dialogues of a file in LoCoMo's format.

    Args:
        path: The file.
        lexicon: What a recogniser may write.
        n: Questions of each kind.
        seed: Of their draw and of what is misheard.
        config: Of the bank.
        progress: Whether to show bars.

    Raises:
        InvalidInputError: It is not in that format, or holds no question of one kind.
    """
    try:
        dialogues = load_dialogues(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInputError(f"{path} cannot be read as a LoCoMo file: {error!r}") from error
    asked = {kind: draw_questions(dialogues, kind, n, seed) for kind in KINDS}
    if missing := [kind for kind, questions in asked.items() if not questions]:
        raise InvalidInputError(f"{path} holds no {' and no '.join(missing)} with a name")
    mishear = Misheard(lexicon, seed)
    rows = []
    with ExitStack() as stack:
        searches = _searches(dialogues, lexicon, config, stack, progress)
        advance = stack.enter_context(track("asking", 2 * len(searches) * sum(map(len, asked.values())), progress))
        for kind, questions in asked.items():
            misheard = [mishear(question.text) for question in questions]
            for names, texts in (("heard", [question.text for question in questions]), ("misheard", misheard)):
                for system, search in searches.items():
                    rows.append(_row(kind, names, system, search, questions, texts, advance))
    return rows


def draw_questions(dialogues: Sequence[Dialogue], kind: str, n: int, seed: int) -> list[Asked]:
    """Return at most ``n`` questions of a kind, drawn at random."""
    found = {"quotation": _quotations, "who_said": _who_said, "question": _own}[kind]
    every = [
        Asked(str(number), text, frozenset(right))
        for number, dialogue in enumerate(dialogues)
        for text, right in found(dialogue)
    ]
    random.Random(f"{kind} {seed}").shuffle(every)  # noqa: S311 - a draw, no secret
    return every[:n]


class Misheard:
    """Writes each name of a question as another word that sounds nearly the same.

    Args:
        lexicon: Its words are what a recogniser may write.
        seed: Of its choices.
    """

    def __init__(self, lexicon: Lexicon, seed: int) -> None:
        spoken = [entry for entry in lexicon.entries if entry.phonemes]
        self._written = {entry.phonemes: entry.form for entry in reversed(spoken)}
        self._mishearing = Mishearing([entry.phonemes for entry in spoken], seed)
        self._random = random.Random(seed)  # noqa: S311
        self._lexicon = lexicon

    def __call__(self, question: str) -> str:
        units = split_units(question)
        for i, spoken in zip(names_of(units), self._lexicon.speak([units[i] for i in names_of(units)]), strict=True):
            if spoken:
                heard = self._written[self._random.choice(self._mishearing.alike(spoken))]
                units[i] = units[i].replace(units[i].strip(), heard)
        return "".join(units)


def names_of(units: Sequence[str]) -> list[int]:
    """Return which units are names, as far as capitals tell: not what begins a sentence."""
    return [
        i
        for i, unit in enumerate(units)
        if i
        and _NAME.fullmatch(unit.strip())
        and unit.strip().lower() not in FUNCTION_WORDS
        and not re.search(r"[.!?:\"\n]$", units[i - 1])
    ]


def _quotations(dialogue: Dialogue) -> list[tuple[str, set[int]]]:
    found = []
    for number, said in enumerate(dialogue.said):
        units = split_units(said.text)
        for name in names_of(units)[:1]:
            start = max(0, min(name - 2, len(units) - _QUOTED))
            stretch = units[start : start + _QUOTED]
            if len(stretch) == _QUOTED and name - start in names_of(stretch):
                found.append(("".join(stretch).strip(), {number}))
    return found


def _who_said(dialogue: Dialogue) -> list[tuple[str, set[int]]]:
    speakers = {said.speaker for said in dialogue.said}
    turns: dict[str, set[int]] = {}
    for number, said in enumerate(dialogue.said):
        units = split_units(said.text)
        for at in names_of(units):
            turns.setdefault(units[at].strip(), set()).add(number)
    # Where a name also stands at the beginning of a sentence, that turn is right, too.
    for number, said in enumerate(dialogue.said):
        for word in {unit.strip() for unit in split_units(said.text)} & turns.keys():
            turns[word].add(number)
    return [
        (f"Who talked about {name}?", right)
        for name, right in turns.items()
        if len(right) <= _RARE and name not in speakers
    ]


def _own(dialogue: Dialogue) -> list[tuple[str, set[int]]]:
    return [
        (asked.text, set(asked.evidence))
        for asked in dialogue.asked
        if asked.answer is not None and names_of(split_units(asked.text))
    ]


def _searches(
    dialogues: Sequence[Dialogue],
    lexicon: Lexicon,
    config: ResonanceConfig | None,
    stack: ExitStack,
    progress: bool | None,
) -> Mapping[str, Search]:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="trimem-bench-")))
    encoder = as_encoder(None)
    bank = stack.enter_context(ResonanceBank.open(folder, encoder=encoder, config=config))
    for number, dialogue in enumerate(dialogues):
        turns = [said.turn for said in dialogue.said]
        bank.remember(turns, namespace=str(number), ids=[str(i) for i in range(len(turns))], progress=progress)
    store = MetadataStore(folder / "bank.sqlite")
    stack.callback(store.close)
    plain = PlainSearch(store.reader, encoder)
    spoken = [
        [lexicon.speak([spoken_form(unit) for unit in split_units(said.turn.said)]) for said in dialogue.said]
        for dialogue in dialogues
    ]

    def by_sound(keys: Callable[..., set[object]]) -> Search:
        found = [stretches_by_rarity(turns, keys) for turns in spoken]
        return lambda query, namespace: found[int(namespace)](lexicon.speak(split_units(query)))[:RANKED]

    def rows(search: Callable[[str, tuple[str, ...]], list[int]], query: str, namespace: str) -> list[int]:
        documents = plain.documents(search(query, (namespace,))[: 2 * RANKED], (namespace,))
        return [int(key) for key in documents[:RANKED]]

    def recalled(by: By, query: str, namespace: str) -> list[int]:
        hits = bank.recall(query, RANKED, namespace=namespace, by=by)
        return [int(hit.slot.document) for hit in hits]

    return {
        "exact": by_sound(words_of),
        "trigrams": by_sound(trigrams_of),
        "bm25": partial(rows, plain.by_words),
        "minilm": partial(rows, plain.by_vectors),
        **{f"resonance {by}": partial(recalled, by) for by in ("meaning", "sound", "auto")},
    }


def _row(
    kind: str,
    names: str,
    system: str,
    search: Search,
    questions: Sequence[Asked],
    texts: Sequence[str],
    advance: Callable[[int], None],
) -> DialogueRow:
    search(texts[0], questions[0].namespace)
    hits: Counter[int] = Counter()
    seconds = []
    for question, text in zip(questions, texts, strict=True):
        started = time.perf_counter()
        found = search(text, question.namespace)
        seconds.append(time.perf_counter() - started)
        hits[1] += bool(question.right & set(found[:1]))
        hits[RANKED] += bool(question.right & set(found[:RANKED]))
        advance(1)
    n = len(questions)
    return DialogueRow(kind, names, system, hits[1] / n, hits[RANKED] / n, 1000 * statistics.median(seconds), n)
