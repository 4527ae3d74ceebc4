"""What is searched and what should be found: four formats of retrieval data, brought into one form."""

from __future__ import annotations

import gzip
import json
import re
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

from trimem.bench.locomo import Said, load_dialogues
from trimem.bench.squad import load_squad
from trimem.errors import InvalidInputError

QUERIES, JUDGEMENTS = "cran.qry.xml", "cranqrel.trec.txt"
"""The files that lie beside Cranfield's abstracts."""


@dataclass(frozen=True, slots=True)
class Query:
    """What is looked for.

    Attributes:
        text: In words.
        relevant: Indices of the texts of which any is a right one.
    """

    text: str
    relevant: frozenset[int]


@dataclass(frozen=True, slots=True)
class Collection:
    """Texts that are searched together, and what is looked for in them.

    Attributes:
        texts: In the order in which they are remembered.
        queries: What is looked for.
    """

    texts: list[str]
    queries: list[Query]


Levels = dict[str, list[Collection]]
"""Collections by what one text is: a paragraph, say, or a session and a turn of the same dialogues."""


def squad(path: Path) -> Levels:
    """Read SQuAD: paragraphs, and questions about each."""
    corpus = load_squad(path)
    queries = [Query(question.text, frozenset(question.passages)) for question in corpus.questions]
    return {"paragraph": [Collection(corpus.passages, queries)]}


def nq(path: Path) -> Levels:
    """Read Natural Questions as prepared for Lost in the Middle (arXiv 2307.03172): a gold passage a line, titled."""
    index: dict[str, int] = {}
    queries = []
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        for line in lines:
            asked = json.loads(line)
            gold = [f"{each['title']}\n{each['text']}" for each in asked["ctxs"] if each["isgold"]]
            passages = {index.setdefault(text, len(index)) for text in gold}
            queries.append(Query(asked["question"], frozenset(passages)))
    return {"passage": [Collection(list(index), queries)]}


def cranfield(path: Path) -> Levels:
    """Read the Cranfield collection: abstracts, with queries and judgements in files beside them."""
    index: dict[str, int] = {}
    texts: list[str] = []
    for document in re.findall(r"<doc>.*?</doc>", path.read_text(encoding="utf-8"), re.DOTALL):
        fields = {name: _element(document, name) for name in ("docno", "title", "text")}
        index[fields["docno"]] = len(texts)
        texts.append(fields["text"] or fields["title"] or fields["docno"])
    relevant: dict[int, set[int]] = defaultdict(set)
    for line in (path.parent / JUDGEMENTS).read_text(encoding="utf-8").splitlines():
        number, _, document, grade = line.split()
        if int(grade) > 0:
            relevant[int(number)].add(index[document])
    asked = ElementTree.parse(path.parent / QUERIES).iter("title")  # noqa: S314 - a file of the user's own
    # Judgements count the queries from 1; the numbers in the file of queries are others.
    queries = [
        Query(" ".join((title.text or "").split()), frozenset(relevant[number]))
        for number, title in enumerate(asked, start=1)
        if relevant[number]
    ]
    return {"abstract": [Collection(texts, queries)]}


def locomo(path: Path) -> Levels:
    """Read LoCoMo (arXiv 2402.17753): dialogues of many sessions, and questions with the turns that tell.

    A turn is what one speaker says, with a picture's caption; a session is its turns under its date.
    """
    levels: Levels = {"session": [], "turn": []}
    for dialogue in load_dialogues(path):
        sessions: list[str] = []
        session_of: list[int] = []
        for day, together in groupby(dialogue.said, attrgetter("day")):
            turns = [_spoken(said) for said in together]
            session_of += [len(sessions)] * len(turns)
            sessions.append("\n".join([day, *turns]))
        heard = [Query(asked.text, frozenset(asked.evidence)) for asked in dialogue.asked]
        levels["turn"].append(Collection([_spoken(said) for said in dialogue.said], heard))
        told = [Query(asked.text, frozenset(session_of[i] for i in asked.evidence)) for asked in dialogue.asked]
        levels["session"].append(Collection(sessions, told))
    return levels


def _spoken(said: Said) -> str:
    return f"{said.speaker}: {said.text}" + (f" [shares {said.caption}]" if said.caption else "")


FORMATS: dict[str, Callable[[Path], Levels]] = {"squad": squad, "nq": nq, "cranfield": cranfield, "locomo": locomo}
"""What files of retrieval data can be in."""


def load(path: Path, format: str) -> Levels:
    """Read retrieval data.

    Args:
        path: The file.
        format: One of :data:`FORMATS`.

    Raises:
        InvalidInputError: There is no such format, or the file is not in it.
    """
    if format not in FORMATS:
        raise InvalidInputError(f"format must be one of {', '.join(FORMATS)}, got {format!r}")
    try:
        levels = FORMATS[format](path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ElementTree.ParseError) as error:
        raise InvalidInputError(f"{path} cannot be read as {format}: {error!r}") from error
    if not all(collection.queries for collections in levels.values() for collection in collections):
        raise InvalidInputError(f"{path} holds a collection in which nothing is looked for")
    return levels


def _element(document: str, name: str) -> str:
    """Return an element's text on one line; the collection is not well-formed XML."""
    found: Any = re.search(rf"<{name}>(.*?)</{name}>", document, re.DOTALL)
    return " ".join(found.group(1).split()) if found else ""
