"""SlotBank: what every bank shares that keeps texts in slots: remembered, forgotten, found by words and meaning."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from trimem.banks.documents import Given, as_ids, documents, expiry, terms
from trimem.banks.folder_bank import FolderBank
from trimem.banks.identity import check_encoder, check_model
from trimem.banks.twins import Twins, check_cosine, without_twins
from trimem.checks import as_namespace, check_k, check_text, check_trust, check_ttl
from trimem.reports import ErasureReceipt
from trimem.types import Hit, Metadata, SlotId, StoredText

H = TypeVar("H", bound=Hit)


class SlotBank(FolderBank):
    """A bank of slots in a folder; arguments and attributes are those of :class:`FolderBank`."""

    # Writing

    def remember(
        self,
        texts: Given | Sequence[Given],
        *,
        namespace: str | Sequence[str],
        metadata: Metadata | Sequence[Metadata] | None = None,
        ids: str | Sequence[str] | None = None,
        ttl: timedelta | None = None,
        provenance: str | None = None,
        trust: float | None = None,
        near_duplicates: float | None = None,
        compile: bool = True,
        progress: bool | None = None,
    ) -> list[SlotId]:
        """Store texts; see :meth:`trimem.Bank.remember`.

        Args:
            texts: One or many. A :class:`trimem.Turn` of a conversation is stored with its speaker before it, and
                has speaker and time in its metadata.
            namespace: Whose they are.
            metadata: Stored beside them, one for all or one each.
            ids: Keys of the texts, one each.
            ttl: How long they are held from now on.
            provenance: Who or what they are from.
            trust: How far they are to be trusted, from 0 to 1.
            near_duplicates: The cosine from which on a text is not stored because a text of the same namespace, or
                an earlier one of this call, says almost the same: 0.98, say. That text's slots are returned in its
                place, and stay as they are. Only short texts are compared (:mod:`trimem.banks.twins`), never with
                those that they replace. None stores all: two that differ in a number alone are near, too.
            compile: False stores and indexes text only: a slot's tensors are then made when it is first read.
            progress: Whether to show a bar; None shows it where there is a terminal or a notebook.

        Returns:
            The slots of all texts, in order, those that were there already included.

        Raises:
            InvalidInputError: A text is empty, metadata is no JSON object, or the lists differ in
                length, or a term is not what it must be. Nothing is stored then.

        What an interruption leaves undone, the same call does when it is repeated.
        """
        path = as_namespace(namespace)
        said = terms(self._store.now(), ttl, provenance, trust)
        given = documents(texts, metadata, ids, said)
        least = check_cosine(near_duplicates)
        with self._lock:
            row = self._begin()
            self._sweep()
            self._uses.write()
            stored = self._store.documents(path, list(given))
            unchanged = {
                key: document.metadata
                for key, document in given.items()
                if key in stored and stored[key][0] == document.content_hash
            }
            if unchanged and (metadata is not None or said):
                there = self._store.update(path, list(unchanged), unchanged if metadata is not None else {}, said)
                unchanged = {key: unchanged[key] for key in there}  # others have expired this moment
            slots = {key: stored[key][1] for key in unchanged}
            new = [document for key, document in given.items() if key not in unchanged]
            twins = Twins(new, {}, {})
            if least is not None:
                twins = without_twins(new, stored, path, least, self._encoder, self._search)
            if twins.new:
                check_model(self.folder, row, *self._made_by())
                slots.update(self._write(path, twins.new, compile=compile, progress=progress))
                self._search.follow()
            slots.update((key, [slot]) for key, slot in twins.stored.items())
            slots.update((key, slots[other]) for key, other in twins.given.items())
        return [slot for key in given for slot in slots[key]]

    def forget(
        self,
        *,
        namespace: str | Sequence[str],
        ids: str | Collection[str] | None = None,
        where: Mapping[str, Any] | None = None,
    ) -> ErasureReceipt:
        """Erase slots from the disk; see :meth:`trimem.Bank.forget`. O(bytes of the database): it is written anew."""
        path = as_namespace(namespace)
        chosen = None if ids is None else as_ids(ids)
        with self._lock:
            return self._store.delete(path, chosen, where, siblings=self._siblings)

    def refresh(self, *, namespace: str | Sequence[str], ids: str | Collection[str], ttl: timedelta | None) -> int:
        """Let texts be held for ``ttl`` from now on; see :meth:`trimem.Bank.refresh`.

        Raises:
            InvalidInputError: ``ids`` or ``ttl`` are not what they must be.
        """
        path = as_namespace(namespace)
        chosen, expires_at = as_ids(ids), expiry(self._store.now(), check_ttl(ttl))
        with self._lock:
            keys = self._store.keys(path, chosen)
            return len(self._store.update(path, keys, {}, {"expires_at": expires_at})) if keys else 0

    # Reading

    def recall(
        self,
        query: str,
        k: int = 4,
        *,
        namespace: str | Sequence[str],
        where: Mapping[str, Any] | None = None,
        min_trust: float = 0.0,
    ) -> list[Hit]:
        """Return the best ``k`` slots for ``query`` by words and meaning; see :meth:`trimem.Bank.recall`.

        Raises:
            InvalidInputError: The query is empty, or k is less than 1.
            FingerprintMismatch: The bank was made with another encoder.
        """
        return self._recalled(self._finder(query, query, namespace, where, min_trust)(check_k(k)))

    def _recalled(self, hits: list[H]) -> list[H]:
        """Count hits as read, and return them: what :meth:`recall` ends with, however it found them."""
        self._uses.note(hit.id for hit in hits)
        return hits

    def _finder(
        self,
        query: str,
        words: str,
        namespace: str | Sequence[str],
        where: Mapping[str, Any] | None,
        min_trust: float = 0.0,
    ) -> Callable[[int], list[Hit]]:
        """Return what finds the best k slots: by the meaning of ``query``, and by ``words``.

        Raises:
            InvalidInputError: The query is empty, or ``min_trust`` is no number from 0 to 1.
            FingerprintMismatch: The bank was made with another encoder.
        """
        path = as_namespace(namespace)
        check_text(query, "a query")
        least = check_trust(min_trust, "min_trust")
        row = self._store.origin()
        if row is None:
            return lambda _: []
        check_encoder(self.folder, row, self._encoder)
        vector = self._encoder.encode_query(query)

        def find(k: int) -> list[Hit]:
            hits = self._search(words, vector, k, path, where, least)
            if (now := self._store.bank()) is not None:
                check_encoder(self.folder, now, self._encoder)  # was it changed while the search ran?
            return hits

        return find

    def get(self, ids: str | Collection[str], *, namespace: str | Sequence[str]) -> list[StoredText]:
        return self._store.texts(as_namespace(namespace), as_ids(ids))
