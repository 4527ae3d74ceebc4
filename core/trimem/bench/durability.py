"""Killing a process that writes, at any moment, and looking at what it leaves.

A child stores, replaces, forgets and compacts; what it is about to do and what it has done goes to a log.
It is killed, the bank is opened again, and must hold what was done, and of what was only begun all or
nothing: text, tensors bit by bit, and no byte of what was forgotten.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import time
from contextlib import suppress
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trimem.store import upkeep
from trimem.store.integrity import verify
from trimem.store.metadata import Document, MetadataStore, NewSlot
from trimem.store.tensors import Tensors
from trimem.types import Namespace, SlotId

DIM = 8
_KEYS = 12  # documents that are written again and again
_OPERATION = 0.03  # seconds that one takes, about
_NAMESPACE: Namespace = ("a",)
_OPERATIONS = ("remember", "remember", "remember", "forget", "compact")

Contents = dict[str, int]
"""The number that each document was last written with; its text and tensors follow from it."""


class DurabilityError(AssertionError):
    """A bank holds something else than what was acknowledged."""


def text_of(key: str, number: int) -> str:
    """Return a text that no other document has, now or ever."""
    return f"{key} holds secret{number:08}x"


def tensors_of(number: int) -> Tensors:
    """Return the tensors that belong to a number."""
    generator = torch.Generator().manual_seed(number)
    return {"key": torch.randn(64, 16, generator=generator), "count": torch.tensor([number])}


def open_store(folder: Path) -> MetadataStore:
    """Open a store of these documents, as a bank is opened: with all that a crash left put into order."""
    folder.mkdir(parents=True, exist_ok=True)
    store = MetadataStore(folder / "bank.sqlite")
    upkeep.tend(store)
    made_by = {"mechanism": "explicit", "model_name": "m", "model_fingerprint": "m", "encoder_fingerprint": "e"}
    store.create_bank(**made_by, config={"version": 1})
    return store


def put(store: MetadataStore, key: str, number: int, namespace: Namespace = _NAMESPACE) -> None:
    """Store a document of one slot."""
    text = text_of(key, number)
    vector = np.random.default_rng(number).normal(size=DIM).astype(np.float32)
    slot = NewSlot(slot_id(namespace, key, number), text, 0, len(text), 1, 3, vector)
    staged = store.tensors.stage({slot.slot_id: tensors_of(number)}, {"model": "m"})
    try:
        store.put(namespace, [(Document(key, text, {"number": number}), [slot])], [staged])
    finally:
        staged.discard()


def slot_id(namespace: Namespace, key: str, number: int) -> SlotId:
    """Return the id of the slot of a document that was last written with a number."""
    return f"{'.'.join(namespace)}-{key}-{number}"


def compare(store: MetadataStore, slot: SlotId, *, there: bool = False) -> None:
    """Raise unless a slot's text and tensors are those of its number.

    Args:
        store: Holds it.
        slot: Which.
        there: Whether nobody can have forgotten it meanwhile.

    Raises:
        DurabilityError: They are not.
    """
    _, key, number = slot.split("-")
    held, tensors = store.slots([slot]), store.read(slot)
    if there and not (held and tensors):
        raise DurabilityError(f"{slot} is lost")
    if held and held[0].text != text_of(key, int(number)):
        raise DurabilityError(f"{slot} holds {held[0].text!r} instead of {text_of(key, int(number))!r}")
    if tensors and not all(torch.equal(tensors[name], tensor) for name, tensor in tensors_of(int(number)).items()):
        raise DurabilityError(f"the tensors of {slot} are not those of its number")


def work(folder: str, log: str, seed: int) -> None:
    """Do one thing after another until killed, and say so before and after each."""
    store = open_store(Path(folder))
    rng = random.Random(seed)  # noqa: S311 - not for secrets
    handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    number = seed * 100_000
    while True:
        number += 1
        operation, key = rng.choice(_OPERATIONS), f"d{rng.randrange(_KEYS)}"
        os.write(handle, f"{json.dumps(['begin', operation, key, number])}\n".encode())
        if operation == "remember":
            put(store, key, number)
        elif operation == "forget":
            store.delete(_NAMESPACE, [key], None)
        else:
            upkeep.compact(store)
        os.write(handle, f"{json.dumps(['done', operation, key, number])}\n".encode())


def replay(contents: Contents, lines: list[list[Any]]) -> tuple[Contents, Contents]:
    """Return what a bank must hold after a log: at least, and if what was begun last counts."""
    done, last = dict(contents), dict(contents)
    for state, operation, key, number in lines:
        last = _after(done, operation, key, number)
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
    contents: Contents = {}
    gone: set[int] = set()
    erased: set[int] = set()
    interrupted: dict[str, int] = dict.fromkeys(_OPERATIONS, 0)
    acknowledged = swept = 0
    for i in range(kills):
        log = folder.parent / f"{folder.name}-{i}.log"
        arguments = (str(folder), str(log), seed * kills + i + 1)
        lines = _killed(context, arguments, log, rng.randrange(operations), rng.uniform(0, _OPERATION))
        log.unlink()
        done, last = replay(contents, lines)
        acknowledged += sum(line[0] == "done" for line in lines)
        if lines and lines[-1][0] == "begin":
            interrupted[lines[-1][1]] += 1
        before = contents
        store = open_store(folder)
        try:
            swept += _strays_left(store)
            contents = _held(store, done, last)
        finally:
            store.close()
        gone |= {line[3] for line in lines if line[1] == "remember"} - set(contents.values())
        erased |= _erased(before, lines) - set(contents.values())
        _forgotten(folder, gone, erased)
    return {"kills": kills, "acknowledged": acknowledged, "interrupted": interrupted, "files_left": swept}


def _killed(
    context: ForkServerContext, arguments: tuple[str, str, int], log: Path, operations: int, seconds: float
) -> list[list[Any]]:
    """Run a writer, kill it some time after so many operations, and return its log."""

    def done() -> bool:
        return log.exists() and log.stat().st_size > 0 and log.read_text().count("done") >= operations

    process = context.Process(target=work, args=arguments, daemon=True)
    process.start()
    while not done() and process.is_alive():
        time.sleep(0.001)
    time.sleep(seconds)
    with suppress(ProcessLookupError):
        os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    if process.exitcode != -signal.SIGKILL:
        raise DurabilityError(f"a writer ended by itself with {process.exitcode}")
    return [json.loads(line) for line in log.read_text().splitlines()]


def _after(contents: Contents, operation: str, key: str, number: int) -> Contents:
    if operation == "remember":
        return {**contents, key: number}
    if operation == "forget":
        return {other: held for other, held in contents.items() if other != key}
    return contents


def _held(store: MetadataStore, done: Contents, last: Contents) -> Contents:
    """Return which of two states a bank is in, checked bit by bit."""
    report = verify(store)
    if not report.ok:
        raise DurabilityError(f"the bank is damaged: {report.problems}")
    found = {slot.document: int(slot.metadata["number"]) for slot in store.slots(store.ids(_NAMESPACE, None))}
    if found not in (done, last):
        raise DurabilityError(f"the bank holds {found}, acknowledged is {done}, begun {last}")
    for key, number in found.items():
        compare(store, slot_id(_NAMESPACE, key, number), there=True)
    return found


def _strays_left(store: MetadataStore) -> int:
    left = len(list(store.tensors.folder.glob("*"))) - len(store.shard_names())
    if left:
        raise DurabilityError(f"{left} files are left that belong to nothing")
    return left


def _erased(contents: Contents, lines: list[list[Any]]) -> set[int]:
    """Return the numbers of what was forgotten, not only replaced."""
    erased = set()
    for i, (_, operation, key, _) in enumerate(lines):
        before, _ = replay(contents, lines[:i])
        if operation == "forget" and key in before:
            erased.add(before[key])
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
