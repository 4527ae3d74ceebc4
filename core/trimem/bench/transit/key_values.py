"""How well a model answers from key-values that were stored in few bytes and expanded again."""

from __future__ import annotations

import random
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from trimem.bench.squad import load_squad
from trimem.bench.systems import LocalSystem, Setting
from trimem.bench.trials import NAMESPACE, Trial, search
from trimem.errors import InvalidInputError
from trimem.explicit.bank import ExplicitBank
from trimem.explicit.codec import CODECS, Codec
from trimem.explicit.product_quantization import ProductQuantization
from trimem.explicit.record import Record, rows
from trimem.explicit.records import TRAINING_ROWS, pack, unpack
from trimem.lm.attach import attach
from trimem.lm.model import LanguageModel
from trimem.progress import track
from trimem.transit.config import TransitConfig
from trimem.transit.key_values import KeyValueCodec
from trimem.types import Hit

KV_SYSTEMS = ("float16", "int8", "int4", "pca", "idrp", "pq")
_SHARES = ((15 / 16, "int4"), (13 / 16, "int2"))
"""Numbers of a code by channels: rows of 64 then take no more bytes than int4 and pq do."""
_STEPS = 300


@dataclass(frozen=True, slots=True)
class CodedMemory(LocalSystem):
    """The key-values of the hits attached, as a codec gives them back.

    Attributes:
        codec: The codec.
    """

    codec: Codec = CODECS["float16"]

    @contextmanager
    def prepare(self, question: str, hits: Sequence[Hit]) -> Iterator[Setting]:
        compiler = self.bank.compiler
        held = self.bank._records.read(compiler, [hit.id for hit in hits], [None] * len(hits))
        records = [unpack(pack(record, self.codec), self.codec, compiler.lm.dtype) for record in held]
        with attach(compiler.lm, compiler.place(records).memory):
            yield Setting(compiler.question(question))


def measure_key_values(
    path: Path, *, lm: LanguageModel, n: int, refs: int, fitted_on: int, names: Sequence[str], seed: int
) -> list[dict[str, Any]]:
    """Return a row for each system: how likely the right answers are, read from key-values that it stored.

    Codecs that are fitted are fitted to the key-values of other passages of the same file.

    Args:
        path: A file in SQuAD's format.
        lm: The model.
        n: Questions, drawn at random.
        refs: References a question.
        fitted_on: Passages to fit to.
        names: Of :data:`KV_SYSTEMS`.
        seed: Of the draw and of training.

    Raises:
        InvalidInputError: A name is unknown.
    """
    if unknown := set(names) - set(KV_SYSTEMS):
        raise InvalidInputError(f"systems on key-values are {', '.join(KV_SYSTEMS)}, got {', '.join(sorted(unknown))}")
    corpus = load_squad(path)
    drawn = random.Random(seed).sample(corpus.questions, min(n, len(corpus.questions)))  # noqa: S311 - no secret
    with tempfile.TemporaryDirectory(prefix="trimem-bench-") as folder, ExplicitBank.open(folder, model=lm) as bank:
        bank.remember(corpus.passages, namespace=NAMESPACE, compile=False)
        trials = [search(bank, question, refs) for question in drawn]
        read = {hit.slot.document for trial in trials for hit in trial.hits}
        others = [slot for slot in bank._store.slots(bank._store.ids((NAMESPACE,), None)) if slot.document not in read]
        chosen = random.Random(seed).sample(others, min(fitted_on, len(others)))  # noqa: S311
        bank.compile([hit for trial in trials for hit in trial.hits] + [Hit(slot, 0.0) for slot in chosen])
        learned = bank._records.read(bank.compiler, [slot.id for slot in chosen], [None] * len(chosen))
        sample = max(learned, key=lambda record: record.tokens)
        measured = []
        with track("storing key-values", len(names)) as advance:
            for name in names:
                for codec, code, fitted in _codecs(name, learned, seed):
                    measured.append(_row(bank, name, codec, code, fitted, trials, sample))
                advance(1)
        return measured


def _codecs(name: str, learned: Sequence[Record], seed: int) -> Iterator[tuple[Codec, int | None, float]]:
    """Yield the codecs of a system, each with the size of its code, if it has one, and the seconds it took to fit."""
    key, value = (torch.cat([getattr(record, part) for record in learned]).float() for part in ("key", "value"))
    begun = perf_counter()
    if name in ("pca", "idrp"):
        head = torch.cat([rows(record.counts)[0] for record in learned])
        channels = key.shape[1]
        for share, numbers in _SHARES:
            code = int(share * channels) // 4 * 4
            config = TransitConfig(code, numbers=numbers, layers=2, hidden=64, predictor_hidden=128, width=channels - 1)
            steps = _STEPS if name == "idrp" else 0
            begun = perf_counter()
            codec = KeyValueCodec.fit(
                key, value, head, learned[0].counts.numel(), config, steps=steps, seed=seed, progress=False
            )
            yield codec, code, perf_counter() - begun
    elif name == "pq":
        drawn = torch.randperm(len(key), generator=torch.Generator().manual_seed(seed))[:TRAINING_ROWS]
        yield ProductQuantization.train(key[drawn], value[drawn]), None, perf_counter() - begun
    else:
        yield CODECS[name], None, 0.0


def _row(
    bank: ExplicitBank,
    name: str,
    codec: Codec,
    code: int | None,
    fitted: float,
    trials: Sequence[Trial],
    sample: Record,
) -> dict[str, Any]:
    """Return what a system makes of the answers, and of one record."""
    system = CodedMemory(bank, name, codec=codec)
    nll = statistics.mean(
        system.answer_nll(trial.question.text, trial.hits, trial.question.answers[0], lead="") for trial in trials
    )
    begun = perf_counter()
    packed = pack(sample, codec)
    compressed = perf_counter() - begun
    begun = perf_counter()
    expanded = unpack(packed, codec, torch.float32)
    spent = perf_counter() - begun
    before = torch.cat([sample.key.float(), sample.value.float()])
    missed = torch.cat([expanded.key, expanded.value]) - before
    head_dim, value_dim = sample.key.shape[1], sample.value.shape[1]
    return {
        "task": "key_values",
        "split": "held_out" if name in ("pca", "idrp", "pq") else None,
        "system": name,
        "code": code,
        "image": "all",
        "psnr": None,
        "mae": float(missed.abs().mean()),
        "mse": float(missed.square().mean()),
        "recall_at_10": None,
        "answer_nll": nll,
        "bytes": codec.row_bytes(head_dim, value_dim),
        "fit_seconds": fitted,
        "compress_per_s": len(before) / compressed,
        "expand_per_s": len(before) / spent,
    }
