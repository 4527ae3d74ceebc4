"""What an explicit bank holds: opened, compiled, kept in step with a folder."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Self

from trimem.banks.folder import encoder_of
from trimem.banks.identity import check_model
from trimem.banks.slot_bank import SlotBank
from trimem.banks.writer import Writer
from trimem.checks import as_namespace, several, shown, typed
from trimem.errors import FingerprintMismatch, InvalidInputError
from trimem.explicit.background import Background
from trimem.explicit.cache import RecordCache
from trimem.explicit.codec import GIVEN, FittedCodec
from trimem.explicit.compiler import Compiler
from trimem.explicit.config import ExplicitConfig
from trimem.explicit.records import Records
from trimem.explicit.sync import sync
from trimem.lm.load import load_model, model_given
from trimem.lm.model import LanguageModel
from trimem.progress import track
from trimem.reports import BankStats, SyncReport
from trimem.store.capacity import Capacity
from trimem.store.metadata import Document, utc_now
from trimem.store.schema import BankRow
from trimem.store.tensors import StagedShard, staging
from trimem.text.encoders import Embeddings, Encoder
from trimem.text.readers import MAX_BYTES
from trimem.types import Hit, Namespace, SlotId

CACHE_BYTES = 256 << 20


class StoredBank(SlotBank):
    """What a bank of explicit memory holds, without the ways to read it."""

    mechanism = "explicit"

    def __init__(
        self,
        folder: Path,
        model: LanguageModel | str | Path | None,
        encoder: Encoder,
        config: ExplicitConfig | None,
        cache_bytes: int,
        device_cache_bytes: int,
        clock: Callable[[], datetime],
        codec: FittedCodec | None = None,
        capacity: Capacity | None = None,
    ) -> None:
        if codec is not None and not isinstance(codec, FittedCodec):
            raise InvalidInputError(f"codec must have fingerprint, encode and decode, or be None, got {shown(codec)}")
        self._given_codec = codec
        typed(config, "config", ExplicitConfig)
        given = None if config is None else self._with_codec(config)
        super().__init__(folder, encoder, given, clock, capacity)
        self._given_model = model_given(model)
        self._cache_bytes = cache_bytes, device_cache_bytes
        self._records = self._new_records()
        self._background = Background()

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
        codec: FittedCodec | None = None,
        capacity: Capacity | None = None,
    ) -> Self:
        """Open the bank in a folder, or make a new one there.

        Args:
            path: The folder.
            model: The model that compiles and reads, or what :func:`trimem.load_model` takes, which is
                loaded when it is first needed. None is the one the bank was made by, and for a new
                bank the small default.
            encoder: What finds slots by meaning; see :func:`trimem.text.encoders.as_encoder`. By default
                the bank's own, where it is one of a hub, and for a new bank all-MiniLM-L6-v2.
            config: How to compile; None is what the bank has, and for a new one the defaults.
            create: Whether to make a bank where there is none.
            cache_bytes: Most bytes of decoded key-values that are kept in memory; what was read least
                lately goes first.
            device_cache_bytes: The same on the model's device, where that is not the CPU.
            clock: Tells the moment that rows are stamped with and expire by.
            codec: Stores key-values instead of the configuration's: one that was fitted to the model's. It is
                needed whenever the bank is opened.
            capacity: The most that the bank holds; what this one writes makes room. It is not stored with the bank.

        Raises:
            BankNotFoundError: There is none and ``create`` is False.
            FingerprintMismatch: The bank was compiled by another model, or with another codec.
            InvalidInputError: The folder is a file, or ``config`` differs from the bank's.
            SchemaVersionError: The bank was written by a newer trimem.
        """
        return cls._opened(
            path,
            create,
            lambda folder: cls(
                folder,
                model,
                encoder_of(folder, encoder),
                config,
                cache_bytes,
                device_cache_bytes,
                clock,
                codec,
                capacity,
            ),
        )

    def _new_records(self) -> Records:
        memory, device = self._cache_bytes
        return Records(self._store, RecordCache(memory), RecordCache(device), self._given_codec)

    def close(self) -> None:
        self._background.close()
        super().close()

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
                check_model(self.folder, row, lm.name, lm.fingerprint)
            return lm

    @cached_property
    def config(self) -> ExplicitConfig:
        """How this bank is compiled."""
        if isinstance(self._given_config, ExplicitConfig):
            return self._given_config
        row = self._store.bank()
        return self._with_codec(ExplicitConfig()) if row is None else self._stored_config(row)

    def _with_codec(self, config: ExplicitConfig) -> ExplicitConfig:
        """Return a configuration with the codec that the bank was opened with."""
        codec = self._given_codec
        return config if codec is None else replace(config, codec=f"{GIVEN}{codec.fingerprint}")

    def _stored_config(self, row: BankRow) -> ExplicitConfig:
        return ExplicitConfig.from_json(row.config)

    def _adopt(self, row: BankRow) -> None:
        super()._adopt(row)
        if "model" in self.__dict__:
            check_model(self.folder, row, self.model.name, self.model.fingerprint)
        self.__dict__.pop("compiler", None)

    def _check(self, row: BankRow) -> None:
        super()._check(row)
        made_with, given = self._stored_config(row).codec, self._with_codec(ExplicitConfig()).codec
        if made_with != given and GIVEN in made_with + given:
            raise FingerprintMismatch(
                f"the key-values in {self.folder} are stored in {made_with}, the codec given is {given}: open the bank "
                "with the codec it was made with, codec= if that was one of your own"
            )
        if isinstance(self._given_model, LanguageModel):
            check_model(self.folder, row, self._given_model.name, self._given_model.fingerprint)

    @cached_property
    def compiler(self) -> Compiler:
        """The model with the bank's configuration.

        Raises:
            UnsupportedModelError: The model's keys cannot be moved.
        """
        with self._lock:
            return Compiler(self.model, self.config)

    # Moving

    def _beside(self, folder: Path, model: LanguageModel | str | Path | None, encoder: Encoder) -> Self:
        made_by = self.model if model is None else model
        return self.open(folder, model=made_by, encoder=encoder, config=self.config, clock=self._clock)

    def _settle(self, made: Self) -> None:
        super()._settle(made)
        self.__dict__.pop("compiler", None)
        self.model = self._given_model = made.model
        self._records = self._new_records()

    # Writing

    def _made_by(self) -> tuple[str, str]:
        return self.model.name, self.model.fingerprint

    @property
    def _siblings(self) -> bool:
        return self.config.context == "document"

    def _drop(self, slots: Collection[SlotId]) -> None:
        self._records.drop(slots)

    def _write(
        self, namespace: Namespace, documents: Sequence[Document], *, compile: bool, progress: bool | None
    ) -> dict[str, list[SlotId]]:
        def stage(
            pieces: Sequence[Mapping[SlotId, str]], staged: list[StagedShard], advance: Callable[[int], None]
        ) -> None:
            self._records.compile(self.compiler, pieces, staged, advance)

        compiler = self.compiler
        writer = Writer(
            self._store,
            self._encoder,
            compiler.chunks,
            lambda text: len(compiler.reference(text)),
            self._drop,
            self.capacity,
        )
        what = "compiling references" if compile else "indexing references"
        return writer.write(namespace, documents, what, stage if compile else None, progress)

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
            InvalidInputError: They are no hits.
            SlotNotFoundError: A hit is not in the bank (any more).
        """
        ids = list({hit.id: None for hit in several(hits, "hits", Hit)})
        self._store.check_held(ids)
        with self._lock:
            cold = self._records.missing(ids)
            if cold:
                self._compile(cold, progress)
        return len(cold)

    def _compile(self, cold: Sequence[SlotId], progress: bool | None) -> None:
        self._begin()  # it may hold items alone, which no model had to do with so far
        self._store.forsake(cold)
        documents = self._pieces(cold)
        with staging() as staged:
            with track("compiling references", sum(map(len, documents)), progress) as advance:
                self._records.compile(self.compiler, documents, staged, advance)
            self._store.set_tensors(staged)
            if self.capacity is not None and self.capacity.tensor_bytes is not None:
                self._uses.write()
                self._store.erase_excess(self.capacity, wait=0)

    def _pieces(self, cold: Sequence[SlotId]) -> list[dict[SlotId, str]]:
        """Return the texts that must be compiled for slots: their own, or all of their documents."""
        if self.config.context == "independent":
            return [{slot.id: slot.text} for slot in self._store.slots(cold)]
        return self._store.whole(cold)

    def stats(self, *, namespace: str | Sequence[str] | None = None) -> BankStats:
        """Count what is stored, in all or under one namespace; what all share counts in all only."""
        stats = super().stats(namespace=namespace)
        if namespace is not None:
            return stats
        memory, device = self._records.cache_stats()
        return replace(
            stats,
            tensor_bytes=stats.tensor_bytes + self._records.codebook_bytes(),
            cache=memory,
            device_cache=device,
        )
