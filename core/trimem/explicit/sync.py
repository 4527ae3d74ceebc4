"""A bank that follows a folder: what changed is compiled again, what is gone is forgotten.

A file is a document whose key is the folder's URI, ``#``, and the file's path below it. So two folders
never share a document, whatever else is remembered beside them, and nothing but the documents
themselves needs to be kept: which bytes a document was made of stands in its metadata.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from trimem.bank import Bank
from trimem.banks.turn import turn
from trimem.checks import is_folder, whole
from trimem.errors import InvalidInputError, UnreadableFileError
from trimem.progress import track
from trimem.reports import SyncReport, Unreadable
from trimem.store.metadata import Document, MetadataStore
from trimem.text.folders import Listing, list_folder
from trimem.text.readers import not_listed, read_bytes, source, to_text, unreadable
from trimem.types import Namespace

LOCK = "sync.lock"
BATCH = 200_000
"""Characters that are read before they are compiled: some 400 references of prose."""


@dataclass
class _Found:
    """What came of the files so far; sources, as in :class:`trimem.SyncReport`."""

    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    skipped: list[Unreadable] = field(default_factory=list)


class FolderSync:
    """One run over one folder.

    Args:
        bank: Where documents are remembered and forgotten.
        store: Its rows.
        namespace: Of exactly which the documents are.
        folder: As it was given.
        max_bytes: The largest file to read.

    Raises:
        InvalidInputError: There is no such folder, or the limit is below 1.
    """

    def __init__(self, bank: Bank, store: MetadataStore, namespace: Namespace, folder: Path, max_bytes: int) -> None:
        root = folder.resolve()
        if not is_folder(root):
            raise InvalidInputError(
                f"there is no folder {folder}: what was synced from it stays. To forget that, forget what has the "
                f"metadata folder={source(root)}"
            )
        self._bank = bank
        self._store = store
        self._namespace = namespace
        self._folder = folder
        self._root = source(root)
        self._prefix = f"{root.as_uri()}#"
        self._max_bytes = whole(max_bytes, "max_bytes", 1)
        self._stored = store.documents_under(namespace, self._prefix)
        self._there: set[str] = set()
        self._batch: list[Document] = []
        self._found = _Found()

    def run(self, listing: Listing, progress: bool | None) -> SyncReport:
        """Bring the bank to what the listed files hold, one transaction a document or a few."""
        found = self._found
        found.skipped += not_listed(listing.links, listing.closed)
        with track(f"syncing {self._folder}", len(listing.files), progress) as advance:
            for file in listing.files:
                self._look_at(file)
                if sum(len(document.text) for document in self._batch) >= BATCH:
                    self._flush()
                advance(1)
            self._flush()
        self._forget(listing.closed)
        return SyncReport(
            added=tuple(found.added),
            changed=tuple(found.changed),
            removed=tuple(found.removed),
            unchanged=tuple(found.unchanged),
            skipped=tuple(found.skipped),
        )

    def _key(self, path: Path) -> str:
        return self._prefix + source(path.relative_to(self._folder))

    def _look_at(self, file: Path) -> None:
        """Put a file where it belongs; its text into the batch if that must be stored."""
        key, name = self._key(file), source(file)
        content_hash, stored = self._stored.get(key, (None, {}))
        try:
            data = read_bytes(file, self._max_bytes)
            metadata = {"source": name, "folder": self._root, "sha256": hashlib.sha256(data).hexdigest()}
            same = metadata == stored
            text = "" if same else to_text(file, data)
        except UnreadableFileError as error:
            if not isinstance(error.__cause__, FileNotFoundError):  # which was removed since it was listed
                self._there.add(key)
                self._found.skipped.append(unreadable(file, error))
            return
        if not same and not text.strip():
            self._found.skipped.append(unreadable(file, UnreadableFileError("holds no text")))
            return
        self._there.add(key)
        document = Document(key, text, metadata)
        if same or document.content_hash == content_hash:
            self._found.unchanged.append(name)
        else:
            (self._found.added if content_hash is None else self._found.changed).append(name)
        if not same:
            self._batch.append(document)

    def _flush(self) -> None:
        if self._batch:
            self._bank.remember(
                [document.text for document in self._batch],
                namespace=self._namespace,
                metadata=[document.metadata for document in self._batch],
                ids=[document.key for document in self._batch],
            )
            self._batch.clear()

    def _forget(self, closed: Iterable[Path]) -> None:
        """Forget the documents whose files are gone; nobody knows that of those in closed folders."""
        unknown = tuple(self._prefix if path == self._folder else f"{self._key(path)}/" for path in closed)
        gone = [key for key in self._stored if key not in self._there and not f"{key}/".startswith(unknown)]
        if gone:
            held = self._store.documents(self._namespace, gone)
            self._bank.forget(namespace=self._namespace, ids=[slot for _, slots in held.values() for slot in slots])
            self._found.removed += [str(self._stored[key][1].get("source", key)) for key in gone]


def sync(
    bank: Bank,
    store: MetadataStore,
    namespace: Namespace,
    folder: Path,
    *,
    at: Path,
    max_bytes: int,
    progress: bool | None,
) -> SyncReport:
    """Make a bank hold what a folder holds; see :meth:`trimem.ExplicitBank.sync`.

    Args:
        bank: The bank.
        store: Its rows.
        namespace: Of exactly which the documents are.
        folder: The folder to follow.
        at: The bank's own folder, which is not read where it lies in the other.
        max_bytes: The largest file to read.
        progress: Whether to show a bar; None leaves that to the terminal.
    """
    with turn(at / LOCK, f"another sync of {at}", progress):
        run = FolderSync(bank, store, namespace, folder, max_bytes)
        return run.run(list_folder(folder, without=[at.resolve()]), progress)
