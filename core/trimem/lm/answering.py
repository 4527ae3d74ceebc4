"""A model that says something while it is lent memory, and what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

from torch import Tensor

from trimem.lm.generate import Generation, generate, pieces
from trimem.lm.model import LanguageModel
from trimem.types import Answer, Citation, Hit, Timings


class Read(Protocol):
    """Memory that is attached to a model."""

    @property
    def tokens(self) -> int:
        """Positions it takes."""
        ...

    def attended(self) -> tuple[Hit, ...]:
        """Return its hits, with the share of attention that each received so far."""
        ...


R = TypeVar("R", bound=Read)


def speak(
    lm: LanguageModel,
    prompt: Sequence[int],
    attached: AbstractContextManager[R],
    *,
    started: float,
    searched: float,
    max_new_tokens: int,
    on_token: Callable[[R, Tensor], None] | None = None,
    **options: Any,
) -> tuple[Answer, R]:
    """Attach memory, continue a prompt, and return the answer and what was read for it.

    Args:
        lm: The model.
        prompt: Token ids.
        attached: Attaches the memory.
        started: When the question came, by :func:`time.perf_counter`.
        searched: When the hits were found.
        max_new_tokens: Most tokens of the answer.
        on_token: Called after each token with what is read and the ids so far.
        options: Of :func:`trimem.lm.generate.generate`.

    Raises:
        ContextLengthError: Memory, prompt and answer do not fit the model's context.
    """
    begun = time.perf_counter()
    with attached as reading:
        loaded = time.perf_counter()
        said = generate(
            lm,
            prompt,
            max_new_tokens=max_new_tokens,
            memory_tokens=reading.tokens,
            on_token=None if on_token is None else lambda ids: on_token(reading, ids),
            **options,
        )
    timings = Timings(searched - started, loaded - begun, said.first_token - started, said.finished - started)
    return answer_of(lm, len(prompt), reading.tokens, said, reading.attended(), timings), reading


def answer_of(
    lm: LanguageModel,
    prompt_tokens: int,
    memory_tokens: int,
    said: Generation,
    hits: Sequence[Hit],
    timings: Timings,
    citations: tuple[Citation, ...] = (),
) -> Answer:
    """Return what a model said as an answer; its parts as of :class:`trimem.Answer`."""
    return Answer(
        said.text.strip(),
        tuple(hits),
        timings,
        prompt_tokens=prompt_tokens,
        memory_tokens=memory_tokens,
        new_tokens=said.new_tokens,
        citations=citations,
        pieces=tuple(pieces(lm, said.ids)),
    )
