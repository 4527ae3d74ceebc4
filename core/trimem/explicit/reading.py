"""What a model reads at one time, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import torch

from trimem.explicit.read import Placement, moved
from trimem.lm.attention import Attachment, AttentionShares
from trimem.lm.generate import stream
from trimem.lm.model import LanguageModel
from trimem.types import Answer, Hit


@dataclass(frozen=True, slots=True)
class Reading:
    """Hits attached to a model, in the order it reads them.

    Attributes:
        hits: Best match first; the model reads them the other way round, the best nearest to the
            context.
        lm: The model.
        placement: Where they stand; the prefix is record 0 and the last of n hits record 1.
        attachment: What the model reads now, and the attention it pays.
        reanchor: See :class:`trimem.explicit.read_config.ReadConfig`.
    """

    hits: tuple[Hit, ...]
    lm: LanguageModel = field(repr=False)
    placement: Placement = field(repr=False)
    attachment: Attachment = field(repr=False)
    reanchor: int | None = None

    @property
    def tokens(self) -> int:
        """Positions the memory takes, the prefix included."""
        return self.placement.span

    @property
    def shares(self) -> AttentionShares:
        """The attention that memory has received so far."""
        assert self.attachment.shares is not None  # the bank asks for them
        return self.attachment.shares

    def follow(self, length: int) -> None:
        """Let memory move along with a context of ``length`` tokens, if it is to be re-anchored.

        Call it between two forward passes; ``ask`` does. O(memory tokens) when it moves.
        """
        if self.reanchor is not None and length % self.reanchor == 0:
            self.attachment.memory = moved(self.lm, self.placement.memory, length)

    def attended(self) -> tuple[Hit, ...]:
        """Return the hits with the share of attention each received so far.

        Shares are of the attention mass on hits, summed over layers, heads and generated tokens;
        the prefix and the context itself do not count.
        """
        if not self.hits or not self.shares.looks:
            return self.hits
        received = torch.zeros(len(self.hits) + 2)  # -1, where a head has no token, adds nothing to the last
        for layer_idx, mass in self.shares.mass().items():
            received.index_add_(
                0, self.placement.owner[layer_idx].flatten() % len(received), mass.sum(0).flatten().cpu()
            )
        received = received[1:-1].flip(0)
        shares = (received / received.sum().clamp_min(torch.finfo(torch.float32).tiny)).tolist()
        return tuple(replace(hit, attention=share) for hit, share in zip(self.hits, shares, strict=True))


class AnswerStream(Iterator[str]):
    """An answer as it is spoken: iterate over its pieces, then ask for the whole.

    Args:
        speak: Generates, given ``on_text`` and ``stop``, and returns the answer.
    """

    def __init__(self, speak: Callable[[Callable[[str], None], Callable[[], bool]], Answer]) -> None:
        self._answer: Answer | None = None

        def run(on_text: Callable[[str], None], stop: Callable[[], bool]) -> None:
            self._answer = speak(on_text, stop)

        self._pieces = stream(run)

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
        """End the generation early."""
        self._pieces.close()
