"""kvpress among the systems of ``trimem bench explicit``."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from trimem.bench.kvpress.process import KvpressProcess
from trimem.bench.systems import Spoken
from trimem.explicit.bank import ExplicitBank
from trimem.types import Hit

BYTES_PER_NUMBER = 2
"""Key-values are counted in float16, as those of explicit memory: in what kvpress holds them is the model's matter."""


@dataclass(frozen=True, slots=True)
class Press:
    """A way of kvpress to compress, at a size.

    Attributes:
        classes: Names of kvpress' classes, each wrapped around the next; none keeps everything.
        as_small_as: Name of the variant whose bytes it may take; None for no limit.
    """

    classes: tuple[str, ...] = ()
    as_small_as: str | None = None


METHODS = {
    "expected_attention": ("ExpectedAttentionPress",),
    "adakv": ("AdaKVPress", "ExpectedAttentionPress"),
    "snapkv": ("SnapKVPress",),
    "kvzip": ("KVzipPress",),
    "knorm": ("KnormPress",),
}

PRESSES = {
    "kvpress_none": Press(),
    **{
        f"kvpress_{name}_{size}": Press(classes, f"explicit_{size}")
        for name, classes in METHODS.items()
        for size in ("quarter", "eighth")
    },
}
"""By the name of their row.

``kvpress_none`` is text RAG in kvpress' environment, for what differs between the two. Presses that need something
learnt for each model (KVzap, FastKVzip, QFilter, LU-KV, RestoreKV) are left out.
"""


@dataclass(frozen=True, slots=True)
class Kvpress:
    """The text of the hits, read into key-values that are compressed before the question is known.

    No two questions find the same references, so nothing can be computed before: the time to the first
    token has the prefill of the references in it, and all passes that the press makes over them.

    Attributes:
        bank: Whose words stand around the references.
        name: Of the system.
        process: What answers.
        classes: As of :class:`Press`.
        share: Of the references' key-values that is kept. As with explicit memory, what stands before the
            references is on top of it.
    """

    bank: ExplicitBank
    name: str
    process: KvpressProcess
    classes: tuple[str, ...] = ()
    share: float = 1.0

    searches: ClassVar[bool] = True

    def ask(
        self, question: str, hits: Sequence[Hit], answer: str, *, max_new_tokens: int, lead: str
    ) -> tuple[Spoken, float]:
        """Answer from ``hits``; see :meth:`trimem.bench.systems.System.ask`.

        Raises:
            PeerError: kvpress fails.
        """
        compiler, lm = self.bank.compiler, self.bank.model
        started = time.perf_counter()
        prefix = compiler.prefix_ids
        references = [token for hit in reversed(hits) for token in compiler.reference(hit.text)]
        prompt = [*compiler.question(question), *lm.tokenize(lead)]
        prepared = time.perf_counter() - started
        said = self.process(
            presses=self.classes,
            kept=len(prefix) + int(self.share * len(references)),
            context=[*prefix, *references],
            question=prompt,
            wanted=lm.tokenize(f" {answer}"),
            max_new_tokens=max_new_tokens,
        )
        new_tokens, seconds = len(said["ids"]), said["finished"] - said["first_token"]
        text = lm.tokenizer.decode(said["ids"], skip_special_tokens=True)
        assert isinstance(text, str)  # what one list of ids is decoded to
        spoken = Spoken(
            text.strip(),
            prepared + said["first_token"],
            (new_tokens - 1) / seconds if new_tokens > 1 else 0.0,
            said["read_tokens"],
            tuple(hits),
            kept_bytes=BYTES_PER_NUMBER * (said["numbers"] - len(prefix) * numbers_per_token(self.bank)),
        )
        return spoken, said["nll"]

    def bytes_per_ref(self, said: Sequence[Spoken]) -> float:
        """Return a reference's share of the database, which search needs, and what was kept of its key-values."""
        stats = self.bank.stats()
        return stats.database_bytes / stats.slots + statistics.mean(one.kept_bytes / len(one.hits) for one in said)


def numbers_per_token(bank: ExplicitBank) -> int:
    """Return how many numbers the keys and values of a token are, in all layers."""
    return sum(layer.num_kv_heads * (layer.head_dim + layer.value_dim) for layer in bank.model.layers)


def share_of(small: ExplicitBank, hits: Iterable[Hit]) -> float:
    """Return which share of the key-values of references takes as many bytes as a bank's records of them do.

    Args:
        small: A bank that has compiled the hits.
        hits: What is read.
    """
    tokens = statistics.mean({hit.id: hit.slot.tokens for hit in hits}.values())
    stats = small.stats()
    return min(1.0, stats.tensor_bytes / stats.compiled / (BYTES_PER_NUMBER * numbers_per_token(small) * tokens))
