"""Slots that a model is lent: read once, laid before the context, and heard the more the clearer they resonate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from trimem.errors import ContextLengthError, InvalidInputError
from trimem.lm.attach import attach
from trimem.lm.attention import AttentionShares
from trimem.lm.model import LanguageModel
from trimem.lm.prompt import SEPARATOR, PromptFormat, prompt_format
from trimem.lm.spans import Span, place_spans, read_spans, shares_of_spans
from trimem.resonance.hits import SoundHit
from trimem.types import Hit

INSTRUCTION = "You answer questions from what was said."
"""What stands before all that is lent, in the model's chat format where it has one."""

BETA = 0.05
"""By how much attention logits grow for each standard deviation at which a slot resonates."""


def format_of(lm: LanguageModel) -> PromptFormat:
    """Return how a model is asked."""
    return prompt_format(lm, INSTRUCTION)


class SpanReading:
    """Hits attached to a model.

    Attributes:
        hits: Best first; the model reads them the other way round, the best nearest to the context.
        tokens: Positions the memory takes, the prefix included.
    """

    def __init__(self, hits: Sequence[Hit], spans: Sequence[Span], shares: AttentionShares) -> None:
        self.hits = tuple(hits)
        self.tokens = sum(span.tokens for span in spans)
        self._spans = spans
        self._shares = shares

    def attended(self) -> tuple[Hit, ...]:
        """Return the hits with the share of attention each received so far, of that on all hits."""
        if not self._shares.looks:
            return self.hits
        received = shares_of_spans(self._shares, self._spans)[:0:-1]  # the prefix is the first
        total = max(sum(received), 1e-30)
        return tuple(replace(hit, attention=mass / total) for hit, mass in zip(self.hits, received, strict=True))


@contextmanager
def lent(lm: LanguageModel, hits: Sequence[Hit], beta: float) -> Iterator[SpanReading]:
    """Let a model read hits in every forward pass of a ``with`` block, each with a bias of ``beta * z``.

    Args:
        lm: The model.
        hits: Best first.
        beta: Nats of attention logit for each standard deviation of z; hits that were not found by ear have none.

    Raises:
        ContextLengthError: The hits fill the model's context.
        InvalidInputError: ``beta`` is no finite number of at least 0.
        UnsupportedModelError: The model's keys cannot be moved.
    """
    if isinstance(beta, bool) or not isinstance(beta, int | float) or not 0 <= beta < float("inf"):
        raise InvalidInputError(f"beta must be a finite number of at least 0, got {beta!r}")
    before, *read = read_spans(
        lm, lm.tokenize(format_of(lm).prefix), [lm.tokenize(f"{hit.text}{SEPARATOR}", control=False) for hit in hits]
    )
    spans = [before, *reversed(read)]
    bias = [0.0, *(beta * hit.z if isinstance(hit, SoundHit) else 0.0 for hit in reversed(hits))]
    tokens = sum(span.tokens for span in spans)
    if tokens >= lm.context_length:
        raise ContextLengthError(
            f"{len(hits)} hits are {tokens} tokens of memory with the prefix, which leaves nothing of the "
            f"{lm.context_length} that {lm.name} was made for: attach fewer"
        )
    shares = AttentionShares()
    with attach(lm, place_spans(lm, spans, bias), shares=shares):
        yield SpanReading(hits, spans, shares)
