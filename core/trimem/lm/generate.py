"""Speaking: greedy or sampled continuation of a prompt, whole or piece by piece, with the time it took."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextvars import copy_context
from dataclasses import dataclass, field
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList, TextStreamer

from trimem.errors import ContextLengthError, InvalidInputError
from trimem.lm.model import LanguageModel

Clock = Callable[[], float]


@dataclass(slots=True)
class Generation:
    """What came of a prompt.

    Attributes:
        text: The new text, without special tokens.
        new_tokens: Tokens generated, the one that ended the text included.
        first_token: When the first new token was known, by the clock.
        finished: When the last one was.
    """

    text: str = ""
    new_tokens: int = 0
    first_token: float = 0.0
    finished: float = 0.0


def generate(
    lm: LanguageModel,
    prompt: Sequence[int],
    *,
    max_new_tokens: int,
    memory_tokens: int = 0,
    on_text: Callable[[str], None] | None = None,
    stop: Callable[[], bool] | None = None,
    on_token: Callable[[Tensor], None] | None = None,
    clock: Clock = time.perf_counter,
    **options: Any,
) -> Generation:
    """Continue ``prompt``, greedily unless ``options`` say otherwise.

    Memory attached in this context is read.

    Args:
        lm: The model.
        prompt: Token ids.
        max_new_tokens: Most tokens to generate, at least 1.
        memory_tokens: Tokens of attached memory before the prompt; they take positions too.
        on_text: Called with each new piece of text as soon as it is certain.
        stop: Asked after each token; generation ends when it says True.
        on_token: Called after each token with the ids of prompt and answer so far (rows, tokens).
        clock: Tells the time in seconds.
        options: Passed to transformers' ``generate``, such as ``do_sample=True, temperature=0.7``.

    Raises:
        ContextLengthError: Memory, prompt and answer do not fit the model's context.
    """
    if max_new_tokens < 1:
        raise InvalidInputError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
    if not prompt:
        raise InvalidInputError("a prompt must have at least one token, got none")
    needed = memory_tokens + len(prompt) + max_new_tokens
    if needed > lm.context_length:
        raise ContextLengthError(
            f"{memory_tokens} tokens of memory, {len(prompt)} of prompt and {max_new_tokens} to come are {needed}, "
            f"more than the {lm.context_length} that {lm.name} was made for: shorten the question, or lower k or "
            "max_new_tokens"
        )
    streamer = _Streamer(lm, on_text, clock)
    criteria = StoppingCriteriaList([_AfterToken(stop, on_token)])
    input_ids = torch.tensor([list(prompt)], device=lm.device)
    if not options.get("do_sample"):
        # Sampling settings a model ships with would only draw warnings here.
        options = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None, **options}
    with torch.no_grad():
        lm.model.generate(
            input_ids,
            attention_mask=torch.ones_like(input_ids),
            max_new_tokens=max_new_tokens,
            streamer=streamer,
            stopping_criteria=criteria,
            pad_token_id=_pad_token_id(lm),
            **options,
        )
    return streamer.generation


def stream(
    run: Callable[[Callable[[str], None], Callable[[], bool]], None],
) -> Generator[str, None, None]:
    """Run a generation in a thread of its own and yield its text piece by piece.

    The thread sees what this context has attached. Closing the iterator ends the generation.

    Args:
        run: Given ``on_text`` and ``stop`` for :func:`generate`.
    """
    pieces: SimpleQueue[str | BaseException | None] = SimpleQueue()
    abandoned = Event()

    def work() -> None:
        try:
            run(pieces.put, abandoned.is_set)
            pieces.put(None)
        except BaseException as error:  # noqa: BLE001 - raised again where the text is read
            pieces.put(error)

    thread = Thread(target=copy_context().run, args=(work,), name="trimem-stream", daemon=True)
    thread.start()
    try:
        while (piece := pieces.get()) is not None:
            if isinstance(piece, BaseException):
                raise piece
            yield piece
    finally:
        abandoned.set()
        thread.join()


class _Streamer(TextStreamer):
    """Collects the text and notes the times."""

    def __init__(self, lm: LanguageModel, on_text: Callable[[str], None] | None, clock: Clock) -> None:
        super().__init__(lm.tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.generation = Generation()
        self._on_text = on_text
        self._clock = clock

    def put(self, value: Tensor) -> None:
        if not self.next_tokens_are_prompt:
            self.generation.new_tokens += value.numel()
            self.generation.finished = self._clock()
            if not self.generation.first_token:
                self.generation.first_token = self.generation.finished
        super().put(value)  # type: ignore[no-untyped-call]

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        self.generation.text += text
        if self._on_text is not None and text:
            self._on_text(text)


@dataclass
class _AfterToken(StoppingCriteria):
    """Called by transformers between two tokens."""

    stop: Callable[[], bool] | None = field(repr=False)
    on_token: Callable[[Tensor], None] | None = field(repr=False)

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: Any) -> Tensor:
        if self.on_token is not None:
            self.on_token(input_ids)
        return torch.full((input_ids.shape[0],), self.stop is not None and self.stop(), device=input_ids.device)


def _pad_token_id(lm: LanguageModel) -> int | None:
    if lm.tokenizer.pad_token_id is not None:
        return int(lm.tokenizer.pad_token_id)
    eos = lm.tokenizer.eos_token_id
    return None if eos is None else int(eos)
