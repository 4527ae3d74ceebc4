"""What calls report that change a bank or look after it: counts, receipts, what could not be done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from trimem.types import Namespace, SlotId


@dataclass(frozen=True, slots=True)
class CacheStats:
    """What one tier holds of the tier below it.

    Attributes:
        records: Records held.
        bytes: Bytes they take.
        limit: Most bytes that may be held.
        hits: Reads that it served since the bank was opened.
        misses: Reads that went further down.
    """

    records: int
    bytes: int
    limit: int
    hits: int
    misses: int


@dataclass(frozen=True, slots=True)
class BankStats:
    """What a bank, or one namespace of it, holds.

    Attributes:
        documents: Number of documents.
        slots: Number of slots.
        compiled: Slots whose tensors are written; the others are compiled at their first read.
        tokens: Tokens over all slots.
        tensor_bytes: Bytes of all tensor files counted.
        database_bytes: Bytes of the whole database with its indexes, whatever the namespace.
        namespaces: Number of slots by namespace.
        cache: What this open bank holds in memory; None where one namespace is asked for.
        device_cache: What it holds on the model's device, where that is not the CPU; likewise.
    """

    documents: int
    slots: int
    compiled: int
    tokens: int
    tensor_bytes: int
    database_bytes: int
    namespaces: Mapping[Namespace, int]
    cache: CacheStats | None = None
    device_cache: CacheStats | None = None


@dataclass(frozen=True, slots=True)
class ErasureReceipt:
    """What was forgotten.

    Attributes:
        id: Identifies this erasure.
        namespace: Where it took place.
        documents: Documents erased whole.
        slots: Ids of the slots erased.
        records: How many of them had tensors.
        tensor_bytes: Bytes of those.
        erased_at: When, in UTC.
        reason: Why: ``"forgotten"`` where somebody asked for it, ``"expired"`` where its time was over,
            ``"evicted"`` where it made room.
    """

    id: str
    namespace: Namespace
    documents: int
    slots: tuple[SlotId, ...] = field(repr=False)
    records: int
    tensor_bytes: int
    erased_at: datetime
    reason: str = "forgotten"


@dataclass(frozen=True, slots=True)
class EvictionReport:
    """What was erased because its time was over, or to make room.

    Attributes:
        receipts: One for each namespace that lost something.
    """

    receipts: tuple[ErasureReceipt, ...]

    @property
    def slots(self) -> tuple[SlotId, ...]:
        """The slots that are gone."""
        return tuple(slot for receipt in self.receipts for slot in receipt.slots)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A file or folder that gave no text.

    Attributes:
        source: Its path as it was given, with ``/`` between its parts.
        reason: Why, in a phrase.
        unexpected: Whether it should have been readable, by its name or because it was named itself.
        error: Name of the error of :mod:`trimem.errors` that reading it alone raises.
    """

    source: str
    reason: str
    unexpected: bool
    error: str = "UnreadableFileError"


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What was done to make a bank hold what a folder holds; files by their paths.

    Attributes:
        added: Files that are new.
        changed: Files whose text replaced what it was.
        removed: Files that are gone, or hold no text any more.
        unchanged: Files that were left alone.
        skipped: What could not be read. If a file had been read before, what it said then stays.
    """

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    unchanged: tuple[str, ...] = field(repr=False)
    skipped: tuple[Unreadable, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in a bank that is not as it was written.

    Attributes:
        kind: ``"database"``, ``"bank"``, ``"document"``, ``"item"``, ``"slot"``, ``"index"``, ``"shard"`` or
            ``"stray"``.
        where: Which: a file, or the namespace and key of a document.
        what: What is wrong with it.
        slots: The slots it costs.
    """

    kind: str
    where: str
    what: str
    slots: tuple[SlotId, ...] = ()


@dataclass(frozen=True, slots=True)
class IntegrityReport:
    """What a check of a bank found.

    Attributes:
        documents: How many there are.
        slots: How many there are.
        shards: How many there are.
        problems: What is wrong; nothing where all is well.
    """

    documents: int
    slots: int
    shards: int
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Whether all is as it was written."""
        return not self.problems


@dataclass(frozen=True, slots=True)
class RepairReport:
    """What a repair of a bank did.

    Attributes:
        recompiled: Slots whose tensors were lost, and were compiled again from their texts.
        rewritten: Slots whose rows were damaged, and were made again from their documents.
        problems: What is left: name it, forget it, and remember it again.
    """

    recompiled: tuple[SlotId, ...]
    rewritten: tuple[SlotId, ...]
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class CompactReport:
    """What compacting a bank did.

    Attributes:
        shards_before: Files of tensors before.
        shards_after: Files of tensors after.
        bytes_before: Bytes of files and database before.
        bytes_after: Bytes of files and database after.
    """

    shards_before: int
    shards_after: int
    bytes_before: int
    bytes_after: int


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What an export holds.

    Attributes:
        documents: Documents.
        slots: Their slots.
        records: How many of those have their tensors in it.
        receipts: Receipts of erasures.
        bytes: Size of the file.
    """

    documents: int
    slots: int
    records: int
    receipts: int
    bytes: int


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What importing an export did.

    Attributes:
        added: Documents that are new.
        replaced: Documents that had another text, metadata, or slots under the same key.
        unchanged: Documents that were there already.
        slots: Slots of what was added or replaced.
        records: How many of those got their tensors.
        receipts: Receipts of erasures that are new.
    """

    added: int
    replaced: int
    unchanged: int
    slots: int
    records: int
    receipts: int


@dataclass(frozen=True, slots=True)
class RecompileReport:
    """What bringing a bank to another model or encoder did.

    Attributes:
        documents: Documents it holds.
        slots_before: Slots they were.
        slots: Slots they are.
        model_name: The model it is made by now.
        encoder: Fingerprint of the encoder it is made with now.
    """

    documents: int
    slots_before: int
    slots: int
    model_name: str
    encoder: str
