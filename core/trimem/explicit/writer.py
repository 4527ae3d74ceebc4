"""Documents on their way into a bank: cut, encoded, compiled, and stored tensors before rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from trimem.explicit.compiler import Compiler
from trimem.explicit.documents import groups, slot_id
from trimem.explicit.records import Records
from trimem.progress import track
from trimem.store.metadata import Document, MetadataStore, NewSlot
from trimem.store.tensors import StagedShard
from trimem.text.chunking import Chunk
from trimem.text.encoders import Encoder
from trimem.text.sentences import sentences
from trimem.types import Namespace, SlotId

GROUP = 64
"""Slots compiled and stored in one transaction: the most that an interruption costs."""


class Writer:
    """Stores new documents.

    Args:
        store: Takes the rows.
        records: Takes the tensors.
        encoder: Makes the vectors.
        compiler: Makes the tensors.
    """

    def __init__(self, store: MetadataStore, records: Records, encoder: Encoder, compiler: Compiler) -> None:
        self._store = store
        self._records = records
        self._encoder = encoder
        self._compiler = compiler

    def write(
        self, namespace: Namespace, documents: Sequence[Document], *, compile: bool, progress: bool | None
    ) -> dict[str, list[SlotId]]:
        """Store documents, replacing those of the same keys, and return their slots by key.

        Args:
            namespace: Of exactly which they are.
            documents: What to store.
            compile: False leaves the tensors out.
            progress: Whether to show a bar; None leaves that to the terminal.
        """
        chunks = {document.key: self._compiler.chunks(document.text) for document in documents}
        slots: dict[str, list[SlotId]] = {}
        total = sum(map(len, chunks.values()))
        with track("compiling references" if compile else "indexing references", total, progress) as advance:
            for group in groups(documents, chunks, GROUP):
                slots.update(self._write_group(namespace, group, chunks, compile, advance))
        return slots

    def _write_group(
        self,
        namespace: Namespace,
        documents: Iterable[Document],
        chunks: Mapping[str, Sequence[Chunk]],
        compile: bool,
        advance: Callable[[int], None],
    ) -> dict[str, list[SlotId]]:
        cut = {
            slot_id(namespace, document, chunk): (document.key, chunk)
            for document in documents
            for chunk in chunks[document.key]
        }
        texts = {slot: chunk.text for slot, (_, chunk) in cut.items()}
        vectors = self._vectors(texts)
        staged: list[StagedShard] = []
        slots: dict[str, list[NewSlot]] = {document.key: [] for document in documents}
        try:
            if compile:
                pieces = [
                    {slot: chunk.text for slot, (key, chunk) in cut.items() if key == document.key}
                    for document in documents
                ]
                self._records.compile(self._compiler, pieces, staged, advance)
            else:
                advance(len(texts))
            for slot, (key, chunk) in cut.items():
                whole, parts = vectors[slot]
                slots[key].append(
                    NewSlot(
                        slot,
                        chunk.text,
                        chunk.start,
                        chunk.stop,
                        chunk.line,
                        len(self._compiler.reference(chunk.text)),
                        whole,
                        parts,
                    )
                )
            stored = [(document, slots[document.key]) for document in documents]
            replaced = self._store.put(namespace, stored, staged)
        finally:
            for shard in staged:
                shard.discard()  # nothing where it was stored
        self._records.drop(replaced)
        return {key: [row.slot_id for row in rows] for key, rows in slots.items()}

    def _vectors(
        self, texts: Mapping[SlotId, str]
    ) -> dict[SlotId, tuple[NDArray[np.float32], NDArray[np.float32] | None]]:
        """Encode each slot, and each of its sentences where it has several."""
        parts = {slot: several if len(several := sentences(text)) > 1 else [] for slot, text in texts.items()}
        vectors = self._encoder.encode_documents([*texts.values(), *(part for many in parts.values() for part in many)])
        encoded, start = {}, len(texts)
        for i, (slot, many) in enumerate(parts.items()):
            encoded[slot] = vectors[i], vectors[start : start + len(many)] if many else None
            start += len(many)
        return encoded
