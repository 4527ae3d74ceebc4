"""What a bank of transit memory holds: opened, written within its slots, repaired."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trimem.banks.folder import encoder_of
from trimem.banks.identity import check_model
from trimem.banks.slot_bank import SlotBank
from trimem.banks.writer import Writer, all_at_once
from trimem.checks import as_path, shown
from trimem.errors import FingerprintMismatch, InvalidInputError
from trimem.progress import track
from trimem.reports import BankStats, RecompileReport, RepairReport
from trimem.store.capacity import Capacity
from trimem.store.metadata import Document, utc_now
from trimem.store.reader import in_batches
from trimem.store.schema import BankRow
from trimem.store.search import HybridSearch
from trimem.store.tensors import StagedShard, staging
from trimem.store.vector_codec import CodedVectors
from trimem.text.chunking import Chunk
from trimem.text.encoders import Embeddings, Encoder
from trimem.transit.bank_config import SLOTS, BankConfig, check_given
from trimem.transit.idrp import Idrp
from trimem.transit.last_encoded import LastEncoded
from trimem.transit.pretrained import pretrained
from trimem.transit.stored_vectors import to_tensors
from trimem.transit.write_control import Sorted, sort_out
from trimem.types import Namespace, SlotId

_NO_CODEC = (
    "trimem has no codec for the encoder {}: fit one to embeddings of texts like yours with trimem.transit.train.fit, "
    "or trimem transit fit-texts, and give it as codec= (--codec)"
)

LIKE = 4
"""Of how many slots near a new text it is looked whether one says the same."""


class StoredBank(SlotBank):
    """What a bank of transit memory holds, without the ways to read it."""

    mechanism = "transit"
    attachable = False

    def __init__(
        self,
        folder: Path,
        encoder: Encoder,
        codec: Idrp | None,
        given: Mapping[str, Any],
        clock: Callable[[], datetime],
    ) -> None:
        self._encoding = LastEncoded(encoder)
        super().__init__(folder, self._encoding, None, clock)
        self._given_codec = codec
        self._given = given
        self._codec: Idrp | None = None
        self._fingerprint = ""
        self._config: BankConfig | None = None

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        slots: int | None = None,
        max_error: float | None = None,
        codec: Idrp | str | Path | None = None,
        encoder: Encoder | Embeddings | str | Path | None = None,
        policy: str | None = None,
        half_life: float | None = None,
        per: str | None = None,
        surprise: float | None = None,
        create: bool = True,
        clock: Callable[[], datetime] = utc_now,
    ) -> Self:
        """Open the bank in a folder, or make a new one there.

        What is left out is as the bank has it, and for a new one the default.

        Args:
            path: The folder.
            slots: How many slots there are; 10,000 by default.
            max_error: How far off any number of an expanded vector may be; by default as the codec has it.
            codec: Compresses embeddings, or its file; by default the one that trimem has for the encoder.
            encoder: Makes the embeddings; see :func:`trimem.text.encoders.as_encoder`. By default
                the bank's own, where it is one of a hub, and for a new bank all-MiniLM-L6-v2.
            policy: Which slot makes room: ``"lfu_aged"`` (the default), ``"lfu"``, ``"lru"`` or ``"paper"``; see
                :class:`trimem.store.capacity.Capacity`.
            half_life: Slots written after which a use counts half, as many as there are by default.
            per: Whether the ``"bank"`` has the slots together, the default, or each ``"tenant"``, the first part of a
                namespace, for itself. Only then no tenant can tell from what goes that another writes.
            surprise: How far, in 1 - cosine, a new text must be from all that its namespace holds to be written. One
                that is nearer counts as a use of the slot that is, whose id is returned for it. By default all is
                written.
            create: Whether to make a bank where there is none.
            clock: Tells the moment that rows are stamped with.

        Raises:
            BankNotFoundError: There is none and ``create`` is False.
            FingerprintMismatch: The bank was made with another codec.
            InvalidInputError: The folder is a file, or a value is out of range or another than the bank's.
            CorruptTensorError: The codec cannot be read.
            SchemaVersionError: The bank was written by a newer trimem.
        """
        given = {
            "slots": slots,
            "max_error": max_error,
            "policy": policy,
            "half_life": half_life,
            "per": per,
            "surprise": surprise,
        }
        loaded = _loaded(codec)
        return cls._opened(path, create, lambda folder: cls(folder, encoder_of(folder, encoder), loaded, given, clock))

    # What the bank is made with

    @property
    def codec(self) -> Idrp:
        """What compresses embeddings.

        Raises:
            InvalidInputError: The bank is new, and trimem has no codec for its encoder.
            FingerprintMismatch: The bank was made with another codec.
            CorruptTensorError: It cannot be read.
        """
        with self._lock:
            if self._codec is None:
                self._take(self._find_codec(self._store.bank()))
            assert self._codec is not None
            return self._codec

    def _take(self, codec: Idrp) -> None:
        """Read rows by a codec from now on."""
        self._codec, self._config, self._fingerprint = codec, None, codec.fingerprint
        self._store.made_by = (codec.fingerprint, self._encoder.fingerprint)
        self._store.reader.vectors = CodedVectors(codec)
        self._search.close()
        self._search = HybridSearch(self._store.reader)

    def _keep_up(self, row: BankRow) -> None:
        """Take the codec that the bank has now, which another process may have refitted."""
        _ = self.codec
        if self._fingerprint != row.model_fingerprint:
            with self._lock:
                self._take(self._find_codec(row))
                self._store.made_by = row.model_fingerprint, row.encoder_fingerprint

    def _find_codec(self, row: BankRow | None) -> Idrp:
        name = "" if row is None else shard_of(row.model_fingerprint)
        codec = self._given_codec
        if row is not None and codec is not None and codec.fingerprint != row.model_fingerprint:
            codec = None  # it was refitted since
        own = pretrained(self._encoder.fingerprint)
        if codec is None and row is not None and own is not None and own.fingerprint == row.model_fingerprint:
            codec = own  # whatever has become of the bank's copy of it
        if codec is None and row is not None and self._store.shard(name) is not None:
            config = self._stored_config(row)
            codec = Idrp.from_tensors(config.dim, config.codec, self._store.read_shared(name))
        if codec is None:
            codec = own
        if codec is None:
            raise InvalidInputError(_NO_CODEC.format(self._encoder.fingerprint))
        if row is not None:
            check_model(self.folder, row, name_of(codec), codec.fingerprint)
        return codec

    @property
    def config(self) -> BankConfig:
        """How this bank is made."""
        if self._config is None and (row := self._store.bank()) is not None:
            self._config = self._stored_config(row)
        if self._config is not None:
            return self._config
        made = {name: value for name, value in self._given.items() if value is not None}
        codec = self.codec
        made.setdefault("max_error", codec.config.max_error)
        return BankConfig(codec.config.to_json(), codec.dim, **{"slots": SLOTS, **made})

    @property
    def capacity(self) -> Capacity:
        """How much the bank holds, for its whole life."""
        return self.config.capacity

    def _capacity_of(self, row: BankRow) -> Capacity:
        return self._stored_config(row).capacity

    def _stored_config(self, row: BankRow) -> BankConfig:
        return BankConfig.from_json(row.config)

    def _check(self, row: BankRow) -> None:
        super()._check(row)
        check_given(self.folder, self._stored_config(row), self._given)
        if self._given_codec is not None:
            check_model(self.folder, row, name_of(self._given_codec), self._given_codec.fingerprint)

    def _made_by(self) -> tuple[str, str]:
        return name_of(self.codec), self.codec.fingerprint

    # Moving

    def recompile(
        self,
        *,
        model: Any = None,
        encoder: Encoder | Embeddings | str | Path | None = None,
        codec: Idrp | str | Path | None = None,
        progress: bool | None = None,
    ) -> RecompileReport:
        """Bring the bank to another encoder or codec, from its texts; see :meth:`trimem.ExplicitBank.recompile`.

        Slots keep their ids, and how they were used.

        Args:
            model: None: no language model makes anything of transit memory.
            encoder: Makes the embeddings; None stays with the bank's.
            codec: Compresses them, or its file; None stays with the bank's where its encoder stays, and is otherwise
                the one that trimem has for the encoder.
            progress: Whether to show a bar; None shows it where there is a terminal or a notebook.

        Raises:
            InvalidInputError: Neither is given, or trimem has no codec for the encoder, or the codec is that of the
                bank's former encoder.
        """
        if model is not None or (encoder is None and codec is None):
            raise InvalidInputError("say what to bring a bank of transit memory to: give encoder, codec or both")
        return super().recompile(model=_loaded(codec), encoder=encoder, progress=progress)

    def _beside(self, folder: Path, model: Idrp | None, encoder: Encoder) -> Self:
        codec = model
        row = self._store.bank()
        assert row is not None  # there is something to recompile
        if codec is None:
            stays = encoder.fingerprint == row.encoder_fingerprint
            codec = self.codec if stays else pretrained(encoder.fingerprint)
        if codec is None:
            raise InvalidInputError(_NO_CODEC.format(encoder.fingerprint))
        if codec.fingerprint == row.model_fingerprint and encoder.fingerprint != row.encoder_fingerprint:
            raise InvalidInputError(
                f"the codec is that of the encoder {row.encoder_fingerprint}: fit another to what "
                f"{encoder.fingerprint} makes of texts like yours (trimem transit fit-texts), and give that as codec="
            )
        made = {each: getattr(self.config, each) for each in self._given}
        return self.open(folder, codec=codec, encoder=encoder, clock=self._clock, **made)

    def _settle(self, made: Self) -> None:
        super()._settle(made)
        self._encoding = self._encoder = made._encoding
        self._given_codec = None
        self._take(made.codec)

    # Writing

    def _begin(self) -> BankRow:
        if (held := self._store.bank()) is not None:
            self._keep_up(held)
        codec = self.codec
        row = super()._begin()
        self._share(codec)
        return row

    def _share(self, codec: Idrp) -> None:
        name = shard_of(codec.fingerprint)
        if self._store.shard(name) is None:
            self._store.share(self._store.tensors.stage({name: codec.to_tensors()}, {}, name))

    def _write(
        self, namespace: Namespace, documents: Sequence[Document], *, compile: bool, progress: bool | None
    ) -> dict[str, list[SlotId]]:
        while True:
            try:
                return self._write_coded(namespace, documents, compile, progress)
            except FingerprintMismatch:
                row = self._store.bank()
                if row is None or row.model_fingerprint == self._fingerprint:
                    raise
                self._keep_up(row)  # another process refitted the codec, and nothing was stored by the old one

    def _write_coded(
        self, namespace: Namespace, documents: Sequence[Document], compile: bool, progress: bool | None
    ) -> dict[str, list[SlotId]]:
        config = self.config
        writer = Writer(self._store, self._encoding, _whole, _words, self._drop, config.capacity)
        stage = all_at_once(self._stage) if compile else None
        if config.surprise is None or self._store.made_from is not None:  # what a bank holds is not weighed again
            return writer.write(namespace, documents, "compressing texts", stage, progress)
        found = self._sorted_out(namespace, documents, config.surprise)
        slots = writer.write(namespace, found.new, "compressing texts", stage, progress)
        stood_for = {key: [slot] for key, slot in found.held.items()}
        stood_for |= {key: slots[other] for key, other in found.same.items()}
        for slot in (slot for several in stood_for.values() for slot in several):
            self._uses.note([slot])
        return slots | stood_for

    def _sorted_out(self, namespace: Namespace, documents: Sequence[Document], surprise: float) -> Sorted:
        """Tell which documents say what is not there; one under a key that there is takes that one's place."""

        def nearest(vector: NDArray[np.float32]) -> tuple[SlotId, float] | None:
            hits = self._search("", vector, LIKE, namespace=namespace, where=None)
            rows = self._store.reader.codes([hit.id for hit in hits if hit.slot.namespace == namespace])
            if not rows:
                return None
            cosines = self._store.reader.vectors.unpack(list(rows.values())) @ vector
            best = int(cosines.argmax())
            return list(rows)[best], float(cosines[best])

        replacing = self._store.documents(namespace, [document.key for document in documents])
        fresh = [document for document in documents if document.key not in replacing]
        if not fresh:
            return Sorted(list(documents))
        vectors = self._encoding.encode_documents([document.text for document in fresh])
        found = sort_out(fresh, vectors, surprise, nearest)
        found.new.extend(document for document in documents if document.key in replacing)
        return found

    def _stage(self, texts: Mapping[SlotId, str], staged: list[StagedShard]) -> None:
        vectors = torch.from_numpy(self._encoding.encode_documents(list(texts.values())))
        staged.append(self._staged(self.codec, list(texts), vectors))

    def _staged(self, codec: Idrp, slots: Sequence[SlotId], vectors: Tensor) -> StagedShard:
        records = to_tensors(codec.compress_within(vectors, self.config.max_error))
        return self._store.tensors.stage(dict(zip(slots, records, strict=True)), {"codec": codec.fingerprint})

    def _compile(self, slots: Sequence[SlotId], progress: bool | None) -> None:
        self._store.forsake(slots)
        with staging() as staged:
            with track("compressing texts", len(slots), progress) as advance:
                for some in in_batches(slots):
                    self._stage({slot.id: slot.text for slot in self._store.slots(some)}, staged)
                    advance(len(some))
            self._store.set_tensors(staged)

    def stats(self, *, namespace: str | Sequence[str] | None = None) -> BankStats:
        """Count what is stored, in all or under one namespace; the codec counts in all only."""
        stats = super().stats(namespace=namespace)
        row = None if namespace is not None else self._store.bank()
        shard = None if row is None else self._store.shard(shard_of(row.model_fingerprint))
        return stats if shard is None else replace(stats, tensor_bytes=stats.tensor_bytes + shard.bytes)

    # Upkeep

    def repair(self, *, progress: bool | None = None) -> RepairReport:
        """Make again what is damaged and can be made again; see :meth:`FolderBank.repair`.

        Codes are made again from texts. Where the codec itself is damaged and neither trimem's own, it must be given
        when the bank is opened.
        """
        if self._store.bank() is None:
            return super().repair(progress=progress)
        with self._lock:
            _ = self.codec  # before what is damaged of it goes
            report = super().repair(progress=progress)
            self._begin()
        return replace(report, problems=self.verify().problems)


def _loaded(codec: Idrp | str | Path | None) -> Idrp | None:
    """Return a codec that may be given as its file.

    Raises:
        InvalidInputError: It is neither.
        CorruptTensorError: It cannot be read.
    """
    if codec is not None and not isinstance(codec, Idrp | str | Path):
        raise InvalidInputError(f"codec must be one of transit memory, its file, or None, got {shown(codec)}")
    return Idrp.load(as_path(codec, "codec")) if isinstance(codec, str | Path) else codec


def name_of(codec: Idrp) -> str:
    """Return what to call a codec in messages."""
    return f"a transit codec of {codec.dim} to {codec.config.code_dim} numbers in {codec.config.numbers}"


def shard_of(fingerprint: str) -> str:
    """Return under which name a codec lies beside the slots' tensors."""
    return f"codec-{fingerprint}"


def _whole(text: str) -> list[Chunk]:
    return [Chunk(text, 0, len(text), 1)]


def _words(text: str) -> int:
    return len(text.split())
