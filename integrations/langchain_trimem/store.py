"""A bank as the store of LangGraph: what agents keep across threads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar
from urllib.parse import quote, unquote

from langgraph.store.base import (
    BaseStore,
    GetOp,
    IndexConfig,
    Item,
    ListNamespacesOp,
    MatchCondition,
    Op,
    PutOp,
    Result,
    SearchItem,
    SearchOp,
    TTLConfig,
    ensure_embeddings,
    get_text_at_path,
    validate_op_namespace,
)

from trimem.banks.items import Items, NewItem
from trimem.banks.slot_bank import SlotBank
from trimem.errors import InvalidInputError
from trimem.reports import ErasureReceipt
from trimem.text.encoders import Embeddings, Encoder
from trimem.types import Item as Stored
from trimem.types import Namespace

NAMESPACE = "store"
"""Stands in a bank before the namespaces of a store, unless another is given."""

WHOLE = "$"
"""The path of a whole item."""

THREADS = 2
"""In which async calls of one store run: as one thread of Python runs at a time, more would hold up the event loop."""

T = TypeVar("T")


class TrimemStore(BaseStore):
    """Items by namespace and key, in the SQLite database of a bank: found by fields, by words and by meaning.

    Reads of a batch see what was there before its writes; these are one transaction. What is deleted, or has
    expired and is swept, is gone from the disk. Async methods run off the event loop; make the store before the loop
    runs, since that loads the encoder. Use it as a context manager, sync or async, to have it closed.

    Args:
        bank: A folder, which may be that of a bank, or an open bank, whose model can then read the items.
        index: What is searched: ``fields``, the paths of texts in an item (``"$"``, all of it, by default), and
            ``embed``, which is LangGraph's way to tell the encoder. ``dims`` need not be told. False searches
            nothing, and queries are ignored.
        ttl: ``default_ttl`` in minutes, ``refresh_on_read`` (True by default) and ``sweep_interval_minutes``, after
            which a write erases what has expired; without it, :meth:`sweep_ttl` does. What has expired is never
            returned, whatever ``omit_expired`` says.
        namespace: Stands in the bank before the namespaces of the store: stores of different namespaces share
            nothing.
        encoder: What finds items by meaning in a folder; see :func:`trimem.text.encoders.as_encoder`.

    Raises:
        InvalidInputError: An open bank is to be searched with another encoder than its own.
    """

    supports_ttl = True

    def __init__(
        self,
        bank: SlotBank | str | Path,
        *,
        index: IndexConfig | Mapping[str, Any] | Literal[False] | None = None,
        ttl: TTLConfig | None = None,
        namespace: str | Sequence[str] = NAMESPACE,
        encoder: Encoder | Embeddings | str | Path | None = None,
    ) -> None:
        config = dict(index or {})
        if (embed := config.get("embed")) is not None:
            encoder = ensure_embeddings(embed)
        if not isinstance(bank, SlotBank):
            self._items = Items.open(bank, namespace=namespace, encoder=encoder)
        elif encoder is None:
            self._items = bank.items(namespace=namespace)
        else:
            raise InvalidInputError("an open bank has its encoder: leave embed and encoder out, or give its folder")
        self._fields: Sequence[str] = () if index is False else config.get("fields") or [WHOLE]
        self._searchable = index is not False
        self.ttl_config = ttl
        self._swept = time.monotonic()
        self._threads = ThreadPoolExecutor(THREADS, "trimem-store")
        if self._searchable:
            self._items.warm_up()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._items!r})"

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        asked = list(ops)
        for op in asked:
            validate_op_namespace(op)
        results = self._read(asked)
        self._write([op for op in asked if isinstance(op, PutOp)])
        return results

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        return await self._off_the_loop(self.batch, list(ops))

    def delete_namespace(self, prefix: tuple[str, ...]) -> ErasureReceipt:
        """Erase all items in a namespace and below, so that no byte of them stays."""
        validate_op_namespace(SearchOp(prefix))
        return self._items.forget(namespace=_parts(prefix))

    async def adelete_namespace(self, prefix: tuple[str, ...]) -> ErasureReceipt:
        """:meth:`delete_namespace`, off the event loop."""
        return await self._off_the_loop(self.delete_namespace, prefix)

    def sweep_ttl(self) -> int:
        """Erase what has expired, and return how many items that were."""
        self._swept = time.monotonic()
        return sum(receipt.documents for receipt in self._items.sweep())

    async def asweep_ttl(self) -> int:
        """:meth:`sweep_ttl`, off the event loop."""
        return await self._off_the_loop(self.sweep_ttl)

    def close(self) -> None:
        """Let go of files, unless they are those of an open bank, once what is under way is done."""
        self._threads.shutdown()
        self._threads = ThreadPoolExecutor(THREADS, "trimem-store")
        self._items.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.close)

    async def _off_the_loop(self, call: Callable[..., T], *args: Any) -> T:
        context = copy_context()
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: context.run(call, *args))

    def _read(self, ops: Sequence[Op]) -> list[Result]:
        gets = {i: op for i, op in enumerate(ops) if isinstance(op, GetOp)}
        found: dict[int, Stored | None] = {}
        for refresh in (False, True):
            keys = {i: (_parts(op.namespace), op.key) for i, op in gets.items() if op.refresh_ttl is refresh}
            found.update(zip(keys, self._items.get(list(keys.values()), refresh=refresh), strict=True))
        results: list[Result] = []
        for i, op in enumerate(ops):
            match op:
                case GetOp():
                    item = found[i]
                    results.append(None if item is None else _item(item))
                case SearchOp():
                    results.append(self._search(op))
                case ListNamespacesOp():
                    results.append(self._namespaces(op))
                case PutOp():
                    results.append(None)
                case _:
                    raise InvalidInputError(f"a store takes get, search, put and list operations, got {op!r}")
        return results

    def _search(self, op: SearchOp) -> list[SearchItem]:
        found = self._items.search(
            op.query if self._searchable else None,
            namespace=_parts(op.namespace_prefix),
            where={key: _condition(value) for key, value in (op.filter or {}).items()},
            limit=op.limit,
            offset=op.offset,
            refresh=op.refresh_ttl,
        )
        return [SearchItem(**_told(item), score=item.score) for item in found]

    def _namespaces(self, op: ListNamespacesOp) -> list[tuple[str, ...]]:
        held = map(_labels, self._items.namespaces())
        matching = {
            path[: op.max_depth]
            for path in held
            if all(_matches(path, condition) for condition in op.match_conditions or ())
        }
        return sorted(matching)[op.offset : op.offset + op.limit]

    def _write(self, ops: Sequence[PutOp]) -> None:
        if not ops:
            return
        minutes = (self.ttl_config or {}).get("sweep_interval_minutes")
        if minutes is not None and time.monotonic() - self._swept >= 60 * minutes:
            self.sweep_ttl()
        last = {(_parts(op.namespace), op.key): op for op in ops}
        self._items.write(
            [self._new(key, op, op.value) for (_, key), op in last.items() if op.value is not None],
            [key for key, op in last.items() if op.value is None],
        )

    def _new(self, key: str, op: PutOp, value: Mapping[str, Any]) -> NewItem:
        paths = op.index if isinstance(op.index, list) else self._fields
        texts: list[str] = []
        if self._searchable and op.index is not False:
            texts = [text for path in paths for text in get_text_at_path(value, path) if text.strip()]
        return NewItem(_parts(op.namespace), key, value, texts, None if op.ttl is None else _ttl(op.ttl))


def _parts(labels: Sequence[str]) -> Namespace:
    """Return a namespace of LangGraph's, whose labels may hold anything but dots, as one of trimem's."""
    return tuple("".join(map(_escaped, label)) for label in labels)


def _labels(parts: Namespace) -> tuple[str, ...]:
    return tuple(unquote(part, errors="surrogatepass") for part in parts)


def _escaped(character: str) -> str:
    plain = character.isprintable() and character not in "%/"
    return character if plain else quote(character, safe="", errors="surrogatepass")


def _ttl(minutes: float) -> timedelta:
    try:
        return timedelta(minutes=minutes)
    except (ValueError, OverflowError) as error:
        raise InvalidInputError(f"a time to live is a number of minutes, got {minutes!r}") from error


def _condition(value: Any) -> Any:
    """Return a filter of LangGraph's, in which a list stands for itself, as one of trimem's."""
    if isinstance(value, Mapping):
        return {key: each if str(key).startswith("$") else _condition(each) for key, each in value.items()}
    return {"$eq": value} if isinstance(value, list | tuple) else value


def _matches(namespace: tuple[str, ...], condition: MatchCondition) -> bool:
    path = tuple(condition.path)
    part = namespace[: len(path)] if condition.match_type == "prefix" else namespace[-len(path) :] if path else ()
    return len(part) == len(path) and all(wanted in ("*", label) for label, wanted in zip(part, path, strict=True))


def _item(item: Stored) -> Item:
    return Item(**_told(item))


def _told(item: Stored) -> dict[str, Any]:
    return {
        "namespace": _labels(item.namespace),
        "key": item.key,
        "value": dict(item.value),
        "created_at": item.created_at,
        "updated_at": item.updated_at,
    }
