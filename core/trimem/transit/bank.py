"""TransitBank: a fixed number of slots of texts, found by their codes; what is used stays, what is not makes room."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trimem.banks.identity import check_model
from trimem.banks.slot_bank import SlotBank
from trimem.banks.writer import Writer, encode
from trimem.errors import InvalidInputError, SlotNotFoundError
from trimem.progress import track
from trimem.store.capacity import Uses
from trimem.store.metadata import Document, utc_now
from trimem.store.reader import in_batches
from trimem.store.schema import BankRow
from trimem.store.search import HybridSearch
from trimem.store.tensors import StagedShard
from trimem.store.vector_codec import CodedVectors
from trimem.text.chunking import Chunk
from trimem.text.encoders import Embeddings, Encoder, as_encoder
from trimem.transit.bank_config import SLOTS, BankConfig, check_given
from trimem.transit.idrp import Idrp
from trimem.transit.last_encoded import LastEncoded
from trimem.transit.numbers import NUMBERS
from trimem.transit.pretrained import pretrained
from trimem.transit.refit import Refit, refitted
from trimem.transit.stored_vectors import expand, to_tensors
from trimem.transit.write_control import Sorted, sort_out
from trimem.types import BankStats, Hit, Namespace, RepairReport, SlotId, check_k

if TYPE_CHECKING:
    from trimem.lm.model import LanguageModel

LIKE = 4
"""Of how many slots near a new text it is looked whether one says the same."""

T = TypeVar("T")

READS = 64
"""After how many reads they are written down: the most that a crash forgets."""


class TransitBank(SlotBank):
    """Texts in a fixed number of slots, their embeddings as short codes.

    Open one with :meth:`open`. When all slots are taken, what was used least makes room and is erased, with a
    receipt that says so. Any thread may use it.
    """

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
        self._uses = Uses()

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
            encoder: Makes the embeddings; see :func:`trimem.text.encoders.as_encoder`.
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
        loaded = Idrp.load(Path(codec)) if isinstance(codec, str | Path) else codec
        return cls._opened(path, create, lambda folder: cls(folder, as_encoder(encoder), loaded, given, clock))

    def close(self) -> None:
        self._write_uses()
        super().close()

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
        name = "" if row is None else _shard_of(row.model_fingerprint)
        codec = self._given_codec
        if row is not None and codec is not None and codec.fingerprint != row.model_fingerprint:
            codec = None  # it was refitted since
        if codec is None and row is not None and self._store.shard(name) is not None:
            config = self._stored_config(row)
            codec = Idrp.from_tensors(config.dim, config.codec, self._store.read_shared(name))
        if codec is None:
            codec = pretrained(self._encoder.fingerprint)
        if codec is None:
            raise InvalidInputError(
                f"trimem has no codec for the encoder {self._encoder.fingerprint}: fit one to embeddings of texts like "
                "yours with trimem.transit.train.fit, or trimem transit fit-texts, and give it as codec="
            )
        if row is not None:
            check_model(self.folder, row, _name(codec), codec.fingerprint)
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

    def _stored_config(self, row: BankRow) -> BankConfig:
        return BankConfig.from_json(row.config)

    def _check(self, row: BankRow) -> None:
        super()._check(row)
        check_given(self.folder, self._stored_config(row), self._given)
        if self._given_codec is not None:
            check_model(self.folder, row, _name(self._given_codec), self._given_codec.fingerprint)

    def _made_by(self) -> tuple[str, str]:
        return _name(self.codec), self.codec.fingerprint

    # Writing

    def _begin(self) -> BankRow:
        if (held := self._store.bank()) is not None:
            self._keep_up(held)
        codec = self.codec
        row = super()._begin()
        self._share(codec)
        return row

    def _share(self, codec: Idrp) -> None:
        name = _shard_of(codec.fingerprint)
        if self._store.shard(name) is None:
            self._store.share(self._store.tensors.stage({name: codec.to_tensors()}, {}, name))

    def _write(
        self, namespace: Namespace, documents: Sequence[Document], *, compile: bool, progress: bool | None
    ) -> dict[str, list[SlotId]]:
        def stage(
            pieces: Sequence[Mapping[SlotId, str]], staged: list[StagedShard], advance: Callable[[int], None]
        ) -> None:
            self._stage({slot: text for piece in pieces for slot, text in piece.items()}, staged)
            advance(sum(map(len, pieces)))

        self._write_uses()  # before anything makes room
        config = self.config
        writer = Writer(self._store, self._encoding, _whole, _words, self._drop, config.capacity)
        if config.surprise is None:
            return writer.write(namespace, documents, "compressing texts", stage if compile else None, progress)
        found = self._sorted_out(namespace, documents, config.surprise)
        slots = writer.write(namespace, found.new, "compressing texts", stage if compile else None, progress)
        stood_for = {key: [slot] for key, slot in found.held.items()}
        stood_for |= {key: slots[other] for key, other in found.same.items()}
        for slot in (slot for several in stood_for.values() for slot in several):
            self._uses.note([slot], self._clock())
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
        staged: list[StagedShard] = []
        try:
            with track("compressing texts", len(slots), progress) as advance:
                for some in in_batches(slots):
                    self._stage({slot.id: slot.text for slot in self._store.slots(some)}, staged)
                    advance(len(some))
            self._store.set_tensors(staged)
        finally:
            for shard in staged:
                shard.discard()  # nothing where it was stored

    def refit(self, *, steps: int = 0, seed: int = 0, progress: bool | None = None) -> Refit:
        """Fit the codec to what the bank holds, and store all slots by it; nothing if it would not be better.

        All texts are encoded again, O(texts), and the bound is kept anew. Rows, tensors and codec change in one
        transaction, so whatever interrupts it, and whoever reads meanwhile, finds the bank as it was or as it is.

        Args:
            steps: Of training that nearest neighbours stay so; 0 is PCA.
            seed: Of training.
            progress: Whether to show a bar; None shows it where there is a terminal or a notebook.

        Raises:
            InvalidInputError: The bank holds fewer than three texts.
        """
        encoded: dict[SlotId, tuple[NDArray[np.float32], NDArray[np.float32] | None]] = {}
        with self._lock:
            if (row := self._store.bank()) is not None:
                self._keep_up(row)
            codec, better, lost = self.codec, None, (0.0, 0.0)
            missing = self._store.all_slots()
            while True:
                self._store.erase_expired()  # which nobody reads any more
                with track("encoding texts", len(missing), progress) as advance:
                    for some in in_batches(missing):
                        encoded |= encode(self._encoding, {slot.id: slot.text for slot in self._store.slots(some)})
                        advance(len(some))
                if better is None:
                    better, lost = refitted(codec, list(encoded.values()), steps, seed, progress)
                    if lost[1] >= lost[0]:
                        return Refit(len(encoded), *lost, kept=False)
                missing = self._recode(better, encoded)
                if not missing:
                    self._take(better)
                    return Refit(len(encoded), *lost, kept=True)

    def _recode(
        self, codec: Idrp, encoded: Mapping[SlotId, tuple[NDArray[np.float32], NDArray[np.float32] | None]]
    ) -> list[SlotId]:
        """Store all slots by a codec; see :meth:`trimem.store.metadata.MetadataStore.recode`."""
        rows = CodedVectors(codec)
        codes = {
            slot: (rows.pack(whole), None if parts is None else rows.pack(parts, sentences=True))
            for slot, (whole, parts) in encoded.items()
        }
        name = _shard_of(codec.fingerprint)
        staged = [self._store.tensors.stage({name: codec.to_tensors()}, {}, name)]
        try:
            for some in in_batches(encoded):
                vectors = torch.from_numpy(np.stack([encoded[slot][0] for slot in some]))
                staged.append(self._staged(codec, some, vectors))
            config = replace(self.config, codec=codec.config.to_json())
            made_by = _name(codec), codec.fingerprint
            return self._store.recode(codes, staged[1:], staged[0], made_by, config.to_json())
        finally:
            for shard in staged:
                shard.discard()  # nothing where it was stored

    def _write_uses(self) -> None:
        uses = self._uses.take()
        if uses:
            self._store.write_uses(uses, self.config.capacity.writes)

    # Reading

    def recall(
        self,
        query: str,
        k: int = 4,
        *,
        namespace: str | Sequence[str],
        where: Mapping[str, Any] | None = None,
        min_trust: float = 0.0,
        by: Literal["words_and_meaning", "meaning"] = "words_and_meaning",
        touch: bool = True,
    ) -> list[Hit]:
        """Return the best ``k`` slots for ``query``, best first; see :meth:`trimem.Bank.recall`.

        The query's embedding is compared with what the codes stand for, every one of up to
        :data:`trimem.store.vectors.EXACT_SLOTS`. Each hit says how far off that is expected to be.

        Args:
            query: What to look for.
            k: How many at most.
            namespace: Where to look, and below.
            where: Metadata a slot must have, or how it must compare.
            min_trust: How far a slot must be trusted at least, in [0, 1].
            by: Words of the text and meaning at once, or meaning alone.
            touch: Whether it counts as use of what is found.

        Raises:
            InvalidInputError: The query is empty, k is less than 1, or ``by`` is something else.
            FingerprintMismatch: The bank was made with another encoder or codec.
        """
        if by not in ("words_and_meaning", "meaning"):
            raise InvalidInputError(f'by must be "words_and_meaning" or "meaning", got {by!r}')
        check_k(k)
        words = query if by == "words_and_meaning" else ""
        hits = self._settled(lambda: self._told(self._finder(query, words, namespace, where, min_trust)(k)))
        if touch and hits and self._uses.note([hit.id for hit in hits], self._clock()) >= READS:
            self._write_uses()
        return hits

    def _told(self, hits: Sequence[Hit]) -> list[Hit]:
        return [replace(hit, expected_error=error) for hit, error in zip(hits, self._errors(hits), strict=True)]

    def _settled(self, read: Callable[[], T]) -> T:
        """Return what is read by the codec that the bank has: again, if it was refitted meanwhile."""
        while True:
            row = self._store.bank()
            if row is not None:
                self._keep_up(row)
            found = read()
            now = self._store.bank()
            if row is None or now is None or now.model_fingerprint == row.model_fingerprint:
                return found

    def _errors(self, hits: Sequence[Hit]) -> list[float | None]:
        """Return how far off each hit's vector is likely to be; None where it went meanwhile."""
        rows = self._store.reader.codes([hit.id for hit in hits])
        if not rows:
            return [None] * len(hits)
        codes = torch.frombuffer(bytearray().join(rows.values()), dtype=NUMBERS[self.codec.config.numbers])
        errors = self.codec.expected_error(codes.view(len(rows), -1))
        bound = self.config.max_error
        by_slot = dict(zip(rows, (errors if bound is None else errors.clamp_max(bound)).tolist(), strict=True))
        return [by_slot.get(hit.id) for hit in hits]

    def vectors(self, ids: Sequence[SlotId]) -> Tensor:
        """Return what slots hold, expanded, within the bank's bound: (n, dim) in float32.

        Args:
            ids: Of slots, as :meth:`remember` and hits give them.

        Raises:
            SlotNotFoundError: One is not in the bank (any more).
            CorruptTensorError: The tensors of one cannot be read.
        """
        wanted = list(dict.fromkeys(ids))
        held = {slot.id for slot in self._store.slots(wanted)}
        if gone := [slot for slot in wanted if slot not in held]:
            raise SlotNotFoundError(f"the bank in {self.folder} does not hold (any more) the slots {gone}")
        with self._lock:
            if cold := [slot for slot in wanted if slot not in self._store.places(wanted)]:
                self._compile(cold, False)
        expanded = self._settled(lambda: expand(self.codec, [self._record(slot) for slot in wanted]))
        row = {slot: i for i, slot in enumerate(wanted)}
        return expanded[[row[slot] for slot in ids]]

    def _record(self, slot: SlotId) -> dict[str, Tensor]:
        tensors = self._store.read(slot)
        if tensors is None:
            raise SlotNotFoundError(f"the bank in {self.folder} does not hold slot {slot} any more")
        return tensors

    def attach(self, model: LanguageModel, *, hits: Sequence[Hit]) -> AbstractContextManager[Any]:
        """Refuse: what transit memory holds of a text is its embedding, which no model attends to.

        Raises:
            InvalidInputError: Always.
        """
        raise InvalidInputError(
            "a bank of transit memory holds texts and their embeddings, which a model cannot attend to: put hit.text "
            "into the prompt, or remember these texts in an ExplicitBank and attach that"
        )

    def stats(self, *, namespace: str | Sequence[str] | None = None) -> BankStats:
        """Count what is stored, in all or under one namespace; the codec counts in all only."""
        stats = super().stats(namespace=namespace)
        row = None if namespace is not None else self._store.bank()
        shard = None if row is None else self._store.shard(_shard_of(row.model_fingerprint))
        return stats if shard is None else replace(stats, tensor_bytes=stats.tensor_bytes + shard.bytes)

    # Upkeep

    def repair(self, *, progress: bool | None = None) -> RepairReport:
        """Make again what is damaged and can be made again; see :meth:`SlotBank.repair`.

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


def _name(codec: Idrp) -> str:
    return f"a transit codec of {codec.dim} to {codec.config.code_dim} numbers in {codec.config.numbers}"


def _shard_of(fingerprint: str) -> str:
    """Return under which name a codec lies beside the slots' tensors."""
    return f"codec-{fingerprint}"


def _whole(text: str) -> list[Chunk]:
    return [Chunk(text, 0, len(text), 1)]


def _words(text: str) -> int:
    return len(text.split())
