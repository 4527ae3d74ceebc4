"""The values that cross trimem's borders: namespaces, slots, hits, answers.

Nothing here imports torch, so that a store or an adapter can speak of slots without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeAlias

from trimem.checks import check_text, shown
from trimem.errors import InvalidInputError

Namespace: TypeAlias = tuple[str, ...]
SlotId: TypeAlias = str
Metadata: TypeAlias = Mapping[str, Any]
Message: TypeAlias = Mapping[str, str]
"""What was said to a model or by it, as transformers has it: ``role`` is user or assistant, ``content`` the text."""

# calendar has them in the language of the machine, where the same turn would then be another text
_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)


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
        expected_error: How far off the numbers of its stored vector are likely to be, with what corrects it, root
            mean square; None where the vector is stored as it is.
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
