"""How often a misheard phrase is found, and how fast, in texts of growing length."""

from __future__ import annotations

import random
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from trimem.bench import sounds
from trimem.bench.mishearing import Mishearing
from trimem.errors import InvalidInputError
from trimem.progress import track
from trimem.resonance.lexicon import Lexicon
from trimem.resonance.phonemes import Phonemes
from trimem.resonance.search import index_words
from trimem.resonance.units import split_units, spoken_form
from trimem.text.encoders import as_encoder

LENGTHS = (4, 8, 16)
SYSTEMS = ("resonance", "words", "trigrams", "rapidfuzz", "minilm")
_SLOW = {"rapidfuzz": 200_000, "minilm": 20_000}
"""The longest texts, in words, that a system is asked about: both read all of the text for each query or before."""


@dataclass(frozen=True, slots=True)
class SearchRow:
    """How one system fares with one kind of query.

    Attributes:
        words: Length of the text.
        query_words: Of a query.
        corruption: How queries are misheard.
        system: Which.
        recall_at_1: Share of queries whose place, up to a word, or one where the same is said, comes first.
        p50_ms: Median time of a query.
        p95_ms: Time that one query in twenty exceeds.
        z: Median z-score of the right place where it was found; resonance only.
        n: Queries.
    """

    words: int
    query_words: int
    corruption: str
    system: str
    recall_at_1: float
    p50_ms: float
    p95_ms: float
    z: float | None
    n: int


@dataclass(frozen=True, slots=True)
class Stream:
    """The words of a text that can be spoken.

    Attributes:
        texts: As written, lower case.
        words: As spoken.
        real: How many of them are the text's own; those after are made up.
    """

    texts: list[str]
    words: list[Phonemes]
    real: int


def read_stream(text: str, lexicon: Lexicon, words: int | None, seed: int) -> Stream:
    """Return the first words of a text, and made-up ones after them if it has too few.

    What is made up follows the pairs of words of the text itself, so that words are as common as they are.

    Raises:
        InvalidInputError: The text has fewer than 100 words that can be spoken.
    """
    forms = [spoken_form(unit) for unit in split_units(text)]
    spoken = dict(zip(distinct := list(dict.fromkeys(forms)), lexicon.speak(distinct), strict=True))
    texts = [form for form in forms if spoken[form]][:words]
    if len(texts) < 100:
        raise InvalidInputError(f"a text to search needs at least 100 words that can be spoken, got {len(texts)}")
    real = len(texts)
    if words is not None and words > real:
        texts += _made_up(texts, words - real, seed)
    return Stream(texts, [spoken[form] for form in texts], real)


def _made_up(texts: Sequence[str], words: int, seed: int) -> list[str]:
    draw = random.Random(seed)  # noqa: S311 - a draw, no secret
    after: dict[str, list[str]] = defaultdict(list)
    for first, second in pairwise(texts):
        after[first].append(second)
    made: list[str] = []
    word = texts[0]
    for _ in range(words):
        # One word in four comes from anywhere, or the text would repeat its own phrases.
        jump = draw.random() < 0.25 or word not in after
        word = draw.choice(texts) if jump else draw.choice(after[word])
        made.append(word)
    return made


