"""How much of a vector is left when it is stored in few bytes, and how fast slots are read and written over."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch

from trimem.bench.environment import environment
from trimem.bench.transit.bank import measure_bank
from trimem.bench.transit.key_values import KV_SYSTEMS, measure_key_values
from trimem.bench.transit.systems import FIXED, SYSTEMS, Task
from trimem.bench.transit.talk import measure_talk
from trimem.bench.transit.tasks import Data, embeddings, held_out, paper, recall
from trimem.checks import whole
from trimem.drawing import new_figure
from trimem.errors import InvalidInputError
from trimem.lm.load import load_model
from trimem.lm.model import LanguageModel
from trimem.transit.config import TransitConfig
from trimem.transit.idrp import Idrp
from trimem.transit.slots import SlotMemory

DEFAULT = ("idrp", "pca", "autoencoder", "int8", "int4")
IMAGE_TASKS = ("paper_64", "paper_full", "paper_synthetic", "patches_8", "blocks_32")
_SLOT_CODE = 64
_QUALITY = {"embeddings": "recall@10", "key_values": "nats a token of the answer"}
_KV_REFS = 2
_KV_FITTED_ON = 8


def run(
    *,
    images: Path | None = None,
    train: Path | None = None,
    squad: Path | None = None,
    fitted_to: Path | None = None,
    kv: Path | None = None,
    lm: LanguageModel | None = None,
    bank: Path | None = None,
    talk: Path | None = None,
    n: int = 20,
    tasks: Sequence[str] = IMAGE_TASKS,
    names: Sequence[str] = DEFAULT,
    numbers: str = "int8",
    codes: Sequence[int] = (),
    slots: Sequence[int] = (),
    churn: int = 0,
    steps: int | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure systems on images and embeddings, and slots on their own.

    Args:
        images: Folder of images.
        train: Folder of images to fit to in held-out tasks.
        squad: A file in SQuAD's format, for embeddings.
        fitted_to: A file of texts, one a line, whose embeddings are fitted to instead of its own.
        kv: A file in SQuAD's format, for key-values.
        lm: The model that answers from them; None is the small one that comes as a wheel.
        bank: A file in SQuAD's format, whose paragraphs a bank of texts holds.
        talk: A file in LoCoMo's format, whose dialogues are written as they surprise.
        n: Questions that are answered from key-values, or looked for in the bank or the talk.
        tasks: What to do with images, of :data:`IMAGE_TASKS`.
        names: Systems, of :data:`trimem.bench.transit.systems.SYSTEMS`.
        numbers: In what codes are stored.
        codes: Code sizes instead of each task's own.
        slots: Numbers of slots to time reading with.
        churn: Writes into the least of them; 0 for none.
        steps: Of training instead of each task's own.
        seed: Of training.

    Raises:
        InvalidInputError: There is nothing to measure, no such task or system, or what belongs to what is not given.
    """
    if unknown := set(names) - set(SYSTEMS) - (set(KV_SYSTEMS) if kv else set()):
        raise InvalidInputError(f"systems are {', '.join(SYSTEMS)}, got {', '.join(sorted(unknown))}")
    if unknown := set(tasks) - set(IMAGE_TASKS):
        raise InvalidInputError(f"tasks are {', '.join(IMAGE_TASKS)}, got {', '.join(sorted(unknown))}")
    if not slots and all(source is None for source in (images, squad, kv, bank, talk)):
        raise InvalidInputError(
            "there is nothing to measure: give --images, --embeddings, --kv, --bank, --talk or --slots"
        )
    whole(n, "n", 1)
    if steps is not None:
        whole(steps, "steps", 0)
    for given, option, of, source in (
        (train, "--train", "--images", images),
        (fitted_to, "--fitted-to", "--embeddings", squad),
        (churn, "--churn", "--slots", slots),
    ):
        if given and not source:
            raise InvalidInputError(f"{option} is of {of}: leave it out, or give {of}, too")
    known = {"images and embeddings": [name for name in names if name in SYSTEMS]} if images or squad else {}
    if kv is not None:
        known["key-values"] = [name for name in names if name in KV_SYSTEMS]
    if missing := [what for what, some in known.items() if not some]:
        raise InvalidInputError(f"{', '.join(names)} measure nothing of {' and '.join(missing)}: name others, too")
    found: list[Data] = [_image_task(task, images, train, seed) for task in tasks] if images is not None else []
    if squad is not None:
        found.append(embeddings(squad, (48,), fitted_to))
    rows = [
        row
        for data in found
        for code in codes or data.codes
        for row in _measure(data, code, known["images and embeddings"], numbers, steps, seed)
    ]
    if kv is not None:
        chosen = known["key-values"]
        rows += measure_key_values(
            kv, lm=lm or load_model(), n=n, refs=_KV_REFS, fitted_on=_KV_FITTED_ON, names=chosen, seed=seed
        )
    return {
        "benchmark": "transit",
        "seed": seed,
        "n": n,
        "steps": steps,
        "numbers": numbers,
        "images": None if images is None else images.name,
        "train": None if train is None else train.name,
        "embeddings": None if squad is None else squad.name,
        "fitted_to": None if fitted_to is None else fitted_to.name,
        "kv": None if kv is None else kv.name,
        "rows": rows,
        "bank": [] if bank is None else measure_bank(bank, n=n, seed=seed),
        "talk": [] if talk is None else measure_talk(talk, n=n, seed=seed),
        "slots": [_time_slots(capacity, seed) for capacity in slots],
        "churn": _churn(min(slots), churn, seed) if slots and churn else None,
        "environment": environment(),
    }


