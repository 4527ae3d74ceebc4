"""What search reads of a bank's database: which slots changed, their vectors, what is judged, and what is found."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine, Select, func, select
from sqlalchemy.orm import Session, aliased, contains_eager, load_only

from trimem.store.expiry import LivingSession, hides
from trimem.store.schema import ChangeRow, DocumentRow, SlotRow
from trimem.store.scope import MOMENT, Where, in_scope, parse_path
from trimem.store.vector_codec import RowVectors, WholeVectors
from trimem.types import Metadata, Namespace, Slot, SlotId

T = TypeVar("T")

_IN_MANY = 500  # ids in one IN (...), well under SQLite's limit of variables
_VECTOR = (SlotRow.id, SlotRow.namespace, SlotRow.document_id, SlotRow.vector)
_TEXTS = select(SlotRow.id, SlotRow.slot_id, SlotRow.namespace, SlotRow.text, DocumentRow.meta).join(SlotRow.document)
_OTHER = aliased(SlotRow)
_slots = SlotRow.__table__
_CANDIDATE = (
    SlotRow.id,
    SlotRow.slot_id,
    SlotRow.document_id,
    SlotRow.text,
    SlotRow.vector,
    SlotRow.sentences,
    select(func.max(_OTHER.id)).where(_OTHER.namespace == SlotRow.namespace, _OTHER.id < SlotRow.id).scalar_subquery(),
    select(func.min(_OTHER.id)).where(_OTHER.namespace == SlotRow.namespace, _OTHER.id > SlotRow.id).scalar_subquery(),
)


@dataclass(frozen=True, slots=True)
class VectorRows:
    """Vectors of slots, read from the database.

    Attributes:
        ids: Row ids, in their order.
        paths: The namespace of each, as it is stored.
        documents: Row id of the document of each.
        vectors: (slots, dim).
    """

    ids: list[int]
    paths: list[str]
    documents: list[int]
    vectors: NDArray[np.float32] = field(repr=False)


@dataclass(frozen=True, slots=True)
class SlotText:
    """What a slot says.

    Attributes:
        row: Its row id.
        slot_id: Its id.
        path: Its namespace, as it is stored.
        text: Its text; empty in a bank that keeps none.
        metadata: Of its document.
    """

    row: int
    slot_id: SlotId
    path: str
    text: str = field(repr=False)
    metadata: Metadata = field(repr=False)


@dataclass(frozen=True, slots=True)
class SlotInLine:
    """Where a slot stands among those remembered before and after it.

    Attributes:
        slot_id: Its id.
        tokens: How many it has.
        moment: When it was said, in microseconds from 1970 in UTC; None where nobody knows.
    """

    slot_id: SlotId
    tokens: int
    moment: int | None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A slot that may be among the best for a query.

    Attributes:
        row: Its row id.
        slot_id: Its id.
        document: Row id of its document.
        text: What it says.
        vector: (dim,).
        sentences: (sentences, dim), or None where there is but one.
        neighbours: Row ids of the slots that came before and after it in the very same namespace.
    """

    row: int
    slot_id: SlotId
    document: int
    text: str = field(repr=False)
    vector: NDArray[np.float32] = field(repr=False)
    sentences: NDArray[np.float32] | None = field(repr=False)
    neighbours: tuple[int, ...]


