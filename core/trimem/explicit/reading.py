"""What a model reads at one time, and what came of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from threading import Event

import torch
from torch import Tensor

from trimem.explicit.read import Placement, moved
from trimem.lm.attention import Attachment, AttentionShares
from trimem.lm.generate import stream
from trimem.lm.memory import stack_rows
from trimem.lm.model import LanguageModel
from trimem.types import Answer, Hit, SlotId


@dataclass(frozen=True, slots=True)
class Passage:
    """What was read from one exchange, or move, of memories to the next.

    Attributes:
        hits: Best match first; the model reads them the other way round, the best nearest to the
            context.
        placement: Where they stand; the prefix is record 0 and the last of n hits record 1.
        shares: The attention they received.
        row: Which row of the memory they are: a row of the batch, or a piece of one (:mod:`trimem.explicit.pieces`).
        rows: Of the memory.
        spoken: Whether what spoke read them, or only an earlier piece of the question did.
    """

    hits: tuple[Hit, ...]
    placement: Placement
    shares: AttentionShares
    row: int = 0
    rows: int = 1
    spoken: bool = True

    def by_pass(self) -> dict[int, Tensor]:
        """Return the attention on each token in each forward pass, by layer_idx (passes, num_kv_heads, tokens)."""
        return {
            layer_idx: mass[:, self.row, :, : self.placement.owner[layer_idx].shape[1]].cpu()
            for layer_idx, mass in self.shares.by_pass(self.rows).items()
            if layer_idx in self.placement.owner
        }

    def received(self) -> Tensor:
        """Return the attention mass on each hit in each forward pass (passes, hits)."""
        owners = len(self.hits) + 2  # the prefix, the hits, and -1 where a head has no token
        total = torch.zeros(0)
        for layer_idx, mass in self.by_pass().items():
            owner = self.placement.owner[layer_idx].flatten() % owners
            of_each = torch.zeros(len(mass), owners).index_add_(1, owner, mass.flatten(1))
            total = of_each if total.ndim == 1 else total + of_each
        return total[:, 1:-1].flip(1) if total.ndim == 2 else torch.zeros(0, len(self.hits))


class Reading:
    """Hits attached to a model.

    Args:
        lm: The model.
        hits: Best first.
        place: Brings hits to the positions right before the context.
        reanchor: See :class:`trimem.explicit.read_config.ReadConfig`.
    """

    def __init__(
        self,
        lm: LanguageModel,
        hits: Sequence[Hit],
        place: Callable[[Sequence[Hit]], Placement],
        reanchor: int | None,
    ) -> None:
        self._lm = lm
        self._place = place
        self._reanchor = reanchor
        self.passages = [Passage(tuple(hits), place(hits), AttentionShares())]
        self.attachment: Attachment | None = None

    def read_in_pieces(self, earlier: Sequence[Sequence[Hit]], starts: Sequence[int], size: int) -> None:
        """Let the pieces of a question each read hits of their own in its one forward pass.

        The last piece reads what is attached; after the pass comes :meth:`read_on`.

        Args:
            earlier: Hits of all pieces but the last.
            starts: Of all pieces, in tokens of the context.
            size: Of each in tokens.
        """
        assert self.attachment is not None  # the bank attaches what it places
        hits = [*map(tuple, earlier), self.hits]
        placements = [*map(self._place, hits[:-1]), self.placement]
        shares = AttentionShares()
        self.passages = passages_of(hits, placements, shares, 0, len(hits))
        rows = [moved(self._lm, each.memory, start) for each, start in zip(placements, starts, strict=True)]
        self.attachment.memory, self.attachment.shares = stack_rows(rows), shares
        self.attachment.piece = size

    def read_on(self, start: int) -> None:
        """Read from now on what the last piece of a question, from ``start`` on, has read."""
        assert self.attachment is not None  # the bank attaches what it places
        self.attachment.piece = None
        self._stand(self.hits, self.placement, start)

    @property
    def hits(self) -> tuple[Hit, ...]:
        """What is read now, best first."""
        return self.passages[-1].hits

    @property
    def placement(self) -> Placement:
        """Where it stands, before it moves along with the context."""
        return self.passages[-1].placement

    @property
    def shares(self) -> AttentionShares:
        """The attention it has received."""
        return self.passages[-1].shares

    @property
    def tokens(self) -> int:
        """Positions the memory takes, the prefix included."""
        return self.placement.span

    def follow(self, length: int) -> None:
        """Let memory move along with a context of ``length`` tokens, if it is to be re-anchored.

        Call it between two forward passes; ``ask`` does. O(memory tokens) when it moves.
        """
        if self._reanchor is not None and length % self._reanchor == 0:
            self._stand(self.hits, self.placement, length)

    def exchange(self, hits: Sequence[Hit], length: int) -> None:
        """Read other hits from now on, right before what follows a context of ``length`` tokens (Memory³, section 3.1).

        Call it between two forward passes; ``ask`` does, if the reading is to be exchanged.

        Raises:
            InvalidInputError: A hit is not in the bank (any more).
            ContextLengthError: The hits fill the model's context.
        """
        self._stand(tuple(hits), self._place(hits), length)

    def attended(self) -> tuple[Hit, ...]:
        """Return all hits that were read, with the share of attention each received so far; see :func:`attended`."""
        return attended(self.passages)

    def _stand(self, hits: tuple[Hit, ...], placement: Placement, length: int) -> None:
        assert self.attachment is not None  # the bank attaches what it places
        self.passages.append(Passage(hits, placement, AttentionShares()))
        self.attachment.memory = moved(self._lm, placement.memory, length)
        self.attachment.shares = self.shares


def passages_of(
    hits: Sequence[tuple[Hit, ...]], placements: Sequence[Placement], shares: AttentionShares, first: int, rows: int
) -> list[Passage]:
    """Return what the pieces of a question read in one pass, as a memory's rows from ``first`` on; the last speaks."""
    return [
        Passage(of_piece, placement, shares, first + i, rows, spoken=i == len(hits) - 1)
        for i, (of_piece, placement) in enumerate(zip(hits, placements, strict=True))
    ]


