"""Finding slots by words in the full-text index, without reading what every text has in common.

SQLite's bm25() reads, for each word of a query, every slot that has it, and scores every slot that has any.
In a large bank a few words such as "the" would make that all slots there are. So words are taken from
the rarest on, as many as can be read in a few milliseconds; what is found is scored anew by all words
(:mod:`trimem.store.fusion`).
"""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock

from sqlalchemy import Select, column, func, select, table
from sqlalchemy.orm import Session

from trimem.store.schema import SEARCH_TABLE, SlotRow
from trimem.store.scope import Where, in_scope, scope_word
from trimem.types import Namespace

READ = 100_000
"""About how many entries of the index one query may read: 3 ms."""

SCORED = 2_000
"""About how many slots it may score: 5 ms."""

MOST = 512
"""Different words of a query that are looked for: encoders read no more of it either."""

_FUNCTION_WORDS = """
a about above after again against all am an and any are as at be because been before being below between both but
by can could did do does doing down during each few for from further had has have having he her here hers herself
him himself his how i if in into is it its itself just me more most my myself no nor not now of off on once only or
other our ours ourselves out over own same she should so some such than that the their theirs them themselves then
there these they this those through to too under until up very was we were what when where which while who whom
why will with would you your yours yourself yourselves
"""
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())
"""What questions and statements share whatever they are about."""

_WIDER = 8  # how many times more, where a filter leaves too few
_KEPT = 100_000  # words whose number of slots is remembered
_STALE = 1.25  # growth of the bank from which on it is counted again
_WORD = re.compile(r"\w+")

_INDEX = table(SEARCH_TABLE, column("rowid"), column(SEARCH_TABLE), column("rank"))


class WordSearch:
    """Search in the full-text index of one bank.

    Args:
        read: About how many entries of the index one query may read.
        scored: About how many slots it may score.
    """

    def __init__(self, read: int = READ, scored: int = SCORED) -> None:
        self._read = read
        self._scored = scored
        self._lock = Lock()
        self._counts: OrderedDict[str, tuple[int, int]] = OrderedDict()  # slots with the word, slots in all

    def best(
        self,
        session: Session,
        terms: Sequence[str],
        namespace: Namespace,
        where: Where | None,
        limit: int,
        *,
        slots: int,
        inside: int,
        min_trust: float = 0.0,
    ) -> list[tuple[int, float]]:
        """Return row ids and BM25 of slots in scope that share words with a query, best first.

        Words match in any form that the Porter stemmer takes for the same. How rare a word is, is
        counted over the whole bank. Namespace and filter run before the choice of the best.

        Args:
            session: To read with.
            terms: The words, in lower case.
            namespace: Where to look, and below.
            where: Filter on metadata.
            limit: How many at most.
            slots: About how many slots the bank has.
            inside: About how many of them lie in the namespace.
            min_trust: The least trust of a slot.
        """
        counts = {word: count for word, count in self.counts(session, terms, slots).items() if count}
        rarest = sorted(counts, key=lambda word: counts[word])
        share = inside / max(slots, 1)
        taken, allowance = 0, 1
        found: list[tuple[int, float]] = []
        while taken < len(rarest):
            now = self._affordable([counts[word] for word in rarest], share, allowance)
            allowance *= _WIDER
            if now == taken:
                continue
            if found and counts[rarest[now - 1]] * 4 > slots:
                break  # what so many share tells little of what is looked for
            taken = now
            found = [
                (row, -float(rank))
                for row, rank in session.execute(_statement(rarest[:taken], namespace, where, limit, share, min_trust))
            ]
            if len(found) >= limit:
                break
        return found

    def counts(self, session: Session, terms: Sequence[str], slots: int) -> dict[str, int]:
        """Return in how many slots of the bank each word stands, as of when the bank was about as large."""
        found: dict[str, int] = {}
        for word in terms:
            with self._lock:
                known = self._counts.get(word)
            if known is None or not slots <= known[1] * _STALE:
                statement = select(func.count()).select_from(_INDEX).where(_match(_either([word])))
                known = session.scalars(statement).one(), max(slots, 1)
                with self._lock:
                    self._counts[word] = known
                    while len(self._counts) > _KEPT:
                        self._counts.popitem(last=False)
            found[word] = known[0]
        return found

    def _affordable(self, counts: Sequence[int], share: float, allowance: int) -> int:
        """Return how many of the words, the rarest first, may be looked for; at least one."""
        total = 0
        for i, count in enumerate(counts):
            total += count
            if i and (total > self._read * allowance or total * share > self._scored * allowance):
                return i
        return len(counts)


def words(query: str) -> list[str]:
    """Return the first :data:`MOST` different words of a query that tell what it is about, in lower case.

    English function words are left out, as the stemmer is English too, unless there are no others.
    """
    said = all_words(query)
    return ([word for word in said if word not in FUNCTION_WORDS] or said)[:MOST]


def all_words(query: str) -> list[str]:
    """Return the different words of a query, in lower case, in their order."""
    return list(dict.fromkeys(_WORD.findall(query.lower())))


def rarity(count: int, slots: int) -> float:
    """Return the inverse document frequency of BM25: ln(1 + (N - n + 0.5) / (n + 0.5)), never below 0.

    Args:
        count: n, slots with the word.
        slots: N, slots in all; taken as n where it is less.
    """
    return math.log(1 + (max(slots - count, 0) + 0.5) / (count + 0.5))


def _statement(
    terms: Sequence[str], namespace: Namespace, where: Where | None, limit: int, share: float, min_trust: float
) -> Select[int, float]:
    match = _either(terms)
    if share < 0.5:
        match = f'scope : "{scope_word(namespace)}" AND {match}'
    statement = (
        select(SlotRow.id, _INDEX.c.rank)
        .join(_INDEX, _INDEX.c.rowid == SlotRow.id)
        .where(_match(match), *in_scope(namespace, where, min_trust))
        .order_by(_INDEX.c.rank)
        .limit(limit)
    )
    return statement.join(SlotRow.document) if where else statement


def _either(terms: Sequence[str]) -> str:
    return "text : (" + " OR ".join(f'"{word}"' for word in terms) + ")"


def _match(match: str):  # type: ignore[no-untyped-def]
    return _INDEX.c[SEARCH_TABLE].op("MATCH")(match)
