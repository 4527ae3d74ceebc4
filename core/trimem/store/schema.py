"""The tables of a bank's database.

One database holds one bank. Tensors lie in files beside it (:mod:`trimem.store.tensors`); what the
tables hold is enough to make them again.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    CheckConstraint,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column, relationship
from sqlalchemy.types import TypeDecorator

SCHEMA_VERSION = "0002"
"""The migration this code is written for; the newest in ``migrations/versions``."""

SEARCH_TABLE = "slot_text"
"""The full-text index over ``slot.scope`` and ``slot.text``: an FTS5 table kept by triggers, made by the migrations."""


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
    type_annotation_map: ClassVar = {dict[str, Any]: JSON, datetime: UTCDateTime, bytes: LargeBinary}


class BankRow(Base):
    """What the whole bank was made by and with; one row.

    Attributes:
        mechanism: ``"explicit"``, ``"resonance"`` or ``"transit"``.
        model_name: What to call the model in messages.
        model_fingerprint: Of the model that made the tensors.
        encoder_fingerprint: Of the encoder that made the vectors.
        config: The mechanism's configuration, with its version.
        revision: Grows by one with every write, so that caches know when they are stale.
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


class DocumentRow(Base):
    """A text as it was given.

    Attributes:
        namespace: Its path with ``/`` after every part, so that a prefix ends where a part does.
        key: Unique in the namespace; a new text under an old key replaces it.
        content_hash: SHA-256 of the text.
        meta: The user's metadata.
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


class SlotRow(Base):
    """A stretch of a document that is found and read as one.

    Attributes:
        id: Rowid, which the full-text index refers to.
        slot_id: The public id.
        namespace: The document's, repeated here for the index.
        vector: Its encoding, float32 in native byte order, of length 1.
        scope: Its namespace and those above as words of the full-text index, which then reads no
            other tenant's slots.
        sentences: (sentences, dim) encodings of its sentences, float16 in native byte order, of length 1;
            None where the text is a single one.
        tensor_bytes: Size of its tensor file; None until it is compiled.
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
