"""Speaking: greedy or sampled continuation of a prompt, whole or piece by piece, with the time it took."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field
from itertools import pairwise
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList, TextStreamer

from trimem.checks import shown, whole
from trimem.errors import ContextLengthError, InvalidInputError
from trimem.lm.model import LanguageModel

Clock = Callable[[], float]

COLD = 1e-3
"""A temperature below which the most likely token is taken: dividing by less overflows."""


@dataclass(slots=True)
class Generation:
    """What came of a prompt.

    Attributes:
        text: The new text, without special tokens, up to where a stop string begins.
        ids: Tokens generated, the one that ended the text included.
        first_token: When the first new token was known, by the clock.
        finished: When the last one was.
    """

    text: str = ""
    ids: list[int] = field(default_factory=list)
    first_token: float = 0.0
    finished: float = 0.0

    @property
    def new_tokens(self) -> int:
        """Tokens generated."""
        return len(self.ids)


def generate(
    lm: LanguageModel,
    prompt: Sequence[int],
    *,
    max_new_tokens: int,
    memory_tokens: int = 0,
    on_text: Callable[[str], None] | None = None,
    stop: Callable[[], bool] | None = None,
    on_token: Callable[[Tensor], None] | None = None,
    seed: int | None = None,
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
        seed: Of what is sampled: the same again says the same, unless other threads sample meanwhile. torch's own
            state is put back.
        clock: Tells the time in seconds.
        options: Passed to transformers' ``generate``, such as ``do_sample=True, temperature=0.7``,
            ``num_beams=3`` (which speaks only when it is done) or ``stop_strings=["\\n"]``.

    Raises:
        ContextLengthError: Memory, prompt and answer do not fit the model's context.
    """
    _check(lm, prompt, max_new_tokens, memory_tokens)
    strings = options.get("stop_strings") or ()
    text = _Text([strings] if isinstance(strings, str) else strings, on_text)
    after = _AfterToken(len(prompt), clock, stop, on_token)
    beams = options.get("num_beams", 1) > 1
    input_ids = torch.tensor([list(prompt)], device=lm.device)
    with torch.no_grad(), _seeded(seed, lm.device):
        ids = lm.model.generate(
            input_ids,
            attention_mask=torch.ones_like(input_ids),
            max_new_tokens=max_new_tokens,
            streamer=None if beams else _Streamer(lm, text),
            stopping_criteria=StoppingCriteriaList([after]),
            pad_token_id=_pad_token_id(lm),
            **_settled(lm, options),
        )
    new = ids[0, len(prompt) :].tolist()
    if beams:
        text(str(lm.tokenizer.decode(new, skip_special_tokens=True)))
    text.end()
    return Generation(text.whole, new, after.first_token, after.finished)


def generate_rows(
    lm: LanguageModel,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    memory_tokens: Sequence[int],
    on_token: Callable[[Tensor], None] | None = None,
    seed: int | None = None,
    clock: Clock = time.perf_counter,
    **options: Any,
) -> list[Generation]:
    """Continue several prompts at once, as :func:`generate` continues each.

    Args:
        lm: The model.
        prompts: Token ids of each.
        max_new_tokens: Most tokens to generate for each.
        memory_tokens: Tokens of attached memory before each.
        on_token: Called after each token with the ids of prompts, padded on the left, and answers so far
            (rows, tokens).
        seed: Of what is sampled, as of :func:`generate`.
        clock: Tells the time in seconds; all rows have their first token at the same time.
        options: Passed to transformers' ``generate``.

    Raises:
        ContextLengthError: Memory, prompt and answer of a row do not fit the model's context.
    """
    for prompt, memory in zip(prompts, memory_tokens, strict=True):
        _check(lm, prompt, max_new_tokens, memory)
    width = max(map(len, prompts))
    pad = _pad_token_id(lm) or 0
    input_ids = torch.tensor([[pad] * (width - len(ids)) + list(ids) for ids in prompts], device=lm.device)
    mask = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts], device=lm.device)
    after = _AfterToken(width, clock, None, on_token)
    with torch.no_grad(), _seeded(seed, lm.device):
        said = lm.model.generate(
            input_ids,
            attention_mask=mask,
            max_new_tokens=max_new_tokens,
            stopping_criteria=StoppingCriteriaList([after]),
            pad_token_id=pad,
            **_settled(lm, options),
        )
    strings = options.get("stop_strings") or ()
    generations = []
    for row in said[:, width:].tolist():
        ends = [i for i, token in enumerate(row) if token in _ends(lm)]
        ids = row[: ends[0] + 1] if ends else row
        text = _Text([strings] if isinstance(strings, str) else strings, None)
        text(str(lm.tokenizer.decode(ids, skip_special_tokens=True)))
        text.end()
        generations.append(Generation(text.whole, ids, after.first_token, after.finished))
    return generations


