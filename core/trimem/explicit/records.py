"""Records by slot: written as they are compiled, read from the disk, compiled where they are missing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import torch
from torch import Tensor

from trimem.errors import CorruptTensorError
from trimem.explicit.cache import RecordCache
from trimem.explicit.codec import Codec, FittedCodec, codec
from trimem.explicit.compiler import Compiler
from trimem.explicit.product_quantization import ProductQuantization
from trimem.explicit.record import Record, rows
from trimem.reports import CacheStats
from trimem.store.metadata import MetadataStore
from trimem.store.tensors import StagedShard
from trimem.types import SlotId

CODEBOOK = "codebook"
"""Under which name the codebooks of product quantisation lie beside the records."""

TRAINING_ROWS = 40_000
"""On how many key-values they are trained: half a minute of one core."""


class Records:
    """The records of a bank, which can all be made again from the texts of their slots.

    They lie in up to three tiers: files, which are memory-mapped; decoded in memory; and, where the model
    is elsewhere, decoded on its device.

    Args:
        store: Knows where they lie.
        memory: Holds those that were read lately, decoded.
        device: Holds those that were read last, on the model's device; idle where that is the CPU.
        given: The codec that the bank was opened with, if it was.
    """

    def __init__(
        self, store: MetadataStore, memory: RecordCache, device: RecordCache, given: FittedCodec | None = None
    ) -> None:
        self._store = store
        self._memory = memory
        self._device = device
        self._given = given
        self._trained: ProductQuantization | None = None

    def compile(
        self,
        compiler: Compiler,
        documents: Sequence[Mapping[SlotId, str]],
        staged: list[StagedShard],
        advance: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Compile slots and stage their records.

        Args:
            compiler: Of the bank's model.
            documents: Texts by slot, the slots of each document in order.
            staged: Gets a shard after each batch, so that what is staged is known even if the rest fails.
            advance: Called with the number of slots done, after each batch.
        """
        texts = [list(document.values()) for document in documents]
        slots = [slot for document in documents for slot in document]
        made_by = {"model": compiler.lm.fingerprint}
        for batch in compiler.compile(texts):
            encoder = self._codec(compiler, train_on=list(batch.values()))
            packed = {slots[i]: pack(record, encoder) for i, record in batch.items()}
            staged.append(self._store.tensors.stage(packed, made_by))
            advance(len(batch))

    def missing(self, slots: Collection[SlotId]) -> list[SlotId]:
        """Return those slots that have no record, or whose file somebody removed."""
        places = self._store.places(slots)
        there = {shard: self._store.tensors.path(shard).exists() for shard in {p.shard for p in places.values()}}
        return [slot for slot in slots if slot not in places or not there[places[slot].shard]]

    def read(self, compiler: Compiler, slots: Sequence[SlotId], most: Sequence[int | None]) -> list[Record]:
        """Read the best tokens of records from the nearest tier that has them, and keep them in those above.

        What is not asked for is not decoded.

        Args:
            compiler: Of the bank's model.
            slots: Which.
            most: Tokens a head to read of each; None reads all that are stored.

        Raises:
            CorruptTensorError: One cannot be read.
            FingerprintMismatch: The bank was brought to another model since it was opened.
        """
        records = [self._load(compiler, slot, tokens) for slot, tokens in zip(slots, most, strict=True)]
        self._store.check_made_by()  # another process may have brought the bank to another model meanwhile
        return records

    def drop(self, slots: Collection[SlotId]) -> None:
        """Let go of what is held of slots."""
        for tier in (self._device, self._memory):
            tier.drop(slots)

    def cache_stats(self) -> tuple[CacheStats, CacheStats]:
        """Return what is held in memory and on the model's device."""
        return self._memory.stats(), self._device.stats()

    def codebook_bytes(self) -> int:
        """Return the bytes of the codebooks that the records are decoded with; 0 if there are none."""
        return sum(shard.bytes for shard in self._store.shared() if shard.name.startswith(CODEBOOK))

    def _codec(self, compiler: Compiler, train_on: Sequence[Record] = ()) -> Codec:
        """Return the bank's codec; product quantisation is trained on the first records it is to store."""
        if self._given is not None:
            return self._given
        if compiler.config.codec != ProductQuantization.name:
            return codec(compiler.config.codec)
        if self._trained is None:
            name = f"{CODEBOOK}-{compiler.lm.fingerprint[:16]}"  # two models' lie in one folder for a moment
            if self._store.shard(CODEBOOK) is not None:
                name = CODEBOOK  # of an older trimem
            if train_on and self._store.shard(name) is None:
                key, value = (torch.cat([getattr(record, part) for record in train_on]) for part in ("key", "value"))
                drawn = torch.randperm(len(key), generator=torch.Generator().manual_seed(0))[:TRAINING_ROWS]
                trained = ProductQuantization.train(key[drawn], value[drawn]).to_tensors()
                self._store.share(self._store.tensors.stage({name: trained}, {}, name))
            self._trained = ProductQuantization.from_tensors(self._store.read_shared(name))
        return self._trained

    def _load(self, compiler: Compiler, slot: SlotId, most: int | None) -> Record:
        device = compiler.lm.device
        elsewhere = device.type != "cpu"
        if elsewhere and (record := self._device.get(slot, most)) is not None:
            return record
        record = self._memory.get(slot, most)
        if record is None:
            record = self._read(compiler, slot, most)
            self._memory.put(slot, most, record)
        if elsewhere:
            record = record.to(device)
            self._device.put(slot, most, record)
        return record

    def _read(self, compiler: Compiler, slot: SlotId, most: int | None) -> Record:
        tensors = self._store.read(slot)
        if tensors is None:
            raise CorruptTensorError(f"slot {slot} has no tensors (any more): recall again")
        try:
            if tensors["counts"].shape != compiler.most.shape:
                raise IndexError(f"heads of {tuple(tensors['counts'].shape)} instead of {tuple(compiler.most.shape)}")
            return unpack(tensors, self._codec(compiler), compiler.lm.dtype, most)
        except (KeyError, IndexError, ValueError, RuntimeError) as error:
            raise CorruptTensorError(
                f"slot {slot} is not what a record of this bank holds: {error}. Run trimem repair, and it is compiled "
                "again from its stored text"
            ) from error


def pack(record: Record, codec: Codec) -> dict[str, Tensor]:
    """Return the tensors that are stored of a record."""
    head, _ = rows(record.counts)
    small = torch.uint8 if record.tokens <= 256 else torch.int32
    return {
        **codec.encode(record.key, record.value, head, record.counts.numel()),
        "token": record.token.to(small),
        "counts": record.counts.to(torch.int16),
        "span": torch.tensor([record.start, record.tokens], dtype=torch.int32),
    }


def unpack(tensors: Mapping[str, Tensor], codec: Codec, dtype: torch.dtype, most: int | None = None) -> Record:
    """Read what :func:`pack` made, or the best ``most`` tokens of each head of it.

    All is copied: what is stored is a file mapped into memory, which somebody may truncate.
    """
    counts = tensors["counts"].long()
    if most is not None:
        counts = counts.clamp(max=most)
    head, _ = rows(counts)
    key, value = codec.decode(tensors, head, dtype)
    start, tokens = tensors["span"].tolist()
    return Record(key, value, tensors["token"][: len(head)].clone(), counts, tokens, start)