def attended(passages: Sequence[Passage]) -> tuple[Hit, ...]:
    """Return all hits that were read, with the share of attention each received.

    Shares are of the attention mass on hits, summed over layers, heads and generated tokens, and over the
    last tokens of the pieces of a long question; the prefix and the context itself do not count.
    """
    hits: dict[SlotId, Hit] = {}
    received: dict[SlotId, float] = defaultdict(float)
    for passage in passages:
        for hit, mass in zip(passage.hits, passage.received().sum(0).tolist(), strict=True):
            hits.setdefault(hit.id, hit)
            received[hit.id] += mass
    if not any(passage.shares.looks for passage in passages):
        return tuple(hits.values())
    total = max(sum(received.values()), torch.finfo(torch.float32).tiny)
    return tuple(replace(hit, attention=received[slot] / total) for slot, hit in hits.items())


class AnswerStream(Iterator[str]):
    """An answer as it is spoken: iterate over its pieces, then ask for the whole.

    Args:
        speak: Generates, given ``on_text`` and ``stop``, and returns the answer.
    """

    def __init__(self, speak: Callable[[Callable[[str], None], Callable[[], bool]], Answer]) -> None:
        self._answer: Answer | None = None
        self._abandoned = Event()

        def run(on_text: Callable[[str], None], stop: Callable[[], bool]) -> None:
            self._answer = speak(on_text, stop)

        self._pieces = stream(run, self._abandoned)

    def __next__(self) -> str:
        return next(self._pieces)

    @property
    def answer(self) -> Answer:
        """The whole answer; waits for what has not been spoken yet."""
        for _ in self._pieces:
            pass
        if self._answer is None:
            raise RuntimeError("the stream was closed before the answer was spoken")
        return self._answer

    def close(self) -> None:
        """End the generation early, from any thread; who waits for a piece meanwhile gets no more."""
        self._abandoned.set()
        with suppress(ValueError):  # another thread waits for a piece, and ends the generation when it gets none
            self._pieces.close()
