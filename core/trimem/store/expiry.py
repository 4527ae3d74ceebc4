"""What has expired is not there: who reads sees neither slots nor documents whose time is over.

They are hidden by the session, not by each statement, so that none can forget to. What is hidden is erased when the
bank is next opened, written to or asked to (:mod:`trimem.store.erasing`).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from threading import Lock
from typing import TypeGuard

from sqlalchemy import Connection, Engine, bindparam, event, or_, select, union_all
from sqlalchemy.orm import ORMExecuteState, Session, SessionTransaction, with_loader_criteria

from trimem.checks import shown
from trimem.errors import InvalidInputError
from trimem.store.schema import DocumentRow, ItemRow, SlotRow

_slots, _items = SlotRow.__table__, ItemRow.__table__
_EXPIRED = select(
    or_(*(select(table).where(table.c.expires_at <= bindparam("now")).exists() for table in (_slots, _items)))
)


class ForwardClock:
    """A clock in UTC that stands still while another runs back, so that what has expired stays so. Thread-safe.

    Args:
        clock: Tells the moment, with its time zone.

    Raises:
        InvalidInputError: It cannot be called, or, when it is, tells something else.
    """

    def __init__(self, clock: Callable[[], datetime]) -> None:
        if not callable(clock):
            raise InvalidInputError(f"a clock is called without arguments and tells a datetime, got {shown(clock)}")
        self._clock = clock
        self._lock = Lock()
        self._latest: datetime | None = None

    def __call__(self) -> datetime:
        now = self._clock()
        if not isinstance(now, datetime) or now.utcoffset() is None:
            raise InvalidInputError(f"a clock must tell a datetime with its time zone, got {shown(now)}")
        now = now.astimezone(UTC)
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
    session.hiding = bool(connection.execute(_EXPIRED, {"now": session.now}).scalar_one())


def hides(session: Session) -> TypeGuard[LivingSession]:
    """Return whether anything has expired that the session does not show."""
    session.connection()  # begins the transaction
    return isinstance(session, LivingSession) and session.hiding


@event.listens_for(LivingSession, "do_orm_execute")
def _hide(state: ORMExecuteState) -> None:
    session = state.session
    if state.is_select and not state.is_column_load and hides(session):
        # Not "or is null", for which SQLite would read the index of expiries instead of one that finds what is asked.
        gone = union_all(
            *(select(table.c.document_id).where(table.c.expires_at <= session.now) for table in (_slots, _items))
        )
        state.statement = state.statement.options(
            with_loader_criteria(SlotRow, (SlotRow.expires_at > session.now).is_not(False)),
            with_loader_criteria(DocumentRow, DocumentRow.id.not_in(gone)),
        )
