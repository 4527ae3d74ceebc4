"""Killing a process that writes, at any moment, and looking at what it leaves.

A child stores, replaces, forgets, lets expire, makes room, compacts, exports, imports, brings the bank to another
model, and puts items and deletes others in one go; what it is about to do and what it has done goes to a log. It is
killed, the bank is opened again, and must hold what was done, and of what was only begun all or nothing, of an import
each document: text, objects, tensors bit by bit, all of one model, and no byte of what was forgotten.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

from trimem.bench.numbered import (
    ITEMS,
    NAMESPACE,
    DurabilityError,
    compare,
    compare_item,
    is_item,
    model_of,
    new_bank,
    next_of,
    open_store,
    put,
    put_item,
    slot_id,
    tensors_of,
)
from trimem.progress import track
from trimem.store import building, exporting, upkeep
from trimem.store.capacity import Capacity
from trimem.store.exporting import export_bank
from trimem.store.importing import Export, import_bank
from trimem.store.integrity import verify
from trimem.store.items import ItemRows
from trimem.store.metadata import Document, MetadataStore
from trimem.types import Namespace

_KEYS = 12  # documents that are written again and again
_ROOM = Capacity(slots=6, policy="lru")  # what was written last stays
_SECONDS = {"import": 0.15, "export": 0.1, "recompile": 1.0}  # that an operation takes, about
_OPERATION = 0.03  # likewise, of all others
_MODEL = ""  # the key under which contents hold the number of the model that made the tensors
_WEIGHTS = {"remember": 6, "item": 3, "forget": 2, "expire": 2, "evict": 2, "compact": 2, "export": 1, "import": 5}
_WEIGHTS["recompile"] = 3
_OPERATIONS = tuple(_WEIGHTS)

Contents = dict[str, int]
"""The number that each document was last written with; its text and tensors follow from it."""


def recompile(store: MetadataStore, model: int) -> None:
    """Bring a bank to another model, going on with what was begun for it."""
    beside = building.database_beside(store.path.parent)
    beside.parent.mkdir(exist_ok=True)
    new = MetadataStore(beside)
    try:
        made = new_bank(new, model)
        new.made_from = store

        def write(namespace: Namespace, documents: Sequence[Document]) -> None:
            for document in documents:
                put(new, document.key, int(document.metadata["number"]), namespace)

        building.switch(store, new, building.target_of(made), write)
    finally:
        new.close()
    building.remove(store.path.parent)


def begun(store: MetadataStore) -> int | None:
    """Return the model for which a bank is being made anew; None where it is for none."""
    beside = building.database_beside(store.path.parent)
    if not beside.exists():
        return None
    new = MetadataStore(beside)
    try:
        return None if new.bank() is None else model_of(new)
    finally:
        new.close()


def import_file(store: MetadataStore, file: Path) -> None:
    """Take an export in."""
    with Export(file) as export:
        import_bank(store, export, progress=False)


def numbers(store: MetadataStore) -> Contents:
    """Return what a bank holds."""
    held = {slot.document: int(slot.metadata["number"]) for slot in store.slots(store.ids(NAMESPACE, None))}
    items = {item.key: int(item.value["number"]) for item in ItemRows(store).newest(NAMESPACE, None, 2 * ITEMS, 0)}
    return {**held, **items, _MODEL: model_of(store)}


def work(folder: str, log: str, seed: int) -> None:
    """Do one thing after another until killed, and say so before and after each."""
    exporting.GROUP_SLOTS = 3  # so that there are several groups
    store, file = open_store(Path(folder)), Path(f"{folder}.zip")
    rng = random.Random(seed)  # noqa: S311 - not for secrets
    handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    number = seed * 100_000
    exported: Contents = {}
    while True:
        number += 1
        (operation,) = rng.choices(_OPERATIONS, list(_WEIGHTS.values()))
        key = f"i{rng.randrange(ITEMS)}" if operation == "item" else f"d{rng.randrange(_KEYS)}"
        if operation == "import" and exported.get(_MODEL) != model_of(store):
            operation = "export"  # what there is cannot be imported
        model = begun(store) or number
        told = (_MODEL, model) if operation == "recompile" else (key, number)
        line = [operation, *told, exported if operation == "import" else {}]
        os.write(handle, f"{json.dumps(['begin', *line])}\n".encode())
        if operation == "remember":
            put(store, key, number)
        elif operation == "item":
            put_item(store, key, number)
        elif operation == "evict":
            store.erase_excess(_ROOM)
        elif operation == "forget":
            store.delete(NAMESPACE, [key], None)
        elif operation == "expire":  # its time is over now, and it is erased
            store.update(NAMESPACE, [key], {}, {"expires_at": store.now()})
            store.erase_expired()
        elif operation == "compact":
            upkeep.compact(store)
        elif operation == "export":
            export_bank(store, file, None, progress=False)
            exported = numbers(store)
        elif operation == "import":
            import_file(store, file)
        else:
            recompile(store, model)
        os.write(handle, f"{json.dumps(['done', *line])}\n".encode())


def replay(contents: Contents, lines: list[list[Any]]) -> tuple[Contents, Contents]:
    """Return what a bank must hold after a log: at least, and if what was begun last counts."""
    done, last = dict(contents), dict(contents)
    for state, operation, key, number, held in lines:
        last = _after(done, operation, key, number, held)
        if state == "done":
            done = last
    return done, last


def run(folder: Path, kills: int, seed: int = 0, operations: int = 12) -> dict[str, Any]:
    """Kill a writer again and again and compare what it left with what it had acknowledged.

    Args:
        folder: Of the bank, which grows old over all kills.
        kills: How often.
        seed: Of the operations and moments.
        operations: Most operations before a writer is killed, in the middle of the next.

    Returns:
        How often which operation was interrupted, and how many had been acknowledged.

    Raises:
        DurabilityError: Something was lost, mixed up or not forgotten.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    rng = random.Random(seed)  # noqa: S311
    open_store(folder).close()
    contents: Contents = {_MODEL: 0}
    ever: set[int] = set()
    erased: set[int] = set()
    interrupted: dict[str, int] = dict.fromkeys(_OPERATIONS, 0)
    acknowledged = swept = 0
    with track("killing", kills) as advance:
        for i in range(kills):
            log = folder.parent / f"{folder.name}-{i}.log"
            arguments = (str(folder), str(log), seed * kills + i + 1)
            lines = _killed(context, arguments, log, rng.randrange(operations), rng.random())
            log.unlink()
            done, last = replay(contents, lines)
            acknowledged += sum(line[0] == "done" for line in lines)
            if lines and lines[-1][0] == "begin":
                interrupted[lines[-1][1]] += 1
            before = contents
            store = open_store(folder)
            try:
                swept += _strays_left(store)
                contents = _held(store, done, last, partly=bool(lines) and lines[-1][1] == "import")
                if lines and lines[-1][:2] == ["begin", "import"]:
                    import_file(store, Path(f"{folder}.zip"))
                    contents = _held(store, last, last)
            finally:
                store.close()
            ever |= {line[3] for line in lines if line[1] == "remember"}
            erased = _erased(erased, before, lines) - set(contents.values())
            _forgotten(folder, ever - set(contents.values()), erased)
            advance(1)
    return {"kills": kills, "acknowledged": acknowledged, "interrupted": interrupted, "files_left": swept}


