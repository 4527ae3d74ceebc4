"""How hits are read: chosen at each reading, whatever the bank keeps of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

from trimem.checks import shown
from trimem.errors import InvalidInputError
from trimem.explicit.density import Density
from trimem.explicit.read import LAYOUTS, Layout

BY_RANK = (1.0, 0.5, 0.0, -0.5, -1.0)
"""More attention for what search ranks first; chosen on 100 questions of SQuAD drawn with seed 1."""


def _number(value: object) -> bool:
    return isinstance(value, int | float) and isfinite(value)


@dataclass(frozen=True, slots=True)
class ReadConfig:
    """Choices made at each reading.

    As it is by default, a single reference reads as its text does, exactly.

    Attributes:
        density: How many tokens a head to read of each hit: ``"dense"`` all that are stored, ``"mixed"``
            fewer of those that score far below the best, or numbers for the best, the second best and
            so on.
        heads: Which of the KV heads that are stored read memory: ``"all"``, or the best by the model's
            calibration (``"calibrated"``).
        heads_kept: What share of all heads ``"calibrated"`` lets read.
        layout: ``"sequential"``, ``"parallel"`` or ``"original"``; see :func:`trimem.explicit.read.place`.
        bias: Added to the attention logits of the hits, in nats: one for all, or of the best, the second
            best and so on. What is above 0 makes the model heed its memory more than it would heed the
            text.
        head_bias: Whether each head gets the bias besides that was fitted for the model
            (``trimem calibrate --head-bias``).
        temperature: What the logits of the hits are divided by (APE, arXiv 2502.05431); below 1 attention
            to memory is sharper. APE's scale is a bias: its logarithm.
        mass: How many tokens the hits count for, however many are read: each head's logits get
            log(mass / tokens read) (KBLaM, arXiv 2410.10450). None counts each token as one.
        repair: How many tokens at the head of each reference are computed anew, with the references
            before it in sight (EPIC, arXiv 2410.15332). Costs a forward pass of these tokens.
        reanchor: Every so many tokens of context, memory moves along to stand that much nearer to
            what is said. None leaves it before the first token.
        exchange: Every so many new tokens, ``ask`` reads what these tokens find instead of what it read
            before (Memory³, section 3.1: 64), standing right before what is said next. A longer question
            is cut into pieces of as many, each of which reads what it finds itself, all in one pass.
            None reads what the question finds throughout.

    Raises:
        InvalidInputError: A value is outside what is allowed.
    """

    density: Density = "dense"
    heads: str = "all"
    heads_kept: float = 5 / 6
    layout: Layout = "sequential"
    bias: float | Sequence[float] = 0.0
    head_bias: bool = False
    temperature: float = 1.0
    mass: float | None = None
    repair: int = 0
    reanchor: int | None = None
    exchange: int | None = None

    def __post_init__(self) -> None:
        for name, known in (("heads", ("all", "calibrated")), ("layout", LAYOUTS)):
            if getattr(self, name) not in known:
                raise InvalidInputError(f"{name} must be one of {', '.join(known)}, got {shown(getattr(self, name))}")
        if not _number(self.heads_kept) or not 0 < self.heads_kept <= 1:
            raise InvalidInputError(f"heads_kept must be above 0 and at most 1, got {shown(self.heads_kept)}")
        density = self.density
        if density not in ("dense", "mixed") and (
            isinstance(density, str) or not density or not all(isinstance(k, int) and k > 0 for k in density)
        ):
            raise InvalidInputError(
                'density must be "dense", "mixed", or tokens a head of each hit, such as (128, 32, 8), '
                f"got {shown(density)}"
            )
        biases = self.bias if isinstance(self.bias, Sequence) else (self.bias,)
        if isinstance(biases, str) or not biases or not all(map(_number, biases)):
            raise InvalidInputError(f"bias must be a finite number, or one for each hit, got {shown(self.bias)}")
        if not _number(self.temperature) or self.temperature <= 0:
            raise InvalidInputError(f"temperature must be above 0, got {shown(self.temperature)}")
        if self.mass is not None and (not _number(self.mass) or self.mass <= 0):
            raise InvalidInputError(f"mass must be above 0, or None, got {shown(self.mass)}")
        if not isinstance(self.repair, int) or self.repair < 0:
            raise InvalidInputError(f"repair must be a whole number of at least 0, got {shown(self.repair)}")
        for name in ("reanchor", "exchange"):
            every = getattr(self, name)
            if every is not None and (not isinstance(every, int) or every < 1):
                raise InvalidInputError(f"{name} must be a whole number of at least 1, or None, got {shown(every)}")


READ_CONFIGS = {
    "dense": ReadConfig(),
    "mixed": ReadConfig(density="mixed", heads="calibrated", bias=BY_RANK),
}
"""``"dense"`` reads all as text would be read; ``"mixed"`` what search is sure of, by the heads that fetch facts."""


def as_read_config(read: ReadConfig | str) -> ReadConfig:
    """Return the configuration of that name, or what is one.

    Raises:
        InvalidInputError: There is none of that name.
    """
    if isinstance(read, ReadConfig):
        return read
    if not isinstance(read, str) or read not in READ_CONFIGS:
        raise InvalidInputError(f"read must be a ReadConfig or one of {', '.join(READ_CONFIGS)}, got {shown(read)}")
    return READ_CONFIGS[read]
