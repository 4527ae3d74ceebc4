"""FolderBank: what is done to a bank in a folder as a whole: opened, moved, kept in order.

A mechanism says what a text becomes (:meth:`FolderBank._write`), how tensors that were lost are made again
(:meth:`FolderBank._compile`), and by which model and configuration. All else is the same for all.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from threading import RLock
from typing import Any, ClassVar, Protocol, Self

from trimem.bank import Bank
from trimem.banks.folder import DATABASE, bank_folder, tend
from trimem.banks.identity import check_config, check_encoder, check_mechanism
from trimem.banks.items import Items, NewItem
from trimem.banks.recompiling import recompiled
from trimem.checks import as_namespace, as_path, typed
from trimem.errors import BankBusyError, DiskError, InvalidInputError
from trimem.reports import (
    BankStats,
    CompactReport,
    ErasureReceipt,
    EvictionReport,
    ExportReport,
    ImportReport,
    IntegrityReport,
    RecompileReport,
    RepairReport,
)
from trimem.store import integrity, upkeep
from trimem.store.capacity import HALF_LIFE, Capacity
from trimem.store.exporting import export_bank
from trimem.store.importing import Export, import_bank
from trimem.store.metadata import Document, MetadataStore
from trimem.store.schema import ITEMS, BankRow
from trimem.store.search import HybridSearch
from trimem.store.tensors import Swept
from trimem.store.uses import Uses
from trimem.text.encoders import Embeddings, Encoder, as_encoder
from trimem.tracing import traced
from trimem.types import Namespace, SlotId

SWEEP = timedelta(minutes=1)
"""How often writing erases what has expired: each time costs as much as to forget."""


class Config(Protocol):
    """How a bank is made; stored with it."""

    def to_json(self) -> dict[str, Any]: ...


class FolderBank(Bank):
    """A bank in a folder.

    Args:
        folder: Where it lies.
        encoder: What finds slots by meaning.
        config: As it was given; None is what the bank has.
        clock: Tells the moment that rows are stamped with and expire by.
        capacity: The most that the bank holds when this one writes to it; None is any.

    Attributes:
        mechanism: Of which the bank is; a folder holds a bank of one.
        swept: What a crash had left and was removed when the bank was opened.
        evicted: What had expired and was erased when the bank was opened.
    """

    mechanism: ClassVar[str]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        traced(cls)

    def __init__(
        self,
        folder: Path,
        encoder: Encoder,
        config: Config | None,
        clock: Callable[[], datetime],
        capacity: Capacity | None = None,
    ) -> None:
        self.folder = folder
        self.swept = Swept()
        self.evicted = EvictionReport(())
        self._encoder = encoder
        self._given_config = config
        self._clock = clock
        self._store = MetadataStore(folder / DATABASE, clock)
        self._store.forgets = self._drop
        self._capacity = typed(capacity, "capacity", Capacity)
        self._uses = Uses(self._store, lambda: HALF_LIFE if self.capacity is None else self.capacity.writes)
        self._search = HybridSearch(self._store.reader)
        self._lock = RLock()
        self._last_sweep: datetime | None = None

    @classmethod
    def _opened(cls, path: str | Path, create: bool, make: Callable[[Path], Self]) -> Self:
        """Return the bank that ``make`` makes of the folder, once it is known to be one and is in order.

        Raises:
            BankNotFoundError: There is none and ``create`` is False.
            InvalidInputError: The folder is a file, or holds a bank of another mechanism or configuration.
            SchemaVersionError: The bank was written by a newer trimem.
        """
        bank = make(bank_folder(path, create=create))
        try:
            row = bank._store.bank()
            bank.swept = tend(bank._store)
            if row is not None:
                bank._check(row)
                bank._store.made_by = (row.model_fingerprint, row.encoder_fingerprint)
                bank.evicted = bank._sweep()
        except BaseException:
            bank.close()
            raise
        return bank

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.folder)!r})"

    def close(self) -> None:
        self._search.close()
        self._uses.close()
        self._store.close()

    # What a mechanism says of itself

    @property
    @abstractmethod
    def config(self) -> Config:
        """How this bank is made."""

    @abstractmethod
    def _stored_config(self, row: BankRow) -> Config:
        """Return the configuration that a bank's row holds."""

    @abstractmethod
    def _made_by(self) -> tuple[str, str]:
        """Return name and fingerprint of what makes the tensors of slots."""

    @abstractmethod
    def _write(
        self, namespace: Namespace, documents: Sequence[Document], *, compile: bool, progress: bool | None
    ) -> dict[str, list[SlotId]]:
        """Store documents, replacing those of the same keys, and return their slots by key."""

    @abstractmethod
    def _compile(self, slots: Sequence[SlotId], progress: bool | None) -> None:
        """Make the tensors of slots that have none, from what their rows hold."""

    def _drop(self, slots: Collection[SlotId]) -> None:
        """Let go of what is held in memory of slots that are gone."""

    @property
    def capacity(self) -> Capacity | None:
        """How much the bank holds when this one writes to it; None is as much as comes."""
        return self._capacity

    def _capacity_of(self, row: BankRow) -> Capacity | None:
        """Return :attr:`capacity` as it is once the bank is made as a row says."""
        return self._capacity

    @property
    def _siblings(self) -> bool:
        """Whether the tensors of a slot know of the other slots of its document, and go with them."""
        return False

    def _check(self, row: BankRow) -> None:
        """Raise if the bank cannot be opened as asked."""
        check_mechanism(self.folder, row, self.mechanism)
        check_config(self.folder, self._stored_config(row), self._given_config)

    def _begin(self) -> BankRow:
        """Return the bank's row, made if there is none, once it is known to be what this bank would write to."""
        row = self._store.bank()
        if row is None:
            name, fingerprint = self._made_by()
            row = self._store.create_bank(
                mechanism=self.mechanism,
                model_name=name,
                model_fingerprint=fingerprint,
                encoder_fingerprint=self._encoder.fingerprint,
                config=self.config.to_json(),
            )
        check_mechanism(self.folder, row, self.mechanism)  # another process may have made it meanwhile
        check_config(self.folder, self._stored_config(row), self.config)
        check_encoder(self.folder, row, self._encoder)
        self._store.made_by = self._store.made_by or (row.model_fingerprint, row.encoder_fingerprint)
        return row

    def items(self, *, namespace: str | Sequence[str]) -> Items:
        """Return the objects that are kept in this bank under a namespace, found by keys, fields and what they say."""
        return Items(self._store, self._search, self._encoder, namespace)

    def stats(self, *, namespace: str | Sequence[str] | None = None) -> BankStats:
        """Count what is stored, in all or under one namespace."""
        return self._store.stats(None if namespace is None else as_namespace(namespace))

    # Moving

    def export(
        self, file: str | Path, *, namespace: str | Sequence[str] | None = None, progress: bool | None = None
    ) -> ExportReport:
        """Write all that is stored into one file, in the format of :doc:`guides/export`. O(bytes); needs no model.

        Args:
            file: Which; it has its name once it is whole, and replaces one of the same name.
            namespace: What to export, with all below; None is all.
            progress: Whether to show a bar; None shows it where there is a terminal or a notebook.

        Raises:
            InvalidInputError: ``file`` is no path, or names no file.
            BankNotFoundError: Nothing was ever remembered.
            CorruptDatabaseError: A row is not what was written.
            CorruptTensorError: Tensors are not what was written.
            DiskError: The file cannot be written.
        """
        path = None if namespace is None else as_namespace(namespace)
        return export_bank(self._store, as_path(file, "file"), path, progress)

    def import_from(self, file: str | Path, *, progress: bool | None = None) -> ImportReport:
        """Store what :meth:`export` wrote, bit by bit; what is there already is left alone. O(bytes); needs no model.

        A document of the same namespace and key that differs is replaced. Documents are stored in groups, each whole
        or not at all; what an interruption leaves undone, the same call does when it is repeated. What is more than the
        capacity makes room, as when it is remembered.

        Args:
            file: Which.
            progress: Whether to show a bar; None shows it where there is a terminal or a notebook.

        Raises:
            CorruptExportError: It is no export, or a part of it is not what was written; the groups before stay.
            SchemaVersionError: A newer trimem wrote it.
            FingerprintMismatch: Another model or encoder made it.
            InvalidInputError: It is no path, or of another mechanism or configuration, or a document of it is more than
                the capacity.
            DiskError: The disk is full or cannot be written to.
        """
        with self._lock, Export(as_path(file, "file")) as export:
            row, theirs = self._store.bank(), export.bank
            if theirs.encoder_fingerprint:
                check_encoder(self.folder, theirs, self._encoder)
            capacity = None
            if theirs.mechanism != ITEMS:  # which may come into any bank
                self._check(theirs if row is None else row)
                if row is None:
                    self._adopt(theirs)
                capacity = self._capacity_of(theirs)
            report, gone = import_bank(self._store, export, progress, capacity)
            self._drop(gone)
            self._search.follow()
        return report

    def _adopt(self, row: BankRow) -> None:
        """Let go of what was settled before it was known how the bank is made."""
        self.__dict__.pop("config", None)

    def recompile(
        self,
        *,
        model: Any = None,
        encoder: Encoder | Embeddings | str | Path | None = None,
        progress: bool | None = None,
    ) -> RecompileReport:
        """Bring the bank to another model or encoder, from the texts it keeps; it can be used meanwhile.

        Documents, metadata, times, provenance, trust, expiry and receipts stay. Slots are cut anew: where the tokenizer
        differs, they may be others, with other ids. The new bank is made beside the old one and takes its place in one
        transaction; needs room for both. What an interruption leaves undone, the same call does when it is repeated.
        Whoever has the bank open elsewhere gets a :class:`FingerprintMismatch` then, and opens it again.

        Args:
            model: What is to compile; None stays with the bank's, whose tensors stay, too.
            encoder: What is to find slots by meaning; None stays with the bank's.
            progress: Whether to show a bar; None shows it where there is a terminal or a notebook.

        Raises:
            BankNotFoundError: Nothing was ever remembered.
            InvalidInputError: Neither is given, or the bank does not keep its texts.
            UnsupportedModelError: The model cannot be lent memory.
            FingerprintMismatch: The bank was opened with another encoder than its own, and none is given.
            DiskError: The disk is full.
        """
        if model is None and encoder is None:
            raise InvalidInputError("say what to bring the bank to: give model, encoder or both")
        given = self._encoder if encoder is None else as_encoder(encoder)
        if encoder is None and (row := self._store.bank()) is not None:
            check_encoder(self.folder, row, given)
        before = self._store.stats(None).slots
        made_anew = recompiled(self._store, lambda folder: self._beside(folder, model, given), progress)
        with made_anew as (beside, switch), self._lock:
            switch()
            self._encoder = given
            self._search.close()
            self._search = HybridSearch(self._store.reader)
            self._settle(beside)
        stats, row = self._store.stats(None), self._store.bank()
        name, encoded_by = ("", "") if row is None else (row.model_name, row.encoder_fingerprint)
        return RecompileReport(stats.documents, before, stats.slots, name, encoded_by)

    @abstractmethod
    def _beside(self, folder: Path, model: Any, encoder: Encoder) -> Self:
        """Open a bank like this one in another folder, made by another model (None is this one's) and encoder.

        Raises:
            InvalidInputError: Banks of this mechanism are not made by such a model.
        """

    def _settle(self, made: Self) -> None:
        """Work from now on with what another bank was made with."""
        self.__dict__.pop("config", None)

    # Upkeep

    def verify(self) -> IntegrityReport:
        """Compare every file and row with its checksum. O(bytes of the bank); needs no model."""
        return integrity.verify(self._store)

    def repair(self, *, progress: bool | None = None) -> RepairReport:
        """Make again what is damaged and can be made again; the model is needed where tensors or slots are lost.

        Tensors are made from the texts of their slots, slots cut from their documents, indexes built from
        rows. A document whose own row is damaged is left as it is, and named.

        Args:
            progress: Whether to show a bar; None shows it where there is a terminal or a notebook.

        Raises:
            CorruptDatabaseError: The database cannot be read at all.
            FingerprintMismatch: The bank was made by another model or encoder.
        """
        with self._lock:
            integrity.repair_indexes(self._store)
            lost = integrity.repair_shards(self._store)
            upkeep.tend(self._store)
            self._drop(lost)
            rewritten: list[SlotId] = []
            for damaged in integrity.documents_to_rewrite(self._store):
                namespace, document = damaged.namespace, damaged.document
                if not document.text:
                    continue  # the bank keeps none: it is named
                if damaged.item is not None:
                    rewritten += self._write_item(namespace, document, damaged.item.ttl)
                    continue
                written = self._write(namespace, [document], compile=True, progress=progress)
                rewritten += written[document.key]
            again = [slot.id for slot in self._store.slots(lost)]
            if again:
                self._compile(again, progress)
                made = self._store.places(again)
                again = [slot for slot in again if slot in made]
            self._search.follow()
        return RepairReport(tuple(again), tuple(rewritten), self.verify().problems)

    def _write_item(self, namespace: Namespace, document: Document, ttl: float | None) -> list[SlotId]:
        """Write an item anew as it is, to live as long again."""
        lives = None if ttl is None else timedelta(seconds=ttl)
        self.items(namespace=namespace).write([NewItem((), document.key, document.metadata, [document.text], lives)])
        return self._store.documents(namespace, [document.key])[document.key][1]

    def index_metadata(self, *keys: str) -> None:
        """Find by these keys of metadata in O(what is found) from now on, whoever asks; else it is O(slots).

        For banks of many slots, once: O(documents), while others wait to write. Equality and lists of values use it.

        Args:
            keys: Of the metadata, not those of objects within it.

        Raises:
            InvalidInputError: One is empty, or holds a quotation mark or what cannot be printed.
        """
        for key in keys:
            self._store.index_metadata(key)

    def compact(self) -> CompactReport:
        """Merge small files of tensors, and give back what deletions left free. O(bytes of small files)."""
        return upkeep.compact(self._store)

    def evict(self) -> EvictionReport:
        """Erase what has expired and what is more than the capacity; see :meth:`trimem.Bank.evict`.

        O(bytes of the database), which is written anew, and O(slots) where there is too much.

        Raises:
            BankBusyError: It is gone, but somebody reads for so long that the log could not be emptied.
        """
        with self._lock:
            if self._store.bank() is None:
                return EvictionReport(())
            self._uses.write()
            expired = self._erase_expired(None)
            evicted = EvictionReport(() if self.capacity is None else tuple(self._store.erase_excess(self.capacity)))
            self._store.finish_erasures()  # what writes have left to be done, too
        return EvictionReport((*expired.receipts, *evicted.receipts))

    def _sweep(self) -> EvictionReport:
        """Erase what has expired, unless that was done a moment ago; what cannot be erased now waits, unseen."""
        now = self._store.now()
        if self._last_sweep is None or now - self._last_sweep >= SWEEP:
            self._last_sweep = now
            with suppress(BankBusyError, DiskError):
                return self._erase_expired(0.0)
        return EvictionReport(())

    def _erase_expired(self, wait: float | None) -> EvictionReport:
        receipts = self._store.erase_expired() if wait is None else self._store.erase_expired(wait)
        return EvictionReport(tuple(receipts))

    def receipts(self, *, namespace: str | Sequence[str]) -> list[ErasureReceipt]:
        """Return the receipts of what was erased in a namespace and below, oldest first."""
        return self._store.receipts(as_namespace(namespace))


traced(FolderBank)
