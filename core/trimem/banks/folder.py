"""The store of a bank of any mechanism, opened by its folder alone: for what needs neither model nor encoder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trimem.banks.turn import in_turn
from trimem.checks import as_path
from trimem.errors import BankNotFoundError, InvalidInputError
from trimem.store import building, upkeep
from trimem.store.building import DATABASE as DATABASE
from trimem.store.metadata import MetadataStore
from trimem.store.schema import BankRow
from trimem.store.tensors import Swept, disk_errors
from trimem.text.encoders import Embeddings, Encoder, as_encoder, named_encoder

LOCK = "recompile.lock"
"""What a process holds while it makes a bank anew."""


def bank_folder(path: str | Path, *, create: bool) -> Path:
    """Return the folder of a bank, made if that is wanted.

    Raises:
        BankNotFoundError: There is none and ``create`` is False.
        InvalidInputError: It is a file, or no path.
        DiskError: It cannot be made.
    """
    folder = as_path(path, "the folder of a bank")
    with disk_errors(folder):
        if "://" in str(path) or (folder.exists() and not folder.is_dir()):
            raise InvalidInputError(f"a bank is a folder, got {path}")
        if not (folder / DATABASE).exists():
            if not create:
                raise BankNotFoundError(f"there is no bank in {folder}; remember something there first")
            folder.mkdir(parents=True, exist_ok=True)
    return folder


def tend(store: MetadataStore) -> Swept:
    """Bring what a crash or an older trimem left into order; done whenever a bank is opened. O(files)."""
    folder = store.path.parent
    if building.folder_beside(folder).exists() and not in_turn(folder / LOCK):
        building.sweep(store)
    return upkeep.tend(store)


def mechanism_of(folder: Path) -> str | None:
    """Return of which mechanism the bank in a folder is; None where there is none, or nothing was remembered yet.

    Raises:
        SchemaVersionError: The bank was written by a newer trimem.
    """
    row = _made_as(folder, items=False)
    return None if row is None else row.mechanism


def encoder_of(folder: Path, encoder: Encoder | Embeddings | str | Path | None) -> Encoder:
    """Return an encoder for what a user gives; for nothing, the bank's own, and that of new ones by default.

    Raises:
        InvalidInputError: It is no encoder.
        MissingDependencyError: It is to be the default, and the package with the weights is not installed.
        SchemaVersionError: The bank was written by a newer trimem.
    """
    row = _made_as(folder, items=True) if encoder is None else None
    return (row and named_encoder(row.encoder_fingerprint)) or as_encoder(encoder)


def _made_as(folder: Path, *, items: bool) -> BankRow | None:
    """Return what the bank in a folder was made with, if there is any.

    Nothing that a crash left is swept up, so that whoever opens the bank hears of it.

    Args:
        folder: Of the bank.
        items: Whether one that holds items alone counts.
    """
    if not (folder / DATABASE).exists():
        return None
    store = MetadataStore(folder / DATABASE)
    try:
        return store.origin() if items else store.bank()
    finally:
        store.close()


@contextmanager
def opened_store(path: str | Path, *, create: bool = False) -> Iterator[MetadataStore]:
    """Open what a bank holds for the length of a ``with`` block, in order as a bank is when it is opened.

    Raises:
        BankNotFoundError: There is none and ``create`` is False.
        InvalidInputError: The folder is a file.
        SchemaVersionError: The bank was written by a newer trimem.
    """
    store = MetadataStore(bank_folder(path, create=create) / DATABASE)
    try:
        tend(store)
        yield store
    finally:
        store.close()
