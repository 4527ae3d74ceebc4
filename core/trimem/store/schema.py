"""The tables of a bank's database.

One database holds one bank. Tensors lie in files beside it (:mod:`trimem.store.tensors`); what the
tables hold is enough to make them again. Rows carry a checksum over what never changes by itself, so
that bits that flip are noticed.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    CheckConstraint,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column, relationship
from sqlalchemy.types import TypeDecorator

from trimem.store.checksums import checksum

SCHEMA_VERSION = "0006"
"""The migration this code is written for; the newest in ``migrations/versions``."""

SEARCH_TABLE = "slot_text"
"""The full-text index over ``slot.scope`` and ``slot.text``: an FTS5 table kept by triggers, made by the migrations."""

ITEMS = "items"
"""The mechanism of a database that holds items alone, until a bank remembers something in it, too."""

CODED = "transit"
"""The mechanism whose rows hold vectors as codes, in a fixed number of slots: no place for items that have any."""


class UTCDateTime(TypeDecorator[datetime]):
    """A moment in UTC. SQLite drops the time zone, so it is stored without and given back with it."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


class Base(MappedAsDataclass, DeclarativeBase):
    """What all tables share."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar = {
        dict[str, Any]: JSON,
        list[str]: JSON,
        datetime: UTCDateTime,
        bytes: LargeBinary,
        float: Double,
    }


class BankRow(Base):
    """What the whole bank was made by and with; one row.

    Attributes:
        mechanism: ``"explicit"``, ``"resonance"`` or ``"transit"``, or :data:`ITEMS`.
        model_name: What to call the model in messages.
        model_fingerprint: Of the model that made the tensors.
        encoder_fingerprint: Of the encoder that made the vectors.
        config: The mechanism's configuration, with its version.
        revision: Grows by one with every write, so that caches know when they are stale.
        checksum: Of the row but its revision; :meth:`digest` as of the last write.
    """

    __tablename__ = "bank"
    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)

    mechanism: Mapped[str]
    model_name: Mapped[str]
    model_fingerprint: Mapped[str]
    encoder_fingerprint: Mapped[str]
    config: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    revision: Mapped[int] = mapped_column(default=0)
    id: Mapped[int] = mapped_column(primary_key=True, default=1)
    checksum: Mapped[str] = mapped_column(default="", server_default="", repr=False)

    def digest(self) -> str:
        """Return the checksum of what the row holds now."""
        made_by = (self.mechanism, self.model_name, self.model_fingerprint, self.encoder_fingerprint)
        return bank_checksum(*made_by, self.config, self.created_at)


class DocumentRow(Base):
    """A text as it was given.

    Attributes:
        namespace: Its path with ``/`` after every part, so that a prefix ends where a part does.
        key: Unique in the namespace; a new text under an old key replaces it.
        content_hash: SHA-256 of the text.
        meta: The user's metadata.
        checksum: Of the row; :meth:`digest` as of the last write.
    """

    __tablename__ = "document"
    __table_args__ = (UniqueConstraint("namespace", "key"),)

    id: Mapped[int] = mapped_column(init=False, primary_key=True)
    namespace: Mapped[str]
    key: Mapped[str]
    content_hash: Mapped[str]
    text: Mapped[str] = mapped_column(repr=False)
    meta: Mapped[dict[str, Any]] = mapped_column(repr=False)
    created_at: Mapped[datetime]
    slots: Mapped[list[SlotRow]] = relationship(
        back_populates="document",
        cascade="all, delete-orphan",
        passive_deletes=True,
        order_by="SlotRow.start",
        default_factory=list,
        repr=False,
    )
    checksum: Mapped[str] = mapped_column(default="", server_default="", repr=False)

    def digest(self) -> str:
        """Return the checksum of what the row holds now."""
        return document_checksum(self.namespace, self.key, self.content_hash, self.text, self.meta, self.created_at)


class SlotRow(Base):
    """A stretch of a document that is found and read as one.

    Attributes:
        id: Rowid, which the full-text index refers to.
        slot_id: The public id.
        namespace: The document's, repeated here for the index.
        vector: Its encoding, of length 1: float32 in native byte order, or as the bank's codec stores it
            (:mod:`trimem.store.vector_codec`).
        scope: Its namespace and those above as words of the full-text index, which then reads no
            other tenant's slots.
        sentences: (sentences, dim) encodings of its sentences, likewise, but float16 where they are not coded;
            None where the text is a single one.
        tensor_bytes: Bytes of its tensors; None until it is compiled.
        shard_id: The shard that holds them; None until it is compiled.
        tensor_checksum: Of its tensors.
        expires_at: When it is to be erased; None is never.
        provenance: Who or what it is from, in the user's words.
        trust: How far it is to be trusted, in [0, 1].
        reads: How often it was recalled, by itself or for an answer.
        read_at: When it was last so.
        warmth: How often it was used, the binary logarithm of uses that age (:mod:`trimem.store.capacity`); None as
            long as it only was written.
        warmth_at: The newest row when that was counted. Older uses have aged until then, all age from then on.
        checksum: Of the row but its tensors and uses; :meth:`digest` as of the last write.
    """

    __tablename__ = "slot"
    __table_args__ = (Index("ix_slot_namespace", "namespace"),)

    id: Mapped[int] = mapped_column(init=False, primary_key=True)
    document_id: Mapped[int] = mapped_column(ForeignKey("document.id", ondelete="CASCADE"), init=False, index=True)
    slot_id: Mapped[str] = mapped_column(unique=True)
    namespace: Mapped[str]
    text: Mapped[str] = mapped_column(repr=False)
    start: Mapped[int]
    stop: Mapped[int]
    line: Mapped[int]
    tokens: Mapped[int]
    vector: Mapped[bytes] = mapped_column(repr=False, deferred=True)
    created_at: Mapped[datetime]
    tensor_bytes: Mapped[int | None] = mapped_column(default=None)
    scope: Mapped[str] = mapped_column(default="", server_default="", repr=False)
    sentences: Mapped[bytes | None] = mapped_column(default=None, repr=False, deferred=True)
    document: Mapped[DocumentRow] = relationship(back_populates="slots", init=False, repr=False)
    shard_id: Mapped[int | None] = mapped_column(ForeignKey("shard.id"), default=None, index=True)
    tensor_checksum: Mapped[str | None] = mapped_column(default=None, repr=False)
    expires_at: Mapped[datetime | None] = mapped_column(default=None, index=True)
    provenance: Mapped[str | None] = mapped_column(default=None)
    trust: Mapped[float] = mapped_column(default=1.0, server_default="1.0")
    reads: Mapped[int] = mapped_column(default=0, server_default="0")
    read_at: Mapped[datetime | None] = mapped_column(default=None)
    warmth: Mapped[float | None] = mapped_column(default=None)
    warmth_at: Mapped[int | None] = mapped_column(default=None)
    checksum: Mapped[str] = mapped_column(default="", server_default="", repr=False)

    def digest(self) -> str:
        """Return the checksum of what the row holds now."""
        return slot_checksum(
            self.slot_id,
            self.namespace,
            self.scope,
            self.text,
            (self.start, self.stop, self.line, self.tokens),
            self.vector,
            self.sentences,
            self.created_at,
            (self.expires_at, self.provenance, self.trust),
        )


class ShardRow(Base):
    """A file of tensors.

    Attributes:
        name: Of the file, without its suffix.
        bytes: Size of the file.
        checksum: Of the file.
        records: How many slots have their tensors in it.
    """

    __tablename__ = "shard"

    id: Mapped[int] = mapped_column(init=False, primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    bytes: Mapped[int]
    checksum: Mapped[str]
    records: Mapped[int] = mapped_column(index=True)


class ItemRow(Base):
    """What a document is beside its text where it is an item: an object that is found by its key, too.

    The object is the document's metadata. A new version of an item is a new document.

    Attributes:
        created_at: When the item's first version was stored.
        ttl: Seconds that it lives after it was last written or read; None is for ever.
        expires_at: When it is to be erased.
        checksum: Of the row; :meth:`digest` as of the last write.
    """

    __tablename__ = "item"

    document_id: Mapped[int] = mapped_column(ForeignKey("document.id", ondelete="CASCADE"), primary_key=True)
    created_at: Mapped[datetime]
    ttl: Mapped[float | None]
    expires_at: Mapped[datetime | None] = mapped_column(index=True)
    checksum: Mapped[str] = mapped_column(default="", repr=False)

    def digest(self) -> str:
        """Return the checksum of what the row holds now."""
        return item_checksum(self.created_at, self.ttl, self.expires_at)


class ErasureRow(Base):
    """The receipt of an erasure.

    Attributes:
        id: Of the receipt.
        namespace: Where it took place, as documents have it.
        reason: Why; ``"forgotten"`` where somebody asked for it.
        documents: Documents erased whole.
        slots: Ids of the slots erased.
        records: How many of them had tensors.
        tensor_bytes: Bytes of those.
        erased_at: When.
        finished: Whether files and log are known to hold nothing of them any more.
    """

    __tablename__ = "erasure"

    id: Mapped[str] = mapped_column(primary_key=True)
    namespace: Mapped[str]
    reason: Mapped[str]
    documents: Mapped[int]
    slots: Mapped[list[str]] = mapped_column(repr=False)
    records: Mapped[int]
    tensor_bytes: Mapped[int]
    erased_at: Mapped[datetime]
    finished: Mapped[bool] = mapped_column(default=False)


class ChangeRow(Base):
    """A slot that came or went, noted by triggers, so that what is held in memory can follow.

    Attributes:
        id: Grows with every change and is never used again.
        slot: The slot's row id, which may belong to another slot by now.
    """

    __tablename__ = "change"
    __table_args__ = ({"sqlite_autoincrement": True},)

    slot: Mapped[int]
    id: Mapped[int] = mapped_column(init=False, primary_key=True)


def document_checksum(
    namespace: str, key: str, content_hash: str, text: str, meta: dict[str, Any], created_at: datetime
) -> str:
    """Return the checksum of a document's row."""
    return checksum(namespace, key, content_hash, text, json.dumps(meta, sort_keys=True), created_at.isoformat())


def item_checksum(created_at: datetime, ttl: float | None, expires_at: datetime | None) -> str:
    """Return the checksum of an item's row."""
    return checksum(created_at.isoformat(), ttl, None if expires_at is None else expires_at.isoformat())


def slot_checksum(
    slot_id: str,
    namespace: str,
    scope: str,
    text: str,
    where: tuple[int, int, int, int],
    vector: bytes,
    sentences: bytes | None,
    created_at: datetime,
    conditions: tuple[datetime | None, str | None, float],
) -> str:
    """Return the checksum of a slot's row."""
    expires_at, provenance, trust = conditions
    expiry = None if expires_at is None else expires_at.isoformat()
    moment = created_at.isoformat()
    return checksum(slot_id, namespace, scope, text, where, vector, sentences, moment, expiry, provenance, float(trust))


def bank_checksum(
    mechanism: str, model_name: str, model: str, encoder: str, config: dict[str, Any], created_at: datetime
) -> str:
    """Return the checksum of the bank's row."""
    return checksum(mechanism, model_name, model, encoder, json.dumps(config, sort_keys=True), created_at.isoformat())
