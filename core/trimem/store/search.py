"""Finding slots by their words and by their vectors at once.

Words find some slots, vectors others; together they are the candidates. Each is then judged by what it
says and by what stands around it (:mod:`trimem.store.fusion`). Namespace and filter hold before either
search chooses its best, the namespace once more when the candidates are read.

All that a search reads is of one moment, so a document that is replaced meanwhile is found as it was or as it
is. The vectors in memory belong to that moment, or the search begins anew.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from trimem.store.following import FollowedVectors
from trimem.store.fusion import Floats, QueryWords, Sides, Weights, alike, best_sentences, fuse, scores
from trimem.store.reader import Candidate, SearchReader
from trimem.store.scope import Where, check_filter, format_path
from trimem.store.vectors import SlotVectors
from trimem.store.words import WordSearch, rarity, words
from trimem.types import Hit, Namespace, SlotId

CANDIDATES = 32
"""How many slots words find, and how many vectors find, at least."""

LEADING = 24
"""Of how many candidates the slots beside them are read, at least."""

FEW = 2_000
"""The most slots that a filter leaves whose texts are all read: the index would score all that share a word."""

COMPARED = 8
"""How many times more slots than are wanted are compared as they are, where vectors in memory are not."""

TWINS = 8
"""How many of the nearest slots are looked at for a text that says almost the same."""

ATTEMPTS = 5
"""To search before somebody writes; the last counts all the same."""


class HybridSearch:
    """Search over a bank's slots. Any thread may use it.

    Args:
        reader: Of the bank's database.
        weights: How much each side counts.
        exact_slots: See :class:`trimem.store.vectors.SlotVectors`.
    """

    def __init__(self, reader: SearchReader, weights: Weights | None = None, exact_slots: int | None = None) -> None:
        self._reader = reader
        self._weights = weights or Weights()
        self._vectors = FollowedVectors(reader, exact_slots)
        self._words = WordSearch()

    def close(self) -> None:
        """Wait for what is being read."""
        self._vectors.close()

    def follow(self) -> None:
        """Read now what has been written since the last search, so that the next need not; nothing before the first."""
        self._vectors.catch_up()

    def __call__(
        self,
        query: str,
        vector: NDArray[np.float32],
        k: int,
        namespace: Namespace,
        where: Where | None,
        min_trust: float = 0.0,
    ) -> list[Hit]:
        """Return the best ``k`` slots in scope, best first.

        Args:
            query: The words.
            vector: (dim,), of length 1.
            k: How many at most.
            namespace: Where to look, and below.
            where: Filter on metadata; it runs before the choice of the best, at a cost of
                O(slots of the namespace).
            min_trust: The least trust of what is found; likewise.

        Raises:
            FingerprintMismatch: The vector is of another dimension than the bank's.
            InvalidInputError: The filter is none.
        """
        check_filter(where)
        terms = words(query)
        for left in reversed(range(ATTEMPTS)):
            held = self._vectors.current()
            if held is None:
                break
            with self._reader.session() as session:
                moment = self._reader.newest_change(session)
                rows = self._candidates(session, held, terms, vector, max(CANDIDATES, k), namespace, where, min_trust)
                if not left or self._vectors.in_step(held, moment):
                    candidates = self._reader.candidates(session, rows, namespace)
                    asked = self._asked(session, terms, namespace, held.count(format_path(namespace)))
                    return self._best(session, asked, vector, candidates, k)
        return []

    def twin(
        self, vector: NDArray[np.float32], namespace: Namespace, least: float, lengths: tuple[int, int]
    ) -> SlotId | None:
        """Return the slot nearest to a vector, if it is near enough, of about the length, and a whole text.

        Args:
            vector: (dim,), of length 1.
            namespace: Exactly where.
            least: Its cosine with the vector at least.
            lengths: Characters of its text, at least and at most.
        """
        held = self._vectors.current()
        if held is None:
            return None
        with self._reader.session() as session:
            path = format_path(namespace)
            rows = held.nearest(vector, TWINS, path, None, self._reader.expired(session))
            return self._reader.twin(session, rows.tolist(), path, vector, least, lengths)

    def _candidates(
        self,
        session: Session,
        held: SlotVectors,
        terms: list[str],
        vector: Floats,
        most: int,
        namespace: Namespace,
        where: Where | None,
        min_trust: float,
    ) -> set[int]:
        """Return the rows that words and vectors find, ``most`` of each."""
        path = format_path(namespace)
        allowed = self._reader.rows(session, namespace, where, min_trust) if where or min_trust > 0 else None
        expired = self._reader.expired(session) if allowed is None else None
        near = self._nearest(session, held, vector, most, path, allowed, expired)
        slots = held.count(path)
        if allowed is not None and len(allowed) <= FEW:
            said = self._said_among(session, self._asked(session, terms, namespace, slots), allowed, most)
        else:
            said = self._words.best(session, terms, namespace, where, most, slots=slots, min_trust=min_trust)
        return {*near.tolist(), *said}

    def _asked(self, session: Session, terms: list[str], namespace: Namespace, slots: int) -> QueryWords:
        """Return the words of a query, each by its rarity in the namespace."""
        counts = self._words.counts(session, terms, namespace, slots)
        return QueryWords({word: rarity(count, slots) for word, count in counts.items()})

    def _nearest(
        self,
        session: Session,
        held: SlotVectors,
        vector: Floats,
        most: int,
        path: str,
        allowed: NDArray[np.int64] | None,
        expired: NDArray[np.int64] | None,
    ) -> NDArray[np.int64]:
        """Return the nearest slots, by their vectors as they are."""
        if held.exact:
            return held.nearest(vector, most, path, allowed, expired)
        about = held.nearest(vector, COMPARED * most, path, allowed, expired)
        rows = self._reader.vectors_of(session, about.tolist())
        if rows is None:
            return about[:0]
        best = np.argsort(-(rows.vectors @ vector), kind="stable")[:most]
        return np.array(rows.ids, np.int64)[best]

    def _said_among(self, session: Session, asked: QueryWords, rows: NDArray[np.int64], most: int) -> list[int]:
        """Return which of a few slots share words with a query, best first; all of them are read."""
        there = self._reader.said(session, rows.tolist())
        judged = asked.words([asked.find(text) for text in there.values()], [len(text) for text in there.values()])
        best = np.argsort(-judged, kind="stable")[:most]
        return [list(there)[i] for i in best if judged[i] > 0]

    def _best(
        self, session: Session, asked: QueryWords, vector: Floats, candidates: list[Candidate], k: int
    ) -> list[Hit]:
        """Judge candidates and return the best ``k``."""
        if not candidates:
            return []
        alone = self._sides(asked, vector, candidates)
        leading = np.argsort(-fuse(alone, self._weights), kind="stable")[: max(LEADING, k)]
        sides = self._with_beside(session, alone, vector, candidates, leading.tolist())
        nats = fuse(sides, self._weights)
        best = np.argsort(-nats, kind="stable")[:k]
        slots = self._reader.slots(session, [candidates[i].slot_id for i in best])
        return [Hit(slot, float(score)) for slot, score in zip(slots, scores(sides, nats)[best], strict=True)]

    def _sides(self, asked: QueryWords, vector: Floats, candidates: list[Candidate]) -> Sides:
        """Judge each candidate by itself, as if nothing stood beside it."""
        found = [asked.find(candidate.text) for candidate in candidates]
        meaning = np.stack([candidate.vector for candidate in candidates]) @ vector
        return Sides(
            words=asked.words(found, [len(candidate.text) for candidate in candidates]),
            together=asked.together(found),
            meaning=meaning,
            sentence=best_sentences(vector, meaning, [candidate.sentences for candidate in candidates]),
            passage=meaning,
            around=np.zeros_like(meaning),
        )

    def _with_beside(
        self, session: Session, alone: Sides, vector: Floats, candidates: list[Candidate], leading: list[int]
    ) -> Sides:
        """Add what the slots beside the leading candidates say: those of the same document, and others."""
        known = {candidate.row: (candidate.document, candidate.vector) for candidate in candidates}
        beside = {row for i in leading for row in candidates[i].neighbours}
        others = self._reader.vectors_of(session, [row for row in beside if row not in known])
        if others is not None:
            held = zip(others.documents, others.vectors, strict=True)
            known.update(zip(others.ids, held, strict=True))
        passage, around = alone.passage.copy(), alone.around.copy()
        for i in leading:
            own = candidates[i]
            near = [known[row] for row in own.neighbours if row in known]
            together = own.vector + sum(each for document, each in near if document == own.document)
            passage[i] = together @ vector / max(float(np.linalg.norm(together)), 1e-9)
            strange = [each for document, each in near if document != own.document]
            around[i] = max((alike(float(each @ own.vector)) * float(each @ vector) for each in strange), default=0.0)
        return replace(alone, passage=passage, around=around)