def _killed(
    context: ForkServerContext, arguments: tuple[str, str, int], log: Path, operations: int, share: float
) -> list[list[Any]]:
    """Run a writer, kill it in that share of what it does after so many operations, and return its log."""

    def done() -> bool:
        return log.exists() and log.stat().st_size > 0 and log.read_text().count("done") >= operations

    process = context.Process(target=work, args=arguments, daemon=True)
    process.start()
    while not done() and process.is_alive():
        time.sleep(0.001)
    (*_, line) = log.read_text().splitlines() if log.exists() else ['["", ""]']
    time.sleep(share * _SECONDS.get(json.loads(line)[1], _OPERATION))
    with suppress(ProcessLookupError):
        os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    if process.exitcode != -signal.SIGKILL:
        raise DurabilityError(f"a writer ended by itself with {process.exitcode}")
    return [json.loads(line) for line in log.read_text().splitlines()]


def _after(contents: Contents, operation: str, key: str, number: int, held: Contents) -> Contents:
    if operation in ("remember", "recompile"):
        return {**contents, key: number}
    if operation == "import":
        return {**contents, **held}
    if operation == "item":
        return {**{other: held for other, held in contents.items() if other != next_of(key)}, key: number}
    if operation == "evict":
        documents = sorted((held, other) for other, held in contents.items() if other and not is_item(other))
        gone = {other for _, other in documents[: -(_ROOM.slots or 0)]}
        return {other: held for other, held in contents.items() if other not in gone}
    if operation in ("forget", "expire"):
        return {other: held for other, held in contents.items() if other != key}
    return contents


def _held(store: MetadataStore, done: Contents, last: Contents, *, partly: bool = False) -> Contents:
    """Return which of two states a bank is in, document by document if it may be ``partly``, checked bit by bit."""
    report = verify(store)
    if not report.ok:
        raise DurabilityError(f"the bank is damaged: {report.problems}")
    found = numbers(store)
    mixed = found.keys() <= {*done, *last} and all(
        found.get(key) in (done.get(key), last.get(key)) for key in {*done, *last}
    )
    if found not in (done, last) and not (partly and mixed):
        raise DurabilityError(f"the bank holds {found}, acknowledged is {done}, begun {last}")
    for key in found.keys() - {_MODEL}:
        if is_item(key):
            compare_item(store, key, found[key])
        else:
            compare(store, slot_id(NAMESPACE, key, found[key]), there=True)
    return found


def _strays_left(store: MetadataStore) -> int:
    left = len(list(store.tensors.folder.glob("*"))) - len(store.shard_names())
    if left:
        raise DurabilityError(f"{left} files are left that belong to nothing")
    return left


def _erased(erased: set[int], contents: Contents, lines: list[list[Any]]) -> set[int]:
    """Return the numbers of what was forgotten, not only replaced, and has not come back since by an import."""
    for i, (_, operation, *_) in enumerate(lines):
        before, _ = replay(contents, lines[:i])
        _, after = replay(contents, lines[: i + 1])
        if operation in ("forget", "expire", "evict", "item"):
            erased = erased | {before[other] for other in before.keys() - after.keys()}
        erased = erased - set(after.values())
    return erased


def _forgotten(folder: Path, gone: set[int], erased: set[int]) -> None:
    """Raise if tensors that were replaced or forgotten, or a text that was forgotten, stand in any file."""
    data = b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())
    for number in gone:
        if tensors_of(number)["key"].numpy().tobytes()[:64] in data:
            raise DurabilityError(f"the tensors of number {number} were forgotten and are still there")
    for number in erased:
        if f"secret{number:08}x".encode() in data:
            raise DurabilityError(f"the text of number {number} was forgotten and is still there")
