"""A bank brought to another model or encoder: made anew beside itself, then put in its own place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from trimem.banks.folder import LOCK
from trimem.banks.identity import check_model
from trimem.banks.turn import turn
from trimem.errors import BankNotFoundError, FingerprintMismatch, InvalidInputError, StoreError
from trimem.progress import track
from trimem.store import building
from trimem.store.metadata import Document, MetadataStore
from trimem.types import Namespace

if TYPE_CHECKING:
    from trimem.banks.folder_bank import FolderBank

B = TypeVar("B", bound="FolderBank")


@contextmanager
def recompiled(
    store: MetadataStore, make: Callable[[Path], B], progress: bool | None
) -> Iterator[tuple[B, Callable[[], None]]]:
    """Make a bank anew beside itself, and yield the new one with what puts it in the place of the old one.

    Args:
        store: Of the bank.
        make: Opens the new bank in a folder; what lies there of another kind is removed first.
        progress: Whether to show a bar; None leaves that to the terminal.

    Raises:
        BankNotFoundError: Nothing was ever remembered.
    """
    folder = store.path.parent
    row = store.bank()
    if row is None:
        raise BankNotFoundError(f"nothing was ever remembered in {folder}: there is nothing to recompile")
    with turn(folder / LOCK, f"another recompilation of {folder}", progress):
        beside = _opened(folder, make)
        try:
            target = building.target_of(beside._begin())
            stays = target.model == row.model_fingerprint
            new = beside._store
            new.made_from = store

            def write(namespace: Namespace, documents: list[Document]) -> None:
                beside._write(namespace, documents, compile=not stays, progress=False)

            if not target.matches(row):
                with track("recompiling documents", building.total(store), progress) as advance:
                    building.follow(store, new, write, advance)

            def switch() -> None:
                if not target.matches(row):
                    building.switch(store, new, target, write)
                store.made_by = (target.model, target.encoder)

            yield beside, switch
        finally:
            beside.close()
        building.remove(folder)


def _opened(folder: Path, make: Callable[[Path], B]) -> B:
    """Open the bank beside, to go on with what was begun, or to begin."""
    there = building.folder_beside(folder)
    begun = there.exists()
    try:
        return _begun(make(there))
    except (FingerprintMismatch, InvalidInputError, StoreError):
        building.remove(folder)
        if not begun:
            raise
    return _begun(make(there))


def _begun(beside: B) -> B:
    """Return a bank once it has a row and is known to be made as it should be."""
    try:
        check_model(beside.folder, beside._begin(), *beside._made_by())
    except BaseException:
        beside.close()
        raise
    return beside