class SearchReader:
    """Reads in a bank's database: what one session reads is of one moment, whatever is written meanwhile.

    Args:
        engine: Of the database.
        clock: Tells the moment.

    Attributes:
        vectors: How rows hold them.
    """

    def __init__(self, engine: Engine, clock: Callable[[], datetime]) -> None:
        self._engine = engine
        self._clock = clock
        self.vectors: RowVectors = WholeVectors()

    def session(self) -> Session:
        """Return a session to read in; use it in a ``with`` block."""
        return LivingSession(self._engine, self._clock)

    def newest_change(self, session: Session) -> int:
        """Return the number of the last slot that came or went, by whichever process; 0 if none did."""
        return session.scalars(select(func.max(ChangeRow.id))).one() or 0

    def changes(self, session: Session, since: int) -> list[int] | None:
        """Return the row ids of slots that came or went after a change; None if that is no longer known."""
        if since < (session.scalars(select(func.min(ChangeRow.id))).one() or 1) - 1:
            return None
        return list(session.scalars(select(ChangeRow.slot).where(ChangeRow.id > since).distinct()))

    def vectors_after(self, session: Session, last: int, most: int) -> VectorRows | None:
        """Return the vectors of the ``most`` slots that follow a row id; None where none does."""
        return self._vectors(session, select(*_VECTOR).where(SlotRow.id > last).order_by(SlotRow.id).limit(most))

    def vectors_of(self, session: Session, rows: Sequence[int]) -> VectorRows | None:
        """Return the vectors of those of at most some thousand slots that exist; None where none does."""
        return self._vectors(session, select(*_VECTOR).where(SlotRow.id.in_(rows)).order_by(SlotRow.id))

    def texts_after(self, session: Session, last: int, most: int) -> list[SlotText]:
        """Return what the ``most`` slots say that follow a row id."""
        return _texts(session, _TEXTS.where(SlotRow.id > last).order_by(SlotRow.id).limit(most))

    def texts_of(self, session: Session, rows: Sequence[int]) -> list[SlotText]:
        """Return what those of at most some thousand slots say that exist."""
        return _texts(session, _TEXTS.where(SlotRow.id.in_(rows)).order_by(SlotRow.id))

    def said(self, session: Session, rows: Collection[int]) -> dict[int, str]:
        """Return the texts of those of the slots that exist."""
        statement = select(SlotRow.id, SlotRow.text)
        return {
            row: text
            for some in in_batches(rows)
            for row, text in session.execute(statement.where(SlotRow.id.in_(some)).order_by(SlotRow.id))
        }

    def line(
        self, session: Session, namespace: Namespace, where: Where | None, min_trust: float = 0.0
    ) -> list[SlotInLine]:
        """Return all slots in scope in the order they were remembered. O(slots of the namespace)."""
        said_at = getattr(func, MOMENT)(func.json_extract(DocumentRow.meta, "$.time"))
        statement = select(SlotRow.slot_id, SlotRow.tokens, said_at).join(SlotRow.document)
        found = session.execute(statement.where(*in_scope(namespace, where, min_trust)).order_by(SlotRow.id))
        return [SlotInLine(slot_id, tokens, moment) for slot_id, tokens, moment in found]

    def rows(
        self, session: Session, namespace: Namespace, where: Where | None, min_trust: float = 0.0
    ) -> NDArray[np.int64]:
        """Return the row ids of all slots in scope. Costs O(slots of the namespace)."""
        statement = select(SlotRow.id).where(*in_scope(namespace, where, min_trust))
        found = session.scalars(statement.join(SlotRow.document) if where else statement)
        return np.fromiter(found, np.int64)

    def expired(self, session: Session) -> NDArray[np.int64] | None:
        """Return the row ids of slots that have expired and are not erased yet; None where there are none."""
        if not hides(session):
            return None
        rows = select(_slots.c.id).where(_slots.c.expires_at <= session.now)
        return np.fromiter(session.connection().scalars(rows), np.int64)

    def documents(self, session: Session, rows: Collection[int], namespace: Namespace) -> dict[int, str]:
        """Return the keys of the documents of those slots that are in scope."""
        return {
            row: key
            for some in in_batches(rows)
            for row, key in session.execute(
                select(SlotRow.id, DocumentRow.key)
                .join(SlotRow.document)
                .where(SlotRow.id.in_(some), *in_scope(namespace, None))
            )
        }

    def candidates(self, session: Session, rows: Collection[int], namespace: Namespace) -> list[Candidate]:
        """Return those of the slots that lie in a namespace and below, whoever chose them."""
        found = []
        for some in in_batches(rows):
            statement = select(*_CANDIDATE).where(SlotRow.id.in_(some), *in_scope(namespace, None))
            told = session.execute(statement).all()
            if not told:
                continue
            whole = self.vectors.unpack([row.vector for row in told])
            parts = self.vectors.unpack_sentences([row.sentences for row in told], whole.shape[1])
            for i, (row, slot_id, document, text, _, _, before, after) in enumerate(told):
                beside = tuple(each for each in (before, after) if each is not None)
                found.append(Candidate(row, slot_id, document, text, whole[i], parts[i], beside))
        return found

    def _vectors(self, session: Session, statement: Select[int, str, int, bytes]) -> VectorRows | None:
        found = session.execute(statement).all()
        if not found:
            return None
        ids, paths, documents, vectors = zip(*found, strict=True)
        return VectorRows(list(ids), list(paths), list(documents), self.vectors.unpack(vectors))

    def codes(self, ids: Collection[SlotId]) -> dict[SlotId, bytes]:
        """Return what the rows of those slots that exist hold of their vectors."""
        found: dict[SlotId, bytes] = {}
        with self.session() as session:
            for some in in_batches(ids):
                rows = session.execute(select(SlotRow.slot_id, SlotRow.vector).where(SlotRow.slot_id.in_(some)))
                found.update((slot, vector) for slot, vector in rows)
        return found

    def twin(
        self,
        session: Session,
        rows: Sequence[int],
        path: str,
        vector: NDArray[np.float32],
        least: float,
        lengths: tuple[int, int],
    ) -> SlotId | None:
        """Return the slot nearest to a vector; see :meth:`trimem.store.search.HybridSearch.twin`.

        Args:
            session: To read with.
            rows: Which slots to look at, at most some hundred.
            path: Their namespace, as it is stored.
            vector: (dim,), of length 1.
            least: The cosine at least.
            lengths: Characters, at least and at most.
        """
        alone = select(func.count()).where(_OTHER.document_id == SlotRow.document_id).scalar_subquery() == 1
        found = session.execute(
            select(SlotRow.slot_id, SlotRow.vector)
            .where(SlotRow.id.in_(rows), SlotRow.namespace == path, alone)
            .where((SlotRow.stop - SlotRow.start).between(*lengths))
        ).all()
        if not found:
            return None
        cosines = self.vectors.unpack([held for _, held in found]) @ vector
        best = int(cosines.argmax())
        return found[best][0] if cosines[best] >= least else None

    def slots(self, session: Session, ids: Sequence[SlotId]) -> list[Slot]:
        """Return slots in the order of ``ids``; those that do not exist are left out."""
        document = contains_eager(SlotRow.document).options(load_only(DocumentRow.key, DocumentRow.meta))
        slots = select(SlotRow).join(SlotRow.document).options(document)
        found: dict[SlotId, Slot] = {}
        for some in in_batches(ids):
            found.update((row.slot_id, _slot(row)) for row in session.scalars(slots.where(SlotRow.slot_id.in_(some))))
        return [found[slot_id] for slot_id in ids if slot_id in found]


def in_batches(ids: Iterable[T]) -> list[list[T]]:
    """Split ids into lists that fit one statement."""
    ids = list(ids)
    return [ids[i : i + _IN_MANY] for i in range(0, len(ids), _IN_MANY)]


def _texts(session: Session, statement: Select[int, str, str, str, dict[str, Any]]) -> list[SlotText]:
    return [SlotText(*row) for row in session.execute(statement)]


def _slot(row: SlotRow) -> Slot:
    return Slot(
        row.slot_id,
        parse_path(row.namespace),
        row.document.key,
        row.text,
        row.start,
        row.stop,
        row.line,
        row.tokens,
        row.document.meta,
        row.created_at,
        row.expires_at,
        row.provenance,
        row.trust,
    )