def pieces(lm: LanguageModel, ids: Sequence[int]) -> list[str]:
    """Return the text that each token adds to those before it; of tokens that share a character, the last has it."""
    texts = [""]
    for end in range(1, len(ids) + 1):
        text = str(lm.tokenizer.decode(list(ids[:end]), skip_special_tokens=True))
        texts.append(texts[-1] if text.endswith("\ufffd") and end < len(ids) else text)
    return [after[len(before) :] for before, after in pairwise(texts)]


def stream(
    run: Callable[[Callable[[str], None], Callable[[], bool]], None],
    abandoned: Event | None = None,
) -> Generator[str, None, None]:
    """Run a generation in a thread of its own and yield its text piece by piece.

    The thread sees what this context has attached. Closing the iterator ends the generation; so does ``abandoned``,
    which another thread can set while this one waits for a piece.

    Args:
        run: Given ``on_text`` and ``stop`` for :func:`generate`.
        abandoned: Set by whoever wants no more.
    """
    pieces: SimpleQueue[str | BaseException | None] = SimpleQueue()
    abandoned = abandoned or Event()

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


class _Text:
    """Text as it comes, up to where a stop string begins; what may be the beginning of one is held back."""

    def __init__(self, stops: Sequence[str], on_text: Callable[[str], None] | None) -> None:
        self.whole = ""
        self._stops = stops
        self._on_text = on_text
        self._held = ""
        self._room = max(map(len, stops), default=1) - 1
        self._stopped = False

    def __call__(self, text: str) -> None:
        if self._stopped:
            return
        self._held += text
        found = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        self._stopped = bool(found)
        certain = min(found) if found else len(self._held) - self._room
        self._say(max(certain, 0))

    def end(self) -> None:
        """Say what was held back."""
        if not self._stopped:
            self._say(len(self._held))

    def _say(self, length: int) -> None:
        text, self._held = self._held[:length], self._held[length:]
        self.whole += text
        if self._on_text is not None and text:
            self._on_text(text)


class _Streamer(TextStreamer):
    """Hands on text as soon as it is certain."""

    def __init__(self, lm: LanguageModel, on_text: Callable[[str], None]) -> None:
        super().__init__(lm.tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._on_text = on_text

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        self._on_text(text)


@dataclass
class _AfterToken(StoppingCriteria):
    """Called by transformers between two tokens; notes the times."""

    prompt: int
    clock: Clock = field(repr=False)
    stop: Callable[[], bool] | None = field(repr=False)
    on_token: Callable[[Tensor], None] | None = field(repr=False)
    first_token: float = 0.0
    finished: float = 0.0

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: Any) -> Tensor:
        self.finished = self.clock()
        if input_ids.shape[1] == self.prompt + 1:
            self.first_token = self.finished
        if self.on_token is not None:
            self.on_token(input_ids)
        return torch.full((input_ids.shape[0],), self.stop is not None and self.stop(), device=input_ids.device)


def _pad_token_id(lm: LanguageModel) -> int | None:
    if lm.tokenizer.pad_token_id is not None:
        return int(lm.tokenizer.pad_token_id)
    eos = lm.tokenizer.eos_token_id
    return None if eos is None else int(eos)


def _ends(lm: LanguageModel) -> set[int]:
    """Return the tokens that end a text."""
    assert lm.model.generation_config is not None  # every model that generates has one
    ends = lm.model.generation_config.eos_token_id
    return set() if ends is None else {ends} if isinstance(ends, int) else set(ends)


@contextmanager
def _seeded(seed: int | None, device: torch.device) -> Iterator[None]:
    """Seed torch for a block, and put its state back."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _settled(lm: LanguageModel, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options for transformers, with what they need and a model's own may spoil."""
    if options.get("stop_strings"):
        options = {"tokenizer": lm.tokenizer, **options}
    if not options.get("do_sample"):
        # Sampling settings a model ships with would only draw warnings here.
        options = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None, **options}
    return options


def check_new_tokens(lm: LanguageModel, max_new_tokens: int) -> None:
    """Raise if no answer can be that long, whatever it is to.

    Raises:
        InvalidInputError: ``max_new_tokens`` is no whole number of at least 1.
        ContextLengthError: The model's context has no room for it.
    """
    if whole(max_new_tokens, "max_new_tokens", 1) >= lm.context_length:
        raise ContextLengthError(
            f"{shown(max_new_tokens)} tokens to come are no less than the {lm.context_length} that {lm.name} was made "
            "for: lower max_new_tokens"
        )


def _check(lm: LanguageModel, prompt: Sequence[int], max_new_tokens: int, memory_tokens: int) -> None:
    """Raise if a prompt cannot be continued that far."""
    check_new_tokens(lm, max_new_tokens)
    if not prompt:
        raise InvalidInputError("a prompt must have at least one token, got none")
    needed = memory_tokens + len(prompt) + max_new_tokens
    if needed > lm.context_length:
        raise ContextLengthError(
            f"{memory_tokens} tokens of memory, {len(prompt)} of prompt and {max_new_tokens} to come are {needed}, "
            f"more than the {lm.context_length} that {lm.name} was made for: shorten the question, or lower k or "
            "max_new_tokens"
        )
