"""What has expired is not there: who reads sees neither slots nor documents whose time is over.

They are hidden by the session, not by each statement, so that none can forget to. What is hidden is erased when the
bank is next opened, written to or asked to (:mod:`trimem.store.erasing`).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from threading import Lock
from typing import TypeGuard

from sqlalchemy import Connection, Engine, bindparam, event, literal, select
from sqlalchemy.orm import ORMExecuteState, Session, SessionTransaction, with_loader_criteria

from trimem.store.schema import DocumentRow, SlotRow

_slots = SlotRow.__table__
_EXPIRED = select(literal(1)).where(_slots.c.expires_at <= bindparam("now")).limit(1)


class ForwardClock:
    """A clock in UTC that stands still while another runs back, so that what has expired stays so. Thread-safe.

    Args:
        clock: Tells the moment, with its time zone.
    """

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._lock = Lock()
        self._latest: datetime | None = None

    def __call__(self) -> datetime:
        now = self._clock().astimezone(UTC)
        with self._lock:
            if self._latest is None or now > self._latest:
                self._latest = now
            return self._latest


class LivingSession(Session):
    """A session to read in, to which what has expired when its transaction begins is not there.

    Costs one look into an index; and where something has expired that is not erased yet, O(that) a statement.

    Args:
        engine: Of the database.
        clock: Tells the moment.

    Attributes:
        now: The moment of the transaction.
        hiding: Whether anything has expired by then.
    """

    def __init__(self, engine: Engine, clock: Callable[[], datetime]) -> None:
        super().__init__(engine)
        self.clock = clock
        self.now: datetime | None = None
        self.hiding = False


@event.listens_for(LivingSession, "after_begin")
def _look(session: LivingSession, _: SessionTransaction, connection: Connection) -> None:
    session.now = session.clock()
    session.hiding = connection.execute(_EXPIRED, {"now": session.now}).first() is not None


def hides(session: Session) -> TypeGuard[LivingSession]:
    """Return whether anything has expired that the session does not show."""
    session.connection()  # begins the transaction
    return isinstance(session, LivingSession) and session.hiding


@event.listens_for(LivingSession, "do_orm_execute")
def _hide(state: ORMExecuteState) -> None:
    session = state.session
    if state.is_select and not state.is_column_load and hides(session):
        # Not "or is null", for which SQLite would read the index of expiries instead of one that finds what is asked.
        gone = select(_slots.c.document_id).where(_slots.c.expires_at <= session.now)
        state.statement = state.statement.options(
            with_loader_criteria(SlotRow, (SlotRow.expires_at > session.now).is_not(False)),
            with_loader_criteria(DocumentRow, DocumentRow.id.not_in(gone)),
        )
