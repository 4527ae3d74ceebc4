"""Documents on their way into a bank: cut, encoded, given their tensors, and stored tensors before rows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from trimem.banks.documents import groups, slot_id
from trimem.progress import track
from trimem.store.capacity import Capacity
from trimem.store.metadata import Document, MetadataStore, NewSlot
from trimem.store.tensors import StagedShard, staging
from trimem.text.chunking import Chunk
from trimem.text.encoders import Encoder
from trimem.text.sentences import sentences
from trimem.types import Namespace, SlotId

GROUP = 64
"""Slots stored in one transaction: the most that an interruption costs."""


Advance = Callable[[int], None]

Stage = Callable[[Sequence[Mapping[SlotId, str]], list[StagedShard], Advance], None]
"""Makes the tensors of slots and stages them.

It is given the texts of slots, those of each document in order; a list that gets a shard as soon as it is staged, so
that what is staged is known even if the rest fails; and what to call with the number of slots that are done.
"""


def all_at_once(stage: Callable[[Mapping[SlotId, str], list[StagedShard]], None]) -> Stage:
    """Return what makes the tensors of all slots it is given together, whichever documents they are of."""

    def staged(pieces: Sequence[Mapping[SlotId, str]], staged: list[StagedShard], advance: Advance) -> None:
        texts = {slot: text for piece in pieces for slot, text in piece.items()}
        stage(texts, staged)
        advance(len(texts))

    return staged


class Writer:
    """Stores new documents.

    Args:
        store: Takes rows and tensors.
        encoder: Makes the vectors.
        cut: Cuts a document into what becomes slots.
        tokens: Counts those of a slot's text.
        drop: Is told of slots that were replaced.
        capacity: How much the bank may hold; None is as much as comes.
        keep_text: Whether the texts are stored; else rows and index say nothing, and tensors must.
    """

    def __init__(
        self,
        store: MetadataStore,
        encoder: Encoder,
        cut: Callable[[str], Sequence[Chunk]],
        tokens: Callable[[str], int],
        drop: Callable[[Collection[SlotId]], None],
        capacity: Capacity | None = None,
        keep_text: bool = True,
    ) -> None:
        self._store = store
        self._encoder = encoder
        self._cut = cut
        self._tokens = tokens
        self._drop = drop
        self._capacity = capacity
        self._keep_text = keep_text

    def write(
        self,
        namespace: Namespace,
        documents: Sequence[Document],
        what: str,
        stage: Stage | None,
        progress: bool | None,
    ) -> dict[str, list[SlotId]]:
        """Store documents, replacing those of the same keys, and return their slots by key.

        Args:
            namespace: Of exactly which they are.
            documents: What to store.
            what: What the bar says is done.
            stage: Makes the tensors; None leaves them out.
            progress: Whether to show a bar; None leaves that to the terminal.
        """
        chunks = {document.key: self._cut(document.text) for document in documents}
        slots: dict[str, list[SlotId]] = {}
        total = sum(map(len, chunks.values()))
        with track(what, total, progress) as advance:
            most = min(GROUP, (self._capacity and self._capacity.slots) or GROUP)
            for group in groups(documents, chunks, most):
                slots.update(self._write_group(namespace, group, chunks, stage, advance))
        return slots

    def _write_group(
        self,
        namespace: Namespace,
        documents: Iterable[Document],
        chunks: Mapping[str, Sequence[Chunk]],
        stage: Stage | None,
        advance: Advance,
    ) -> dict[str, list[SlotId]]:
        cut = {
            slot_id(namespace, document, chunk): (document.key, chunk)
            for document in documents
            for chunk in chunks[document.key]
        }
        texts = {slot: chunk.text for slot, (_, chunk) in cut.items()}
        vectors = encode(self._encoder, texts)
        slots: dict[str, list[NewSlot]] = {document.key: [] for document in documents}
        with staging() as staged:
            if stage is not None:
                pieces = [
                    {slot: chunk.text for slot, (key, chunk) in cut.items() if key == document.key}
                    for document in documents
                ]
                stage(pieces, staged, advance)
            else:
                advance(len(texts))
            for slot, (key, chunk) in cut.items():
                whole, parts = vectors[slot]
                slots[key].append(
                    NewSlot(
                        slot,
                        chunk.text if self._keep_text else "",
                        chunk.start,
                        chunk.stop,
                        chunk.line,
                        self._tokens(chunk.text),
                        whole,
                        parts,
                    )
                )
            stored = [(self._stored(document), slots[document.key]) for document in documents]
            replaced = self._store.put(namespace, stored, staged, self._capacity)
        self._drop(replaced)
        return {key: [row.slot_id for row in rows] for key, rows in slots.items()}

    def _stored(self, document: Document) -> Document:
        if self._keep_text:
            return document
        return replace(document, text="", identity=document.identity or document.text)


def encode(
    encoder: Encoder, texts: Mapping[SlotId, str]
) -> dict[SlotId, tuple[NDArray[np.float32], NDArray[np.float32] | None]]:
    """Encode what each slot says, and each of its sentences where it has several."""
    parts = {slot: several if len(several := sentences(text)) > 1 else [] for slot, text in texts.items()}
    vectors = encoder.encode_documents([*texts.values(), *(part for many in parts.values() for part in many)])
    encoded, start = {}, len(texts)
    for i, (slot, many) in enumerate(parts.items()):
        encoded[slot] = vectors[i], vectors[start : start + len(many)] if many else None
        start += len(many)
    return encoded
