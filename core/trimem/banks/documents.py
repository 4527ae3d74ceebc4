"""What a call of remember() is given, checked and named before anything is stored."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeAlias

from trimem.checks import check_nesting, check_text, check_trust, check_ttl, several
from trimem.errors import InvalidInputError
from trimem.store.rows import Document, Terms, hash_text
from trimem.text.chunking import Chunk
from trimem.types import Metadata, Namespace, SlotId, Turn

DEEPEST = 100
"""How many objects and lists metadata has within one another at most: SQLite and json go on for some hundreds."""


@dataclass(frozen=True, slots=True)
class Told:
    """Something that is no text, as it is stored.

    Attributes:
        said: What it says, as text.
        metadata: What it can be found by.
        identity: All of it, as a string: what tells it from others that say the same.
    """

    said: str
    metadata: Metadata = field(repr=False)
    identity: str = field(repr=False)


Given: TypeAlias = str | Turn | Told
"""What can be remembered."""


def documents(
    texts: Given | Sequence[Given],
    metadata: Metadata | Sequence[Metadata] | None,
    ids: str | Sequence[str] | None,
    terms: Terms,
) -> dict[str, Document]:
    """Check the arguments of remember() and return its documents by key.

    A text without an id is its own key, so the same text twice is one document; under the same id,
    the later text counts. A turn is its own key with its speaker and time.

    Raises:
        InvalidInputError: A text is empty, metadata is no JSON object, or the lists differ in length.
    """
    said = [texts] if isinstance(texts, str | Turn | Told) else several(texts, "texts")
    stored = [one.said if isinstance(one, Turn | Told) else one for one in said]
    for i, text in enumerate(stored):
        check_text(text, f"text {i}")
    given = (
        [metadata] * len(said) if metadata is None or isinstance(metadata, Mapping) else several(metadata, "metadata")
    )
    keys = [text_key(one) for one in said] if ids is None else as_ids(ids)
    if not len(said) == len(given) == len(keys):
        raise InvalidInputError(
            f"texts, metadata and ids must be of one length, got {len(said)}, {len(given)} and {len(keys)}"
        )
    about = [
        {**check_metadata(metadata or {}), **(one.metadata if isinstance(one, Turn | Told) else {})}
        for one, metadata in zip(said, given, strict=True)
    ]
    identities = [one.identity if isinstance(one, Told) else None for one in said]
    return {
        key: Document(key, text, told, identity=identity, **terms)
        for key, text, told, identity in zip(keys, stored, about, identities, strict=True)
    }


def terms(now: datetime, ttl: timedelta | None, provenance: str | None, trust: float | None) -> Terms:
    """Check on what terms texts are to be held and return those that are said.

    Raises:
        InvalidInputError: One is not what it must be.
    """
    said: Terms = {}
    if check_ttl(ttl) is not None:
        said["expires_at"] = expiry(now, ttl)
    if provenance is not None:
        said["provenance"] = check_text(provenance, "provenance")
    if trust is not None:
        said["trust"] = check_trust(trust, "trust")
    return said


def expiry(now: datetime, ttl: timedelta | None) -> datetime | None:
    """Return when what is held for ``ttl`` from now on has expired; None is never."""
    return None if ttl is None else now + ttl


def slot_id(namespace: Namespace, document: Document, chunk: Chunk) -> SlotId:
    """Return the id of a chunk: the same whenever the same text is remembered under the same key."""
    identity = json.dumps([namespace, document.key, document.content_hash, chunk.start])
    return hashlib.sha256(identity.encode()).hexdigest()[:32]


def groups(documents: Iterable[Document], chunks: Mapping[str, Sized], most: int) -> Iterator[list[Document]]:
    """Split documents into runs of at most ``most`` chunks; a document with more is alone."""
    group: list[Document] = []
    total = 0
    for document in documents:
        size = len(chunks[document.key])
        if group and total + size > most:
            yield group
            group, total = [], 0
        group.append(document)
        total += size
    if group:
        yield group


def text_key(given: Given) -> str:
    """Return the key of something that was given none."""
    if isinstance(given, str):
        return hash_text(given)[:16]
    whole = given.identity if isinstance(given, Told) else given.text
    return hash_text(json.dumps([*given.metadata.items(), whole]))[:16]


def check_metadata(metadata: Metadata) -> Metadata:
    """Return metadata as JSON gives it back.

    Raises:
        InvalidInputError: It is no mapping of strings to what JSON can hold, or too deep.
    """
    check_nesting(metadata, "metadata, stored as JSON,", DEEPEST)
    try:
        if isinstance(metadata, Mapping) and all(isinstance(key, str) for key in metadata):
            said = json.dumps(dict(metadata), allow_nan=False, ensure_ascii=False)
            checked: Metadata = json.loads(said.encode())  # which takes no unpaired surrogates
            return checked
    except (TypeError, ValueError, RecursionError):
        pass
    raise InvalidInputError(f"metadata must be a mapping that JSON can hold, got {_named(metadata)}")


def as_ids(ids: str | Iterable[str]) -> list[str]:
    """Return one id or several as a list.

    Raises:
        InvalidInputError: One is no string, or empty.
    """
    return [check_text(one, "an id") for one in ([ids] if isinstance(ids, str) else several(ids, "ids"))]


def _named(metadata: object) -> str:
    """Return what metadata is, without its values, which may be anybody's."""
    keys = f" with the keys {sorted(map(str, metadata))}" if isinstance(metadata, Mapping) else ""
    return f"{type(metadata).__name__}{keys}"