def measure(
    text: str,
    lexicon: Lexicon,
    *,
    words: int | None = None,
    n: int = 100,
    seed: int = 0,
    lengths: Sequence[int] = LENGTHS,
    systems: Sequence[str] = SYSTEMS,
    device: str = "cpu",
    progress: bool | None = None,
) -> list[SearchRow]:
    """Search for misheard phrases of a text.

    Args:
        text: The text.
        lexicon: Of its language; its words are what a recogniser may write.
        words: Length to cut it to, or to bring it to with made-up words; None leaves it as it is.
        n: Queries of each kind.
        seed: Of places and errors.
        lengths: Words of a query.
        systems: Which of :data:`SYSTEMS`. rapidfuzz runs up to 200,000 words, MiniLM up to 20,000.
        device: Where resonance search runs.
        progress: Whether to show bars.

    Raises:
        InvalidInputError: A system is unknown, n is below 1, or the text is too short.
    """
    if unknown := [name for name in systems if name not in SYSTEMS]:
        raise InvalidInputError(f"systems are {', '.join(SYSTEMS)}; got {', '.join(unknown)}")
    if n < 1:
        raise InvalidInputError(f"n must be at least 1, got {n}")
    stream = read_stream(text, lexicon, words, seed)
    index, at = index_words(stream.words, device=device)
    assert len(at) == len(stream.words)  # the stream holds what can be spoken and nothing else
    scores: list[float] = []

    def resonance(query: Sequence[Phonemes]) -> int:
        best = index.search(query, k=1)[0]
        scores.append(best.z)
        return best.position

    rows: list[SearchRow] = []
    chosen = [name for name in systems if len(stream.words) <= _SLOW.get(name, len(stream.words))]
    steady: dict[str, sounds.Search] = {"resonance": resonance}
    if "words" in chosen:
        steady["words"] = sounds.by_words(stream.words)
    if "trigrams" in chosen:
        steady["trigrams"] = sounds.by_trigrams(stream.words)
    vocabulary = [entry.phonemes for entry in lexicon.entries if entry.phonemes]
    written = {entry.phonemes: entry.form for entry in reversed(lexicon.entries)}
    with track("searching", len(lengths) * n * 4 * len(chosen), progress) as advance:
        for length in lengths:
            mishearing = Mishearing(vocabulary + stream.words[: stream.real], seed + length)
            searches = dict(steady)
            if "rapidfuzz" in chosen:
                searches["rapidfuzz"] = sounds.by_edits(stream.words, length)
            if "minilm" in chosen:
                searches["minilm"] = sounds.by_meaning(
                    stream.texts, length, as_encoder(None), lambda word: written.get(word, "".join(word))
                )
            draw = random.Random(seed + length)  # noqa: S311
            places = [draw.randrange(stream.real - length) for _ in range(n)]
            for kind, mishear in mishearing.kinds.items():
                asked = [(place, mishear(stream.words[place : place + length])) for place in places]
                for name in chosen:
                    if name == "minilm" and kind not in {"exact", "other_words"}:
                        continue  # it reads words, and these queries are none
                    scores.clear()
                    right = {"minilm": _overlaps}.get(name, _same)
                    hits, seconds = _ask(searches[name], asked, stream, length, right, advance)
                    rows.append(_row(len(stream.words), length, kind, name, hits, seconds, scores))
    return rows


def _same(stream: Stream, found: int, place: int, length: int) -> bool:
    """Whether a place is the right one, up to a word, or says the same."""
    return abs(found - place) <= 1 or stream.words[found : found + length] == stream.words[place : place + length]


def _overlaps(stream: Stream, found: int, place: int, length: int) -> bool:
    return abs(found - place) <= length // 2 or _same(stream, found, place, length)


def _ask(
    search: sounds.Search,
    asked: Sequence[tuple[int, Sequence[Phonemes]]],
    stream: Stream,
    length: int,
    right: Callable[[Stream, int, int, int], bool],
    advance: Callable[[int], None],
) -> tuple[list[bool], list[float]]:
    search(asked[0][1])
    hits, seconds = [], []
    for place, query in asked:
        started = time.perf_counter()
        found = search(query)
        seconds.append(time.perf_counter() - started)
        hits.append(right(stream, found, place, length))
        advance(1)
    return hits, seconds


def _row(
    words: int,
    length: int,
    kind: str,
    system: str,
    hits: Sequence[bool],
    seconds: Sequence[float],
    scores: Sequence[float],
) -> SearchRow:
    found = [z for z, hit in zip(scores[1:], hits, strict=False) if hit]  # the first was the warm-up
    return SearchRow(
        words,
        length,
        kind,
        system,
        statistics.mean(hits),
        p50_ms=1000 * statistics.median(seconds),
        p95_ms=1000 * sorted(seconds)[int(0.95 * len(seconds))],
        z=statistics.median(found) if system == "resonance" and found else None,
        n=len(hits),
    )


def device_name() -> str:
    """Return where searches run by default: the GPU, where there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"
