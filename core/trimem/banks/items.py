"""Items: objects held by namespace and key, found by their fields and by what they say.

They are documents of a bank's database whose metadata is the object; of what it says, slots are made, which are
searched like all others. No language model is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from trimem.banks.documents import check_metadata, slot_id
from trimem.banks.folder import DATABASE, bank_folder, encoder_of
from trimem.banks.identity import check_encoder
from trimem.banks.writer import encode
from trimem.checks import LARGEST, as_namespace, check_characters, check_text, several, shown, whole
from trimem.errors import InvalidInputError
from trimem.reports import ErasureReceipt
from trimem.store import upkeep
from trimem.store.database import utc_now
from trimem.store.items import ItemKey, ItemRows
from trimem.store.items import NewItem as NewRow
from trimem.store.metadata import MetadataStore
from trimem.store.rows import Document, NewSlot
from trimem.store.schema import CODED, ITEMS
from trimem.store.search import HybridSearch
from trimem.text.chunking import Chunk, Chunker
from trimem.text.encoders import Embeddings, Encoder
from trimem.types import Hit, Item, Metadata, Namespace, SlotId

CHARACTERS = 512
"""Most characters of one slot: about what an encoder reads of a text."""

LONGEST = timedelta(days=100 * 365)
"""To live, unless it is for ever."""

_MORE = 4  # times as many slots, where those found are of too few items


@dataclass(frozen=True, slots=True)
class NewItem:
    """An item to be stored.

    Attributes:
        namespace: Whose it is; the collection's own goes before it.
        key: Unique in the namespace; an item of the same key is replaced.
        value: The object: what JSON can hold.
        texts: What it says, by which it is searched for; none where it is found by key and fields only.
        ttl: How long it lives after it was last written or read; None is for ever.
    """

    namespace: Namespace
    key: str
    value: Metadata = field(repr=False)
    texts: Sequence[str] = field(default=(), repr=False)
    ttl: timedelta | None = None


class Items:
    """A collection of items in a bank's database. Any thread may use it.

    Open one with :meth:`open`, or take that of an open bank: ``bank.items("settings")``.

    Args:
        store: Of the bank.
        search: Over its slots.
        encoder: Of the bank.
        namespace: Stands before that of every item, so that items and what is remembered do not mix.
        owned: Whether closing the items closes the store.
    """

    def __init__(
        self,
        store: MetadataStore,
        search: HybridSearch,
        encoder: Encoder,
        namespace: str | Sequence[str],
        *,
        owned: bool = False,
    ) -> None:
        self.namespace = as_namespace(namespace)
        self._store = store
        self._search = search
        self._encoder = encoder
        self._rows = ItemRows(store)
        self._owned = owned
        self._folder = store.path.parent

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        namespace: str | Sequence[str],
        encoder: Encoder | Embeddings | str | Path | None = None,
        create: bool = True,
        clock: Callable[[], datetime] = utc_now,
    ) -> Self:
        """Open the items in a folder, which may be that of a bank, or make a new collection there.

        Args:
            path: The folder.
            namespace: Stands before that of every item.
            encoder: What finds items by meaning; loaded when it is first needed; by default as of a bank.
            create: Whether to make a database where there is none.
            clock: Tells the moment that rows are stamped with, and by which they expire.

        Raises:
            BankNotFoundError: There is no database and ``create`` is False.
            InvalidInputError: The folder is a file.
            SchemaVersionError: It was written by a newer trimem.
        """
        folder = bank_folder(path, create=create)
        store = MetadataStore(folder / DATABASE, clock)
        items = cls(store, HybridSearch(store.reader), encoder_of(folder, encoder), namespace, owned=True)
        try:
            upkeep.tend(store)
        except BaseException:
            items.close()
            raise
        return items

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self._folder)!r}, {'/'.join(self.namespace)!r})"

    def close(self) -> None:
        """Let go of files, unless they are those of an open bank; using the items afterwards opens them again."""
        if self._owned:
            self._search.close()
            self._store.close()

    def warm_up(self) -> None:
        """Load the encoder now, so that no later call has to."""
        self._encoder.encode_query("warm up")

    def write(self, puts: Sequence[NewItem], deletes: Collection[ItemKey] = ()) -> None:
        """Store items, and erase others so that no byte of them stays, all or nothing.

        Args:
            puts: At most one for each key.
            deletes: Namespaces and keys; those that are not there do not matter.

        Raises:
            InvalidInputError: A value is no JSON object, or a key is empty. Nothing is stored then.
            FingerprintMismatch: The bank was made with another encoder.
        """
        rows = self._rows_of(several(puts, "items", NewItem))
        self._rows.write(rows, [self._absolute(key) for key in several(deletes, "keys")])
        self._search.follow()

    def forget(self, *, namespace: Namespace = ()) -> ErasureReceipt:
        """Erase all items in a namespace and below, so that no byte of them stays; without one, all there are."""
        return self._store.delete(self._within(namespace), None, None)

    def get(self, keys: Sequence[ItemKey], *, refresh: bool = False) -> list[Item | None]:
        """Return the item of each key, None where there is none.

        Args:
            keys: Namespaces and keys.
            refresh: Whether those found are to live as long again as when they were written.
        """
        wanted = [self._absolute(key) for key in several(keys, "keys")]
        found = self._rows.get(wanted)
        if refresh:
            self._refresh(found.values())
        return [self._relative(found[key]) if key in found else None for key in wanted]

    def search(
        self,
        query: str | None = None,
        *,
        namespace: Namespace = (),
        where: Mapping[str, Any] | None = None,
        limit: int = 10,
        offset: int = 0,
        refresh: bool = False,
    ) -> list[Item]:
        """Return the items that match a query best, best first, or without one those written last, last first.

        Args:
            query: What to look for, by words and by meaning; only what items say is found.
            namespace: Where to look, and below; nothing is the whole collection.
            where: What an item must have, as in :meth:`trimem.Bank.recall`; runs before the choice of the best.
            limit: How many at most.
            offset: How many of the first to leave out.
            refresh: As of :meth:`get`.

        Raises:
            InvalidInputError: limit or offset is negative, or the query is no text, or the filter is none.
            InvalidNamespaceError: The namespace is none.
            FingerprintMismatch: The bank was made with another encoder.
        """
        whole(limit, "limit", 0, LARGEST), whole(offset, "offset", 0, LARGEST)
        path = self._within(namespace)
        if query is not None and check_characters(query, "a query").strip():
            found = self._best(query, path, where, limit + offset)[offset:]
        else:
            found = self._rows.newest(path, where, limit, offset)
        if refresh:
            self._refresh(found)
        return [self._relative(item) for item in found]

    def namespaces(self) -> list[Namespace]:
        """Return the namespaces that hold items, in their order."""
        return [path[len(self.namespace) :] for path in self._rows.namespaces(self.namespace)]

    def sweep(self) -> list[ErasureReceipt]:
        """Erase what has expired, so that no byte of it stays."""
        return self._rows.sweep(self.namespace)

    def _best(self, query: str, path: Namespace, where: Mapping[str, Any] | None, most: int) -> list[Item]:
        row = self._store.origin()
        if row is None or not most:
            return []
        check_encoder(self._folder, row, self._encoder)
        vector = self._encoder.encode_query(query)
        slots = _MORE * most
        while True:
            hits = self._search(query, vector, slots, path, where)
            best: dict[ItemKey, Hit] = {}
            for hit in hits:
                best.setdefault((hit.slot.namespace, hit.slot.document), hit)
            there = self._rows.get(best)
            if len(there) >= most or len(hits) < slots:
                return [replace(there[key], score=hit.score) for key, hit in best.items() if key in there][:most]
            slots *= _MORE

    def _rows_of(self, items: Sequence[NewItem]) -> list[NewRow]:
        """Check items, cut what they say, and encode it."""
        checked = [(self._document(item), self._within(item.namespace), item) for item in items]
        cut = [self._cut(path, document, item.texts) for document, path, item in checked]
        texts = {slot: chunk.text for chunks in cut for slot, chunk in chunks.items()}
        if texts:
            self._claim()
        vectors = encode(self._encoder, texts) if texts else {}
        return [
            NewRow(
                path,
                document,
                [
                    NewSlot(slot, chunk.text, chunk.start, chunk.stop, chunk.line, 0, *vectors[slot])
                    for slot, chunk in chunks.items()
                ],
                item.ttl,
            )
            for (document, path, item), chunks in zip(checked, cut, strict=True)
        ]

    def _document(self, item: NewItem) -> Document:
        check_text(item.key, "a key")
        if item.ttl is not None and not (isinstance(item.ttl, timedelta) and timedelta() < item.ttl <= LONGEST):
            raise InvalidInputError(
                f"a time to live is a timedelta longer than nothing and at most {LONGEST}, got {shown(item.ttl)}"
            )
        if isinstance(item.texts, str):
            raise InvalidInputError("what an item says is a list of texts, got one text: put it into a list")
        text = check_characters("\n".join(several(item.texts, "texts", str)), "what an item says")
        return Document(item.key, text, check_metadata(item.value))

    def _cut(self, path: Namespace, document: Document, texts: Sequence[str]) -> dict[SlotId, Chunk]:
        """Cut each text by itself; a slot never says two of them."""
        chunks: dict[SlotId, Chunk] = {}
        begin = line = 0
        for text in texts:
            for chunk in self._chunker(text):
                placed = replace(chunk, start=begin + chunk.start, stop=begin + chunk.stop, line=line + chunk.line)
                chunks[slot_id(path, document, placed)] = placed
            begin += len(text) + 1
            line += text.count("\n") + 1
        return chunks

    def _claim(self) -> None:
        """Raise if the bank was made with another encoder; make one of items alone where there is none."""
        row = self._store.origin() or self._store.create_bank(
            mechanism=ITEMS,
            model_name="",
            model_fingerprint="",
            encoder_fingerprint=self._encoder.fingerprint,
            config={},
        )
        check_encoder(self._folder, row, self._encoder)
        if row.mechanism == CODED:
            raise InvalidInputError(
                f"the bank in {self._folder} keeps a fixed number of slots, for which items would compete with what is "
                "remembered: keep items with texts in a folder of their own"
            )

    @cached_property
    def _chunker(self) -> Chunker:
        return Chunker(len, CHARACTERS)

    def _refresh(self, items: Collection[Item]) -> None:
        mortal = [(item.namespace, item.key) for item in items if item.expires_at is not None]
        if mortal:
            self._rows.refresh(mortal)

    def _absolute(self, key: ItemKey) -> ItemKey:
        if not isinstance(key, tuple | list) or len(key) != 2:
            raise InvalidInputError(f"an item is held by its namespace and its key, got {shown(key)}")
        return self._within(key[0]), check_characters(key[1], "a key")

    def _within(self, namespace: str | Sequence[str]) -> Namespace:
        """Return a namespace of the collection as the bank has it; an empty one is that of the collection itself."""
        # Only that: None, which a caller has where he knows no namespace, must not mean all there are.
        empty = isinstance(namespace, tuple | list) and not namespace
        return self.namespace if empty else (*self.namespace, *as_namespace(namespace))

    def _relative(self, item: Item) -> Item:
        return replace(item, namespace=item.namespace[len(self.namespace) :])
