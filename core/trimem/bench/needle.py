"""One invented sentence somewhere in essays, as long and as deep as wanted (after Kamradt's needle in a haystack)."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from itertools import chain
from pathlib import Path

from semantic_text_splitter import TextSplitter

from trimem.bench.corpus import Corpus, Question
from trimem.errors import InvalidInputError
from trimem.text.readers import read_file

NOT_AN_ESSAY = "SOURCE.txt"
"""A file of this name beside the essays says where they are from."""

_NAMES = (
    *("Alder", "Amber", "Badger", "Beacon", "Birch", "Bramble", "Cedar", "Clover", "Copper", "Falcon", "Fern", "Flint"),
    *("Harbour", "Hazel", "Heron", "Ivory", "Juniper", "Larch", "Linden", "Marble", "Meadow", "Osprey", "Otter"),
    *("Pebble", "Quarry", "Raven", "Rowan", "Sable", "Thistle", "Walnut", "Willow", "Wren"),
)
_BUILDINGS = (
    *("Abbey", "Barn", "Chapel", "Cottage", "Court", "Depot", "Foundry", "Gallery", "Grange", "Hall", "House", "Lodge"),
    *("Manor", "Mill", "Observatory", "Pavilion", "Priory", "Station", "Tower", "Villa"),
)
_BORDER = re.compile(r"[.!?][\"')\]]*\s+")
_WRAP = re.compile(r"(?<=\S)\n(?=\S)")


def needle(
    folder: Path, *, tokens: int, depth: float, seed: int, length: Callable[[str], int], passage_tokens: int = 128
) -> Corpus:
    """Hide a sentence in essays and ask for it; the same arguments give the same corpus.

    The essays come in an order of the seed, as far as they are needed; so does the sentence, whose code
    stands nowhere else in them. It is put between two sentences.

    Args:
        folder: Essays, each a ``.txt`` file.
        tokens: How long all passages are together, to within one passage.
        depth: How much of the text stands before the sentence: 0 puts it first, 1 last.
        seed: Of the order of the essays, the name and the code.
        length: Tells how many tokens a stretch of text takes.
        passage_tokens: Most tokens of a passage.

    Raises:
        InvalidInputError: A number is out of its range, or the essays are shorter than wanted.
        UnreadableFileError: An essay is not text.
    """
    if not 0 <= depth <= 1:
        raise InvalidInputError(f"depth must be from 0 to 1, got {depth}")
    draw = random.Random(seed)  # noqa: S311 - a draw, no secret
    essays = [_WRAP.sub(" ", read_file(file)) for file in sorted(folder.glob("*.txt")) if file.name != NOT_AN_ESSAY]
    draw.shuffle(essays)
    place = f"{draw.choice(_NAMES)} {draw.choice(_BUILDINGS)}"
    code = _unused_code(essays, draw)
    fact = f"The access code of {place} is {code}."
    room = passage_tokens - length(f" {fact} ")
    if room < 1 or tokens < passage_tokens:
        raise InvalidInputError(
            f"tokens must be at least passage_tokens, and those more than the sentence's {passage_tokens - room}, "
            f"got {tokens} and {passage_tokens}"
        )
    splitter = TextSplitter.from_callback(length, room)  # each passage has room for the sentence
    passages, starts = _haystack(essays, tokens - length(fact), splitter, length, folder)
    at = depth * starts[-1]
    index = next(i for i, stop in enumerate(starts[1:]) if at <= stop)
    share = (at - starts[index]) / (starts[index + 1] - starts[index])
    passages[index] = _insert(fact, passages[index], share)
    return Corpus(passages, [Question(f"What is the access code of {place}?", (code,), (index,))])


def _unused_code(essays: list[str], draw: random.Random) -> str:
    while True:
        code = str(draw.randrange(1000, 10_000))
        if not any(code in essay for essay in essays):
            return code


def _haystack(
    essays: list[str], tokens: int, splitter: TextSplitter, length: Callable[[str], int], folder: Path
) -> tuple[list[str], list[int]]:
    """Return passages of at most ``tokens`` together, and the tokens before each one and after the last."""
    passages: list[str] = []
    starts = [0]
    for passage in chain.from_iterable(map(splitter.chunks, essays)):
        after = starts[-1] + length(passage)
        if after > tokens:
            return passages, starts
        passages.append(passage)
        starts.append(after)
    raise InvalidInputError(
        f"the essays in {folder} are {starts[-1]} tokens long, and {tokens} are wanted beside the sentence: add some"
    )


def _insert(fact: str, passage: str, share: float) -> str:
    """Put ``fact`` between two sentences, as near as it gets to where ``share`` of the passage stands before it."""
    borders = [0, *(border.end() for border in _BORDER.finditer(passage)), len(passage)]
    at = min(borders, key=lambda border: abs(border - share * len(passage)))
    return f"{passage[:at].rstrip()} {fact} {passage[at:]}".strip()
