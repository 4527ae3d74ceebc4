"""What an explicit bank holds: opened, written, forgotten, compiled and looked after."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from threading import RLock
from typing import Any, Self

from trimem.bank import Bank
from trimem.errors import (
    BankNotFoundError,
    InvalidInputError,
    SlotNotFoundError,
)
from trimem.explicit.background import Background
from trimem.explicit.cache import RecordCache
from trimem.explicit.compiler import Compiler
from trimem.explicit.config import ExplicitConfig
from trimem.explicit.documents import documents
from trimem.explicit.identity import MECHANISM, check_config, check_encoder, check_model
from trimem.explicit.records import Records
from trimem.explicit.sync import sync
from trimem.explicit.writer import Writer
from trimem.lm.load import load_model
from trimem.lm.model import LanguageModel
from trimem.progress import track
from trimem.store import integrity, upkeep
from trimem.store.metadata import Document, MetadataStore, utc_now
from trimem.store.scope import parse_path
from trimem.store.search import HybridSearch
from trimem.store.tensors import StagedShard, Swept
from trimem.text.encoders import Embeddings, Encoder, as_encoder
from trimem.text.readers import MAX_BYTES
from trimem.types import (
    BankStats,
    CompactReport,
    ErasureReceipt,
    Hit,
    IntegrityReport,
    Metadata,
    RepairReport,
    SlotId,
    SyncReport,
    Turn,
    as_namespace,
)

DATABASE = "bank.sqlite"
CACHE_BYTES = 256 << 20


class StoredBank(Bank):
    """What a bank of explicit memory holds, without the ways to read it."""

    swept = Swept()
    """What a crash had left and was removed when the bank was opened."""

    def __init__(
        self,
        folder: Path,
        model: LanguageModel | str | Path | None,
        encoder: Encoder,
        config: ExplicitConfig | None,
        cache_bytes: int,
        device_cache_bytes: int,
        clock: Callable[[], datetime],
    ) -> None:
        self.folder = folder
        self._given_model = model
        self._given_config = config
        self._encoder = encoder
        self._store = MetadataStore(folder / DATABASE, clock)
        self._records = Records(self._store, RecordCache(cache_bytes), RecordCache(device_cache_bytes))
        self._background = Background()
        self._search = HybridSearch(self._store.reader)
        self._clock = clock
        self._lock = RLock()

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        model: LanguageModel | str | Path | None = None,
        encoder: Encoder | Embeddings | str | Path | None = None,
        config: ExplicitConfig | None = None,
        create: bool = True,
        cache_bytes: int = CACHE_BYTES,
        device_cache_bytes: int = CACHE_BYTES,
        clock: Callable[[], datetime] = utc_now,
    ) -> Self:
        """Open the bank in a folder, or make a new one there.

        Args:
            path: The folder.
            model: The model that compiles and reads, or what :func:`trimem.load_model` takes, which is
                loaded when it is first needed. None is the one the bank was made by, and for a new
                bank the small default.
            encoder: What finds slots by meaning; see :func:`trimem.text.encoders.as_encoder`.
            config: How to compile; None is what the bank has, and for a new one the defaults.
            create: Whether to make a bank where there is none.
            cache_bytes: Most bytes of decoded key-values that are kept in memory; what was read least
                lately goes first.
            device_cache_bytes: The same on the model's device, where that is not the CPU.
            clock: Tells the moment that rows are stamped with.

        Raises:
            BankNotFoundError: There is none and ``create`` is False.
            FingerprintMismatch: The bank was compiled by another model.
            InvalidInputError: The folder is a file, or ``config`` differs from the bank's.
            SchemaVersionError: The bank was written by a newer trimem.
        """
        folder = Path(path)
        if "://" in str(path) or (folder.exists() and not folder.is_dir()):
            raise InvalidInputError(f"a bank is a folder, got {path}")
        if not (folder / DATABASE).exists():
            if not create:
                raise BankNotFoundError(f"there is no bank in {folder}; remember something there first")
            folder.mkdir(parents=True, exist_ok=True)
        bank = cls(folder, model, as_encoder(encoder), config, cache_bytes, device_cache_bytes, clock)
        try:
            row = bank._store.bank()
            bank.swept = upkeep.tend(bank._store)
            if row is not None:
                check_config(folder, row, config)
                if isinstance(model, LanguageModel):
                    check_model(folder, row, model)
        except BaseException:
            bank.close()
            raise
        return bank

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.folder)!r})"

    def close(self) -> None:
        self._background.close()
        self._search.close()
        self._store.close()

    # What the bank is made with

    @cached_property
    def model(self) -> LanguageModel:
        """The model that compiles and reads; loaded at the first use if it was given by name.

        Raises:
            FingerprintMismatch: The bank was compiled by another.
        """
        with self._lock:
            row = self._store.bank()
            name = self._given_model
            if isinstance(name, LanguageModel):
                lm = name
            else:
                lm = load_model(row.model_name if name is None and row is not None else name)
            if row is not None:
                check_model(self.folder, row, lm)
            return lm

    @cached_property
    def config(self) -> ExplicitConfig:
        """How this bank is compiled."""
        if self._given_config is not None:
            return self._given_config
        row = self._store.bank()
        return ExplicitConfig() if row is None else ExplicitConfig.from_json(row.config)

    @cached_property
    def compiler(self) -> Compiler:
        """The model with the bank's configuration.

        Raises:
            UnsupportedModelError: The model's keys cannot be moved.
        """
        with self._lock:
            return Compiler(self.model, self.config)

    # Writing

    def remember(
        self,
        texts: str | Turn | Sequence[str | Turn],
        *,
        namespace: str | Sequence[str],
        metadata: Metadata | Sequence[Metadata] | None = None,
        ids: str | Sequence[str] | None = None,
        compile: bool = True,
        progress: bool | None = None,
    ) -> list[SlotId]:
        """Compile texts and store them; see :meth:`trimem.Bank.remember`.

        Args:
            texts: One or many. Each is cut on sentence borders into references of at most
                ``config.reference_tokens`` tokens. A :class:`trimem.Turn` of a conversation is read with its
                speaker before it, and has speaker and time in its metadata.
            namespace: Whose they are.
            metadata: Stored beside them, one for all or one each.
            ids: Keys of the texts, one each.
            compile: False stores and indexes text only: a slot is then compiled when it is first read.
            progress: Whether to show a bar; None shows it where there is a terminal or a notebook.

        Returns:
            The slots of all texts, in order, those that were there already included.

        Raises:
            InvalidInputError: A text is empty, metadata is no JSON object, or the lists differ in
                length. Nothing is stored then.

        One forward pass over each reference: O(tokens). What an interruption leaves undone, the same
        call does when it is repeated.
        """
        path = as_namespace(namespace)
        given = documents(texts, metadata, ids)
        with self._lock:
            row = self._store.bank()
            if row is None:
                row = self._store.create_bank(
                    mechanism=MECHANISM,
                    model_name=self.model.name,
                    model_fingerprint=self.model.fingerprint,
                    encoder_fingerprint=self._encoder.fingerprint,
                    config=self.config.to_json(),
                )
            check_config(self.folder, row, self.config)
            check_encoder(self.folder, row, self._encoder)
            stored = self._store.documents(path, list(given))
            unchanged = {
                key: document.metadata
                for key, document in given.items()
                if key in stored and stored[key][0] == document.content_hash
            }
            if metadata is not None and unchanged:
                self._store.update_metadata(path, unchanged)
            slots = {key: stored[key][1] for key in unchanged}
            new = [document for key, document in given.items() if key not in unchanged]
            if new:
                check_model(self.folder, row, self.model)
                writer = Writer(self._store, self._records, self._encoder, self.compiler)
                slots.update(writer.write(path, new, compile=compile, progress=progress))
                self._search.follow()
        return [slot for key in given for slot in slots[key]]

    def forget(
        self,
        *,
        namespace: str | Sequence[str],
        ids: str | Collection[str] | None = None,
        where: Mapping[str, Any] | None = None,
    ) -> ErasureReceipt:
        """Erase slots from the disk; see :meth:`trimem.Bank.forget`. O(index) for the words."""
        path = as_namespace(namespace)
        chosen = [ids] if isinstance(ids, str) else ids
        with self._lock:
            receipt = self._store.delete(path, chosen, where, siblings=self.config.context == "document")
            self._records.drop(receipt.slots)
        return receipt

    def receipts(self, *, namespace: str | Sequence[str]) -> list[ErasureReceipt]:
        """Return the receipts of what was erased in a namespace and below, oldest first."""
        return self._store.receipts(as_namespace(namespace))

    # Upkeep

    def verify(self) -> IntegrityReport:
        """Compare every file and row with its checksum. O(bytes of the bank); needs no model."""
        return integrity.verify(self._store)

    def repair(self, *, progress: bool | None = None) -> RepairReport:
        """Make again what is damaged and can be made again; the model is needed where tensors or slots are lost.

        Tensors are compiled from the texts of their slots, slots cut from their documents, indexes built from
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
            self._records.drop(lost)
            rewritten: list[SlotId] = []
            for row in integrity.documents_to_rewrite(self._store):
                document = Document(row.key, row.text, row.meta)
                writer = Writer(self._store, self._records, self._encoder, self.compiler)
                written = writer.write(parse_path(row.namespace), [document], compile=True, progress=progress)
                rewritten += written[row.key]
            again = [slot.id for slot in self._store.slots(lost)]
            if again:
                self._compile(again, progress)
            self._search.follow()
        return RepairReport(tuple(again), tuple(rewritten), self.verify().problems)

    def compact(self) -> CompactReport:
        """Merge small files of tensors, and give back what deletions left free. O(bytes of small files)."""
        return upkeep.compact(self._store)

    def sync(
        self,
        folder: str | Path,
        *,
        namespace: str | Sequence[str],
        max_bytes: int = MAX_BYTES,
        progress: bool | None = None,
    ) -> SyncReport:
        """Make a namespace hold what the files of a folder hold: compile what changed, forget what is gone.

        Only what a sync of the same folder remembered is replaced or forgotten. A file that cannot be
        read is reported and holds nothing up; if it had been read before, what it said then stays.

        Args:
            folder: The folder, read with all below it but hidden files and links to folders.
            namespace: Whose it is.
            max_bytes: The largest file to read.
            progress: Whether to show bars; None shows them where there is a terminal or a notebook.

        Raises:
            InvalidInputError: There is no such folder; nothing is forgotten then.

        Reads every file, O(bytes), and compiles those that changed, O(tokens). Whoever reads the bank finds
        each document as it was or as it is. What an interruption leaves undone, the same call does when it is
        repeated; while another sync of the bank runs, it waits.
        """
        path = as_namespace(namespace)
        return sync(self, self._store, path, Path(folder), at=self.folder, max_bytes=max_bytes, progress=progress)

    def compile(self, hits: Sequence[Hit], *, progress: bool | None = None) -> int:
        """Compile those hits that have no tensors: remembered with ``compile=False`` and not read since.

        Args:
            hits: What :meth:`recall` returned.
            progress: Whether to show a bar; None shows it where there is a terminal or a notebook.

        Returns:
            How many were compiled.

        Raises:
            SlotNotFoundError: A hit is not in the bank (any more).
        """
        ids = list({hit.id: None for hit in hits})
        self._check_held(ids)
        with self._lock:
            cold = self._records.missing(ids)
            if cold:
                self._compile(cold, progress)
        return len(cold)

    def _compile(self, cold: Sequence[SlotId], progress: bool | None) -> None:
        self._store.forsake(cold)
        documents = self._pieces(cold)
        staged: list[StagedShard] = []
        try:
            with track("compiling references", sum(map(len, documents)), progress) as advance:
                self._records.compile(self.compiler, documents, staged, advance)
            self._store.set_tensors(staged)
        finally:
            for shard in staged:
                shard.discard()  # nothing where it was stored

    def _check_held(self, ids: Sequence[SlotId]) -> None:
        held = {slot.id for slot in self._store.slots(ids)}
        if gone := [slot for slot in ids if slot not in held]:
            raise SlotNotFoundError(f"the bank in {self.folder} does not hold (any more) the slots {gone}")

    def _pieces(self, cold: Sequence[SlotId]) -> list[dict[SlotId, str]]:
        """Return the texts that must be compiled for slots: their own, or all of their documents."""
        if self.config.context == "independent":
            return [{slot.id: slot.text} for slot in self._store.slots(cold)]
        return self._store.whole(cold)

    def stats(self, *, namespace: str | Sequence[str] | None = None) -> BankStats:
        """Count what is stored, in all or under one namespace; what all share counts in all only."""
        if namespace is not None:
            return self._store.stats(as_namespace(namespace))
        stats = self._store.stats(None)
        memory, device = self._records.cache_stats()
        return replace(
            stats,
            tensor_bytes=stats.tensor_bytes + self._records.codebook_bytes(),
            cache=memory,
            device_cache=device,
        )