def _image_task(task: str, images: Path, train: Path | None, seed: int) -> Data:
    if task == "patches_8":
        return held_out(images, train, size=8, codes=(12, 48))
    if task == "blocks_32":
        return held_out(images, train, size=32, codes=(192,))
    return paper(images, square=64 if task != "paper_full" else None, synthetic=task == "paper_synthetic", seed=seed)


def _measure(
    data: Data, code: int, names: Sequence[str], numbers: str, steps: int | None, seed: int
) -> list[dict[str, Any]]:
    """Return a row for each system, and one for each image where there are but a few."""
    config = TransitConfig(code, numbers=numbers, predictor_hidden=384, blocks=data.blocks)
    if data.patch is not None:
        config = TransitConfig.of_patches(data.patch, code, numbers=numbers)
    task = Task(
        data.train,
        data.validation,
        config,
        data.objective,
        data.steps if steps is None else steps,
        data.batch,
        3e-3,
        seed,
        data.augment,
        data.draw,
    )
    rows = []
    for name in names:
        begun = perf_counter()
        system = SYSTEMS[name](task)
        fitted = perf_counter() - begun
        parts = list(data.test.items())
        together = torch.cat([x for _, x in parts])
        begun = perf_counter()
        stored = system.compress(together)
        compressed = perf_counter() - begun
        begun = perf_counter()
        expanded = system.expand(stored)
        spent = perf_counter() - begun
        shown = [("all", together, expanded)]
        if data.queries is None:
            of = expanded.split([len(x) for _, x in parts])
            shown += [(image, x, y) for (image, x), y in zip(parts, of, strict=True)]
        for image, x, y in shown:
            pictured = y.clamp(0, 1) if data.queries is None else y
            mse = float((x - pictured).square().mean())
            rows.append(
                {
                    "task": data.task,
                    "split": data.split,
                    "system": name,
                    "code": None if name in FIXED else code,
                    "image": image,
                    "psnr": -10 * math.log10(max(mse, 1e-12)) if data.queries is None else None,
                    "mae": float((x - pictured).abs().mean()),
                    "mse": mse,
                    "recall_at_10": None if data.queries is None else recall(data.queries, x, y),
                    "answer_nll": None,
                    "bytes": system.nbytes(x.shape[1]),
                    "fit_seconds": fitted,
                    "compress_per_s": len(together) / compressed,
                    "expand_per_s": len(together) / spent,
                }
            )
    return rows


