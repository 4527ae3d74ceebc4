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
    from trimem.explicit.bank import ExplicitBank
    from trimem.resonance.bank import ResonanceBank

MECHANISMS = ("explicit", "resonance", "transit")

MechanismOption = Annotated[
    str | None,
    typer.Option("--mechanism", help=f"Of a new bank: {', '.join(MECHANISMS)}; explicit by default."),
]
CodecOption = Annotated[
    Path | None,
    typer.Option("--codec", help="Of a new bank of transit memory: a file of trimem transit fit-texts."),
]


@contextmanager
def open_bank(
    bank: Path,
    model: str | None = None,
    *,
    create: bool = False,
    mechanism: str | None = None,
    max_slots: int | None = None,
    codec: Path | None = None,
    encoder: str | None = None,
) -> Iterator[SlotBank]:
    """Open a bank for the length of a ``with`` block.

    Args:
        bank: Its folder.
        model: What :func:`trimem.load_model` takes; None is the bank's. Transit memory takes none.
        create: Whether to make one where there is none.
        max_slots: The most slots that what is written leaves there; None is any number. Of transit memory, how many
            there are.
        mechanism: Of a new one; None is the mechanism of the one there is, and for a new one explicit memory.
        codec: File of what compresses the embeddings of a new bank of transit memory; None is trimem's own.
        encoder: Hugging Face id or folder; None is the bank's, and all-MiniLM-L6-v2 for a new one.

    Raises:
        InvalidInputError: The mechanism is unknown, or another than the bank's, or takes no model, or no codec.
    """
    from trimem.banks.folder import mechanism_of
    from trimem.explicit.bank import ExplicitBank
    from trimem.resonance.bank import ResonanceBank
    from trimem.store.capacity import Capacity
    from trimem.transit.bank import TransitBank

    if mechanism is not None and mechanism not in MECHANISMS:
        raise InvalidInputError(f"mechanism is one of {', '.join(MECHANISMS)}, got {mechanism!r}")
    mechanism = mechanism or mechanism_of(bank)
    quiet()
    opened: SlotBank
    if mechanism == TransitBank.mechanism:
        if model is not None:
            raise InvalidInputError("no model reads a bank of transit memory: leave --model out")
        opened = TransitBank.open(bank, slots=max_slots, codec=codec, encoder=encoder, create=create)
    elif codec is not None:
        raise InvalidInputError("--codec is of transit memory: leave it out, or make a bank with --mechanism transit")
    else:
        kind = ResonanceBank if mechanism == ResonanceBank.mechanism else ExplicitBank
        capacity = None if max_slots is None else Capacity(slots=max_slots)
        opened = kind.open(bank, model=model, encoder=encoder, create=create, capacity=capacity)
    with opened:
        yield opened


@contextmanager
def open_to_ask(bank: Path, model: str | None, encoder: str | None = None) -> Iterator[ExplicitBank | ResonanceBank]:
    """Open a bank that a model can attend to, with a model, for the length of a ``with`` block.

    Args:
        bank: Its folder.
        model: What :func:`trimem.load_model` takes; None is the bank's, and for resonance memory, which any model
            reads, the small default.
        encoder: As of :func:`open_bank`.

    Raises:
        InvalidInputError: The bank is of transit memory.
    """
    from trimem.banks.folder import mechanism_of
    from trimem.explicit.bank import ExplicitBank
    from trimem.lm.load import DEFAULT_NAME
    from trimem.resonance.bank import ResonanceBank
    from trimem.transit.bank import TransitBank

    mechanism = mechanism_of(bank)
    if mechanism == TransitBank.mechanism:
        raise InvalidInputError(
            f"{bank} holds transit memory, which no model attends to: find with trimem recall and put what is found "
            "into the prompt, or remember these texts in a bank of explicit or resonance memory"
        )
    if mechanism == ResonanceBank.mechanism and model is None:
        model = DEFAULT_NAME
    with open_bank(bank, model, encoder=encoder) as opened:
        assert isinstance(opened, ExplicitBank | ResonanceBank)  # as its mechanism says
        yield opened
