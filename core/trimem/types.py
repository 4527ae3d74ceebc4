"""The values that cross trimem's borders: namespaces, slots, hits, answers, receipts.

Nothing here imports torch, so that a store or an adapter can speak of slots without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeAlias

from trimem.checks import shown
from trimem.errors import InvalidInputError, InvalidNamespaceError

Namespace: TypeAlias = tuple[str, ...]
SlotId: TypeAlias = str
Metadata: TypeAlias = Mapping[str, Any]
Message: TypeAlias = Mapping[str, str]
"""What was said to a model or by it, as transformers has it: ``role`` is user or assistant, ``content`` the text."""


MOST_HITS = 2**31 - 1
"""That can be asked for at once; a search multiplies it, and SQLite counts to 2**63."""

_LONGEST = timedelta(days=100_000)  # what is added to now must be a date

# calendar has them in the language of the machine, where the same turn would then be another text
_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)


def as_namespace(namespace: str | Sequence[str]) -> Namespace:
    """Check a namespace and return it as a tuple; a plain string is a tuple of one.

    A namespace is a path of tenants: what is remembered under ``("acme", "hr")`` is read by
    ``("acme", "hr")`` and by ``("acme",)``, and by nobody else.

    Raises:
        InvalidNamespaceError: It is empty, or a part is no string, empty, or holds ``/`` or a
            control character.
    """
    if not isinstance(namespace, Iterable):
        raise InvalidNamespaceError(f"a namespace is a string or several, got {type(namespace).__name__}")
    parts = (namespace,) if isinstance(namespace, str) else tuple(namespace)
    for part in parts:
        if not isinstance(part, str) or not part or "/" in part or not part.isprintable():
            raise InvalidNamespaceError(
                f"a namespace is one or more non-empty strings of printable characters without '/', "
                f'got {shown(namespace)}; write ("acme", "hr") for what the command line calls acme/hr'
            )
    if not parts:
        raise InvalidNamespaceError("a namespace is required and must not be empty: it says whose memory is meant")
    return parts


def check_text(text: object, what: str) -> str:
    """Return ``text``, which is to be stored or searched for.

    Args:
        text: What was given.
        what: What it is, for the message.

    Raises:
        InvalidInputError: It is no string, empty, or not made of whole characters.
    """
    if not isinstance(text, str) or not text.strip():
        raise InvalidInputError(f"{what} must be a string that is not empty, got {shown(text)}")
    return check_characters(text, what)


def check_characters(text: str, what: str) -> str:
    """Return ``text``, which may be empty.

    Args:
        text: What was given.
        what: What it is, for the message.

    Raises:
        InvalidInputError: It is no string, or holds an unpaired surrogate, which no file, database or tokenizer takes.
    """
    if not isinstance(text, str):
        raise InvalidInputError(f"{what} must be a string, got {shown(text)}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInputError(
            f"{what} holds an unpaired surrogate at character {error.start}, which is half of a character: decode it "
            "from its bytes again, or replace it"
        ) from error
    return text


def check_history(history: Sequence[Message]) -> Sequence[Message]:
    """Return ``history``, what was said before a question.

    Raises:
        InvalidInputError: It is no list of messages of a user and an assistant.
    """
    if not isinstance(history, Sequence) or not all(map(_is_message, history)):
        raise InvalidInputError(
            'history is a list of {"role": "user", "content": ...} and {"role": "assistant", "content": ...}, oldest '
            f"first, without the question itself; got {shown(history)}"
        )
    for message in history:
        check_characters(message["content"], "what was said before")
    return history


def _is_message(message: object) -> bool:
    return (
        isinstance(message, Mapping)
        and message.get("role") in ("user", "assistant")
        and isinstance(message.get("content"), str)
    )


def check_k(k: int) -> int:
    """Return ``k``, the number of hits asked for.

    Raises:
        InvalidInputError: It is not a whole number of at least 1, or more than :data:`MOST_HITS`.
    """
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= MOST_HITS:
        raise InvalidInputError(
            f"k is the number of hits to return, at least 1 and at most {MOST_HITS:,}; got {shown(k)}"
        )
    return k


def check_ttl(ttl: timedelta | None) -> timedelta | None:
    """Return ``ttl``, how long something is to be held; None is for ever.

    Raises:
        InvalidInputError: It is no timedelta, not longer than none, or longer than a hundred thousand days.
    """
    if ttl is None or (isinstance(ttl, timedelta) and timedelta(0) < ttl <= _LONGEST):
        return ttl
    raise InvalidInputError(
        f"ttl is a timedelta longer than none and of at most {_LONGEST.days:,} days, or None for ever; got {shown(ttl)}"
    )


def check_trust(trust: float, what: str) -> float:
    """Return ``trust``, how far something is to be trusted.

    Raises:
        InvalidInputError: It is no number from 0 to 1.
    """
    if isinstance(trust, bool) or not isinstance(trust, int | float) or not 0 <= trust <= 1:
        raise InvalidInputError(f"{what} is a number from 0, not at all, to 1, fully; got {shown(trust)}")
    return float(trust)


@dataclass(frozen=True, slots=True)
class Turn:
    """What somebody says in a conversation.

    Attributes:
        speaker: Who.
        time: When; None where nobody knows. Without a zone it is in UTC.
        text: What.

    Raises:
        InvalidInputError: Speaker or text are empty, or time is no datetime.
    """

    speaker: str
    time: datetime | None
    text: str = field(repr=False)

    def __post_init__(self) -> None:
        for name in ("speaker", "text"):
            value = getattr(self, name)
            check_text(value, f"{name} of a turn")
        if self.time is not None and not isinstance(self.time, datetime):
            raise InvalidInputError(f"time of a turn must be a datetime or None, got {shown(self.time)}")

    @property
    def said(self) -> str:
        """What is remembered and read of it: the text with its speaker, and the day if it is known, before it."""
        day = "" if self.time is None else f" ({self.time.day} {_MONTHS[self.time.month - 1]} {self.time.year})"
        return f"{self.speaker}{day}: {self.text}"

    @property
    def metadata(self) -> Metadata:
        """What it can be found by: speaker, and time in ISO 8601 if it is known."""
        time = {} if self.time is None else {"time": self.time.isoformat()}
        return {"speaker": self.speaker, **time}


@dataclass(frozen=True, slots=True)
class StoredText:
    """A text as it was remembered, whole.

    Attributes:
        key: Its key: the id it was given, or one made of itself.
        namespace: Whose it is.
        text: The text.
        metadata: What was stored beside it.
    """

    key: str
    namespace: Namespace
    text: str = field(repr=False)
    metadata: Metadata = field(repr=False)


@dataclass(frozen=True, slots=True)
class Slot:
    """One stored thing: a stretch of a document, its tensors and its row.

    Attributes:
        id: Unique in the bank and the same whenever the same text is remembered again.
        namespace: Whose memory it is.
        document: Key of the document it was cut from.
        text: The stretch itself.
        start: Offset of its first character in the document.
        stop: Offset just past its last character.
        line: Number of the line it starts on, from 1.
        tokens: How many tokens the bank's model makes of it.
        metadata: What was stored beside the document; ``"source"`` names where it came from.
        created_at: When it was stored, in UTC.
        expires_at: When it will be erased; None is never.
        provenance: Who or what it is from, in the user's words; None where nobody said.
        trust: How far it is to be trusted, in [0, 1].
    """

    id: SlotId
    namespace: Namespace
    document: str
    text: str = field(repr=False)
    start: int
    stop: int
    line: int
    tokens: int
    metadata: Metadata = field(repr=False)
    created_at: datetime
    expires_at: datetime | None = None
    provenance: str | None = None
    trust: float = 1.0

    @property
    def source(self) -> str:
        """Where the text came from: ``metadata["source"]``, or the document's key."""
        return str(self.metadata.get("source", self.document))


