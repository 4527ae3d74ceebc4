"""How hits are read: chosen at each reading, whatever the bank keeps of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from trimem.checks import flag, one_of, real, shown, whole
from trimem.errors import InvalidInputError
from trimem.explicit.density import Density
from trimem.explicit.read import LAYOUTS, Layout

BY_RANK = (1.0, 0.5, 0.0, -0.5, -1.0)
"""More attention for what search ranks first; chosen on 100 questions of SQuAD drawn with seed 1."""


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
        one_of(self.heads, "heads", ("all", "calibrated"))
        one_of(self.layout, "layout", LAYOUTS)
        real(self.heads_kept, "heads_kept", 0, 1)
        density: object = self.density
        if isinstance(density, Sequence) and not isinstance(density, str) and density:
            for tokens in density:
                whole(tokens, "density", 1)
        elif density not in ("dense", "mixed"):
            raise InvalidInputError(
                'density must be "dense", "mixed", or tokens a head of each hit, such as (128, 32, 8), '
                f"got {shown(density)}"
            )
        if isinstance(self.bias, str) or not isinstance(self.bias, Sequence):
            real(self.bias, "bias", -math.inf)
        elif not self.bias:
            raise InvalidInputError("bias must be a finite number, or one for each hit, got none")
        else:
            for bias in self.bias:
                real(bias, "bias", -math.inf)
        real(self.temperature, "temperature", 0)
        if self.mass is not None:
            real(self.mass, "mass", 0)
        flag(self.head_bias, "head_bias")
        whole(self.repair, "repair", 0)
        for name in ("reanchor", "exchange"):
            if getattr(self, name) is not None:
                whole(getattr(self, name), name, 1)


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