def _slot_codec(seed: int) -> Idrp:
    data = torch.randn(2000, 2 * _SLOT_CODE, generator=torch.Generator().manual_seed(seed))
    return Idrp.principal(data, TransitConfig(_SLOT_CODE, layers=0, predictor_hidden=8))


def _time_slots(capacity: int, seed: int, reads: int = 50) -> dict[str, Any]:
    """Return how long one read of full slots takes, and whether it finds what a search in float64 does."""
    codec = _slot_codec(seed)
    memory = SlotMemory(codec, capacity)
    generator = torch.Generator().manual_seed(seed)
    codes = []
    for start in range(0, capacity, 1 << 16):
        x = torch.randn(min(1 << 16, capacity - start), codec.dim, generator=generator)
        memory.write(x)  # free slots are taken in order
        codes.append(codec.compress(x))
    queries = torch.randn(reads, codec.dim, generator=generator)
    memory.read(queries[:1])
    times = []
    found = []
    for query in queries:
        begun = perf_counter()
        found.append(int(memory.read(query[None]).slots))
        times.append(1000 * (perf_counter() - begun))
    held = codec.place(codec.unpack(torch.cat(codes))).double()
    scores = codec.place(codec.code(queries[:5])).double() @ held.T / held.norm(dim=1)
    return {
        "slots": capacity,
        "code": _SLOT_CODE,
        "read_p50_ms": float(np.percentile(times, 50)),
        "read_p99_ms": float(np.percentile(times, 99)),
        "exact": scores.argmax(1).tolist() == found[:5],
        "bytes": memory.stats().code_bytes,
    }


def _churn(capacity: int, writes: int, seed: int) -> dict[str, Any]:
    """Write over slots many times, and return the memory it took and whether the last are there."""
    import resource

    codec = _slot_codec(seed)
    memory = SlotMemory(codec, capacity)
    generator = torch.Generator().manual_seed(seed)
    pool = torch.randn(4 * capacity, codec.dim, generator=generator)
    memory.write(pool)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = perf_counter()
    done, lost = 0, 0
    while done < writes:
        part = pool[torch.randint(len(pool), (min(4096, capacity, writes - done),), generator=generator)]
        slots = memory.write(part)
        done += len(part)
        lost += capacity - memory.stats().occupied
    seconds = perf_counter() - begun
    held = bool(torch.allclose(memory.vectors(slots), codec.expand(codec.compress(part)), atol=1e-4))
    return {
        "slots": capacity,
        "writes": done,
        "writes_per_s": done / seconds,
        "grown_kb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before,
        "lost": lost,
        "last_are_held": held,
    }


def plot_transit(result: dict[str, Any], path: Path) -> None:
    """Draw quality against bytes, a panel for each task.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    rows = [row for row in result["rows"] if row["image"] == "all"]
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    if not tasks:
        raise InvalidInputError("there is nothing to draw: no system was measured")
    colors = {"idrp": "#2a7f62", "pca": "#f4a259", "autoencoder": "#5b8e7d"}
    figure = new_figure(4.2 * len(tasks), 3.6)
    for axes, task in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks, strict=True):
        for row in (row for row in rows if row["task"] == task):
            value = next(row[name] for name in ("psnr", "recall_at_10", "answer_nll") if row[name] is not None)
            axes.scatter(row["bytes"], value, color=colors.get(row["system"], "#9aa0a6"))
            axes.annotate(row["system"], (row["bytes"], value), fontsize=7, xytext=(3, 3), textcoords="offset points")
        axes.set_xscale("log")
        axes.set_xlabel("bytes a vector", fontsize=8)
        axes.set_ylabel(_QUALITY.get(task, "PSNR (dB)"), fontsize=8)
        axes.set_title(task, fontsize=10)
        axes.margins(x=0.25, y=0.15)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    figure.savefig(path, dpi=150)