@dataclass(frozen=True, slots=True)
class Hit:
    """A slot with a score; higher is better.

    Attributes:
        slot: What was found.
        score: How well it matches the query, in [0, 1], comparable within one result only.
        attention: Share of the attention mass that the answer paid to this slot among all slots
            it read, in [0, 1]; None where nothing was generated, or where its text was read instead.
        expected_error: How far off the numbers of its stored vector are likely to be, root mean square; None where
            the vector is stored as it is.
    """

    slot: Slot
    score: float
    attention: float | None = None
    expected_error: float | None = None

    @property
    def id(self) -> SlotId:
        return self.slot.id

    @property
    def text(self) -> str:
        return self.slot.text

    @property
    def source(self) -> str:
        return self.slot.source

    @property
    def metadata(self) -> Metadata:
        return self.slot.metadata


@dataclass(frozen=True, slots=True)
class Citation:
    """A source of an answer, by where the model looked while it spoke.

    Attributes:
        hit: The source.
        share: Share of the looks at all sources, in [0, 1].
        start: Offset in the document of the sentence that was looked at most.
        stop: Offset just past its last character.
        by_token: The share at each generated token, in order.
    """

    hit: Hit
    share: float
    start: int
    stop: int
    by_token: tuple[float, ...] = field(repr=False)

    @property
    def text(self) -> str:
        """The sentence that was looked at most."""
        return self.hit.text[self.start - self.hit.slot.start : self.stop - self.hit.slot.start]


@dataclass(frozen=True, slots=True)
class Item:
    """An object that is held by its key.

    Attributes:
        namespace: Whose it is.
        key: Unique in the namespace.
        value: The object: what JSON can hold.
        created_at: When its first version was stored, in UTC.
        updated_at: When this one was.
        expires_at: When it will be erased; None is never.
        score: How well it matches the query it was searched for by, in [0, 1]; None where there was none.
    """

    namespace: Namespace
    key: str
    value: Metadata = field(repr=False)
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None = None
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the time of an answer went, in seconds.

    Attributes:
        search: Finding the hits.
        load: Reading their tensors and bringing them to their positions.
        first_token: From the question to the first token, search and load included.
        total: From the question to the last token.
    """

    search: float
    load: float
    first_token: float
    total: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said, what it read, and what that cost.

    Attributes:
        text: The answer.
        hits: The slots the model read, best match first, each with its share of attention.
        timings: Where the time went.
        prompt_tokens: Tokens that went through the model before the first new one.
        memory_tokens: Tokens that were read as memory instead.
        new_tokens: Tokens generated.
        citations: The sources, the one most looked at first.
        pieces: The text of each generated token; they join to the answer as it was spoken.
    """

    text: str
    hits: tuple[Hit, ...]
    timings: Timings
    prompt_tokens: int
    memory_tokens: int
    new_tokens: int
    citations: tuple[Citation, ...] = ()
    pieces: tuple[str, ...] = field(default=(), repr=False)

    @property
    def tokens_per_second(self) -> float:
        """Decoding speed after the first token; 0 where there was only one."""
        seconds = self.timings.total - self.timings.first_token
        return (self.new_tokens - 1) / seconds if self.new_tokens > 1 and seconds > 0 else 0.0


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
        kind: ``"database"``, ``"bank"``, ``"document"``, ``"slot"``, ``"index"``, ``"shard"`` or ``"stray"``.
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
