"""Rows as lines of JSON, the form in which they leave a bank and come into another.

What follows from the rest is left out and made again: words of namespaces, checksums. Vectors and tensors are bytes
and travel beside the lines.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any

from trimem.checks import as_namespace, check_characters, check_text
from trimem.store.schema import DocumentRow, ErasureRow, ItemRow, SlotRow
from trimem.store.scope import format_path, parse_path, scope_words
from trimem.types import Namespace

_MOST = 2**63  # what SQLite holds
_DOCUMENT = {"namespace", "key", "content_hash", "text", "metadata", "created_at", "item", "slots"}
_SLOT = {
    *("id", "text", "start", "stop", "line", "tokens", "created_at"),
    *("expires_at", "provenance", "trust", "reads", "read_at", "warmth", "warmth_age", "tensors"),
}
_ITEM = {"created_at", "ttl", "expires_at"}
_RECEIPT = {"id", "namespace", "reason", "documents", "slots", "records", "tensor_bytes", "erased_at"}


def document_line(row: DocumentRow, newest: int, item: ItemRow | None, tensors: Mapping[str, str]) -> bytes:
    """Return a document with its slots.

    Args:
        row: Its row.
        newest: The newest row of a slot; what has been written since a slot was used is told by it.
        item: What it is beside its text, if it is an item.
        tensors: Checksums of the tensors of those slots that have any, by their ids.
    """
    return _line(
        {
            "namespace": parse_path(row.namespace),
            "key": row.key,
            "content_hash": row.content_hash,
            "text": row.text,
            "metadata": row.meta,
            "created_at": row.created_at.isoformat(),
            "item": None
            if item is None
            else {
                "created_at": item.created_at.isoformat(),
                "ttl": item.ttl,
                "expires_at": None if item.expires_at is None else item.expires_at.isoformat(),
            },
            "slots": [
                {
                    "id": slot.slot_id,
                    "text": slot.text,
                    "start": slot.start,
                    "stop": slot.stop,
                    "line": slot.line,
                    "tokens": slot.tokens,
                    "created_at": slot.created_at.isoformat(),
                    "expires_at": None if slot.expires_at is None else slot.expires_at.isoformat(),
                    "provenance": slot.provenance,
                    "trust": slot.trust,
                    "reads": slot.reads,
                    "read_at": None if slot.read_at is None else slot.read_at.isoformat(),
                    "warmth": slot.warmth,
                    "warmth_age": None if slot.warmth_at is None else max(newest - slot.warmth_at, 0),
                    "tensors": tensors.get(slot.slot_id),
                }
                for slot in row.slots
            ],
        }
    )


def receipt_line(row: ErasureRow) -> bytes:
    """Return the receipt of an erasure."""
    return _line(
        {
            "id": row.id,
            "namespace": parse_path(row.namespace),
            "reason": row.reason,
            "documents": row.documents,
            "slots": row.slots,
            "records": row.records,
            "tensor_bytes": row.tensor_bytes,
            "erased_at": row.erased_at.isoformat(),
        }
    )


def parse(line: bytes) -> Any:
    """Return what JSON says, and nothing that JSON cannot.

    Raises:
        ValueError: It is no JSON, or has numbers that are none.
        RecursionError: It is nested too deeply.
    """
    return json.loads(line.decode(), parse_constant=_refuse)


def document_row(line: bytes, newest: int) -> tuple[DocumentRow, ItemRow | None, dict[str, str]]:
    """Return the document of a line, its slots still without vectors, and the checksums of their tensors by id.

    An item does not know its document yet.

    Args:
        line: Of an export.
        newest: What the newest row of a slot will be when all of the export is stored.

    Raises:
        ValueError: It is none that :func:`document_line` made.
        RecursionError: It is nested too deeply.
    """
    data = _object(parse(line), _DOCUMENT, {"item"})
    namespace = _namespace(data["namespace"])
    if not isinstance(data["metadata"], dict):
        raise ValueError("the metadata of a document is no object")
    check_characters(json.dumps(data["metadata"], ensure_ascii=False), "metadata")
    row = DocumentRow(
        format_path(namespace),
        check_text(data["key"], "the key of a document"),
        _string(data["content_hash"]),
        _string(data["text"]),
        data["metadata"],
        moment_of(data["created_at"]),
    )
    item = None if data["item"] is None else _item_row(_object(data["item"], _ITEM))
    if not isinstance(data["slots"], list) or not (data["slots"] or item):
        raise ValueError("a document has no slots")
    told = [_object(slot, _SLOT, {"warmth", "warmth_age"}) for slot in data["slots"]]
    row.slots = [_slot_row(slot, namespace, newest) for slot in told]
    tensors = {slot["id"]: _string(slot["tensors"]) for slot in told if slot["tensors"] is not None}
    return row, item, tensors


def receipt_row(line: bytes) -> ErasureRow:
    """Return the receipt of a line.

    Raises:
        ValueError: It is none that :func:`receipt_line` made.
        RecursionError: It is nested too deeply.
    """
    data = _object(parse(line), _RECEIPT)
    if not isinstance(data["slots"], list):
        raise ValueError("the slots of a receipt are no list")
    return ErasureRow(
        _string(data["id"]),
        format_path(_namespace(data["namespace"])),
        _string(data["reason"]),
        _count(data["documents"]),
        [_string(slot) for slot in data["slots"]],
        _count(data["records"]),
        _count(data["tensor_bytes"]),
        moment_of(data["erased_at"]),
        finished=True,
    )


def _item_row(data: Mapping[str, Any]) -> ItemRow:
    ttl = data["ttl"]
    if ttl is not None and (isinstance(ttl, bool) or not isinstance(ttl, int | float) or not 0 < ttl < _MOST):
        raise ValueError("the time to live of an item is no number above 0")
    created, expiry = moment_of(data["created_at"]), _moment_or_none(data["expires_at"])
    row = ItemRow(0, created, None if ttl is None else float(ttl), expiry)
    row.checksum = row.digest()
    return row


def _slot_row(data: Mapping[str, Any], namespace: Namespace, newest: int) -> SlotRow:
    start, stop = _count(data["start"]), _count(data["stop"])
    if start > stop:
        raise ValueError("a slot ends before it begins")
    trust = _number(data["trust"])
    if not 0 <= trust <= 1:
        raise ValueError("the trust of a slot is no number in [0, 1]")
    age = None if data["warmth_age"] is None else _count(data["warmth_age"])
    warmth = None if data["warmth"] is None else _number(data["warmth"])
    return SlotRow(
        _slot_id(data["id"]),
        format_path(namespace),
        _string(data["text"]),
        start,
        stop,
        _count(data["line"]),
        _count(data["tokens"]),
        b"",
        moment_of(data["created_at"]),
        scope=scope_words(namespace),
        expires_at=_moment_or_none(data["expires_at"]),
        provenance=None if data["provenance"] is None else _string(data["provenance"]),
        trust=trust,
        reads=_count(data["reads"]),
        read_at=_moment_or_none(data["read_at"]),
        warmth=None if age is None else warmth,  # before there was an age, it meant something in its own bank only
        warmth_at=None if age is None or warmth is None else newest - age,
    )


def _line(data: Mapping[str, Any]) -> bytes:
    return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


def _object(data: object, names: set[str], later: Collection[str] = ()) -> dict[str, Any]:
    """Return an object of these names; those that came later are null where they are not said."""
    if not isinstance(data, dict) or {*dict.fromkeys(later), *data} != names:
        raise ValueError(f"a line is no object of {', '.join(sorted(names))}")
    return {**dict.fromkeys(later), **data}


def _namespace(data: object) -> Namespace:
    if not isinstance(data, list):
        raise ValueError("a namespace is no list")
    namespace = as_namespace(data)
    for part in namespace:
        check_characters(part, "a namespace")
    return namespace


def _string(data: object) -> str:
    if not isinstance(data, str):
        raise ValueError(f"a string is needed, not {type(data).__name__}")
    return check_characters(data, "a string")


def _slot_id(data: object) -> str:
    said = _string(data)
    if not said or "/" in said or not said.isprintable():
        raise ValueError("the id of a slot is empty, or holds '/'")
    return said


def _count(data: object) -> int:
    if isinstance(data, bool) or not isinstance(data, int) or not 0 <= data < _MOST:
        raise ValueError("a whole number of at least 0 is needed")
    return data


def _number(data: object) -> float:
    if isinstance(data, bool) or not isinstance(data, int | float) or not math.isfinite(data):
        raise ValueError("a finite number is needed")
    return float(data)


def _moment_or_none(data: object) -> datetime | None:
    return None if data is None else moment_of(data)


def moment_of(data: object) -> datetime:
    """Return a time with its zone, in UTC.

    Raises:
        ValueError: It is none.
    """
    moment = datetime.fromisoformat(_string(data))
    if moment.tzinfo is None:
        raise ValueError("a time has no zone")
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("a time lies outside of all years") from error
