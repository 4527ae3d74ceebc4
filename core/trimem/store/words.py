"""Finding slots by words in the full-text index, without reading what every text has in common.

SQLite's bm25() scores every slot that has any word of a query, which with a few words such as "the" is all slots
there are. So words are taken from the rarest on, as many as can be read in a few milliseconds; what is found is scored
anew by all words (:mod:`trimem.store.fusion`).
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from itertools import accumulate
from threading import Lock

from sqlalchemy import Select, bindparam, column, func, select, table
from sqlalchemy.orm import Session

from trimem.store.expiry import hides
from trimem.store.schema import SEARCH_TABLE, ChangeRow, SlotRow
from trimem.store.scope import Where, in_scope, scope_word
from trimem.types import Namespace

SCORED = 2_000
"""About how many entries of the index one query may score: 5 ms."""

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
_KEPT = 100_000  # words of namespaces whose number of slots is remembered
_LARGE = 20_000  # slots of a namespace from which on counting takes long enough to be put off
_STALE = 1.25  # growth of such a namespace from which on it is counted again
_WORD = re.compile(r"\w+")

_INDEX = table(SEARCH_TABLE, column("rowid"), column(SEARCH_TABLE))
_MATCHES = _INDEX.c[SEARCH_TABLE].op("MATCH", is_comparison=True)(bindparam("match"))
_NEWEST = select(func.max(ChangeRow.id))
_COUNT = select(func.count()).select_from(_INDEX).where(_MATCHES)


class WordSearch:
    """Search in the full-text index of one bank.

    What is found in a namespace, and in which order, depends on nothing outside it: SQLite's bm25() counts how rare
    a word is over all tenants at once, which would tell one whether others use it.

    Args:
        scored: About how many slots one query may score.
    """

    def __init__(self, scored: int = SCORED) -> None:
        self._scored = scored
        self._lock = Lock()
        # Slots with the word, slots in all, and the change after which they were counted.
        self._counts: OrderedDict[tuple[Namespace, str], tuple[int, int, int]] = OrderedDict()

    def best(
        self,
        session: Session,
        terms: Sequence[str],
        namespace: Namespace,
        where: Where | None,
        limit: int,
        *,
        slots: int,
        min_trust: float = 0.0,
    ) -> list[int]:
        """Return the row ids of slots in scope that share words with a query, best first.

        They are ordered by the summed rarity of the words they share; equals, the last first. Words match in any form
        that the Porter stemmer takes for the same. Namespace and filter run before the choice of the best.

        Args:
            session: To read with.
            terms: The words, in lower case.
            namespace: Where to look, and below.
            where: Filter on metadata.
            limit: How many at most.
            slots: About how many slots lie in the namespace.
            min_trust: The least trust of a slot.
        """
        counts = {word: count for word, count in self.counts(session, terms, namespace, slots).items() if count}
        rarest = sorted(counts, key=lambda word: counts[word])
        having = _having(session, namespace, where, min_trust)
        score: dict[int, float] = {}
        looked, most = 0, self._scored
        while looked < len(rarest):
            taken = _affordable([counts[word] for word in rarest], most)
            if taken > looked and score and counts[rarest[taken - 1]] * 4 > slots:
                break  # what so many share tells little of what is looked for
            for word in rarest[looked:taken]:
                told = rarity(counts[word], slots)
                for row in session.scalars(having, {"match": _match(word, namespace), "most": most}):
                    score[row] = score.get(row, 0.0) + told
            if len(score) >= limit:
                break
            looked, most = taken, most * _WIDER
        return sorted(score, key=lambda row: (-score[row], -row))[:limit]

    def counts(self, session: Session, terms: Sequence[str], namespace: Namespace, slots: int) -> dict[str, int]:
        """Return in how many slots of a namespace each word stands; in a large one, as of a while ago."""
        moment = session.scalars(_NEWEST).one() or 0
        found: dict[str, int] = {}
        for word in terms:
            with self._lock:
                known = self._counts.get((namespace, word))
            if known is None or not (known[2] == moment or _LARGE < slots <= known[1] * _STALE):
                count = session.scalars(_COUNT, {"match": _match(word, namespace)}).one()
                known = count, max(slots, 1), moment
                with self._lock:
                    self._counts[namespace, word] = known
                    while len(self._counts) > _KEPT:
                        self._counts.popitem(last=False)
            found[word] = known[0]
        return found


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


def _affordable(counts: Sequence[int], most: int) -> int:
    """Return how many of the words, the rarest first, may be looked for; at least one."""
    return max(1, bisect_right(list(accumulate(counts)), most))


def _having(session: Session, namespace: Namespace, where: Where | None, min_trust: float) -> Select[int]:
    """Return the statement that reads which slots in scope match: ``most`` of them, the last first."""
    some = select(_INDEX.c.rowid)
    if where or min_trust > 0 or hides(session):  # what the index does not know
        some = (
            select(SlotRow.id).join(_INDEX, _INDEX.c.rowid == SlotRow.id).where(*in_scope(namespace, where, min_trust))
        )
        some = some.join(SlotRow.document) if where else some
    return some.where(_MATCHES).order_by(_INDEX.c.rowid.desc()).limit(bindparam("most"))


def _match(word: str, namespace: Namespace) -> str:
    scope = f'scope : "{scope_word(namespace)}" AND ' if namespace else ""
    return f'{scope}text : "{word}"'
