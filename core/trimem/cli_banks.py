"""Banks as the commands open them: of whichever mechanism they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trimem.console import quiet
from trimem.errors import InvalidInputError

if TYPE_CHECKING:
    from trimem.banks.slot_bank import SlotBank

MECHANISMS = ("explicit", "resonance")

MechanismOption = Annotated[
    str | None,
    typer.Option("--mechanism", help=f"Of a new bank: {' or '.join(MECHANISMS)}; explicit by default."),
]


@contextmanager
def open_bank(
    bank: Path,
    model: str | None = None,
    *,
    create: bool = False,
    mechanism: str | None = None,
    max_slots: int | None = None,
) -> Iterator[SlotBank]:
    """Open a bank for the length of a ``with`` block.

    Args:
        bank: Its folder.
        model: What :func:`trimem.load_model` takes; None is the bank's.
        create: Whether to make one where there is none.
        max_slots: The most slots that what is written leaves there; None is any number.
        mechanism: Of a new one; None is the mechanism of the one there is, and for a new one explicit memory.

    Raises:
        InvalidInputError: The mechanism is unknown, or another than the bank's.
    """
    from trimem.banks.folder import DATABASE, opened_store
    from trimem.explicit.bank import ExplicitBank
    from trimem.resonance.bank import ResonanceBank
    from trimem.store.capacity import Capacity

    if mechanism is not None and mechanism not in MECHANISMS:
        raise InvalidInputError(f"mechanism is one of {', '.join(MECHANISMS)}, got {mechanism!r}")
    if mechanism is None and (bank / DATABASE).exists():
        with opened_store(bank) as store:
            row = store.bank()
            mechanism = None if row is None else row.mechanism
    quiet()
    kind = ResonanceBank if mechanism == ResonanceBank.mechanism else ExplicitBank
    capacity = None if max_slots is None else Capacity(slots=max_slots)
    with kind.open(bank, model=model, create=create, capacity=capacity) as opened:
        yield opened
