"""A program of its own: answers from key-values that kvpress has compressed.

``runner.py FOLDER THREADS`` runs where trimem is not installed and transformers is one that kvpress can work with. It
loads the model in FOLDER, says the versions of what it works with in one line of JSON, and from then on answers each
line on its standard input, the arguments of :func:`answer`, with one line on its standard output.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TextIO

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, DynamicCache, PreTrainedModel
from transformers.utils import logging

PACKAGES = ("kvpress", "torch", "transformers")

SLACK = 1e-3
"""Part of a token that is asked for too much, for rounding not to drop a whole one."""


@torch.no_grad()
def answer(
    model: PreTrainedModel,
    *,
    presses: Sequence[str],
    kept: int,
    context: Sequence[int],
    question: Sequence[int],
    wanted: Sequence[int],
    max_new_tokens: int,
) -> dict[str, Any]:
    """Read a context under a press, then a question; speak greedily, and see how likely the right answer is.

    Args:
        model: The model.
        presses: Names of kvpress' classes, each wrapped around the next; none keeps everything.
        kept: How many tokens of the context to keep, a KV head's mean.
        context: Token ids that are compressed, before the question is known.
        question: Token ids after them.
        wanted: Token ids of the right answer.
        max_new_tokens: Most tokens to speak.

    Returns:
        ``ids`` that were spoken, ``first_token`` and ``finished`` in seconds from the call on, ``read_tokens`` that
        went through the model before the first, ``numbers`` in the key-values that are left of the context, and
        ``nll``, the mean negative log-likelihood of ``wanted`` in nats.
    """
    started = time.perf_counter()
    cache: Any = DynamicCache()
    press = _press(presses, max(0.0, 1 - (kept + SLACK) / len(context)))
    with _counted(model) as counts, press(model):
        model.model(input_ids=torch.tensor([context]), past_key_values=cache)
    lengths = _lengths(cache)
    spoken = [_next(model, cache, question, len(context))]
    first_token = time.perf_counter() - started
    while len(spoken) < max_new_tokens and spoken[-1] not in _ends(model):
        spoken.append(_next(model, cache, spoken[-1:], len(context) + len(question) + len(spoken) - 1))
    finished = time.perf_counter() - started
    _crop(cache, lengths)
    numbers = _numbers(model, cache)
    logits = _logits(model, cache, [*question, *wanted], len(context), keep=len(wanted) + 1)
    chosen = logits[:-1].float().log_softmax(-1).gather(1, torch.tensor(wanted)[:, None])
    return {
        "ids": spoken,
        "first_token": first_token,
        "finished": finished,
        "read_tokens": sum(counts) + len(question),
        "numbers": numbers,
        "nll": -float(chosen.mean()),
    }


def _press(names: Sequence[str], ratio: float) -> Callable[[PreTrainedModel], AbstractContextManager[None]]:
    """Return what compresses in a ``with`` block, given the model."""
    if not names:
        return lambda _: nullcontext()
    import kvpress  # type: ignore[import-not-found]  # it lies in the other environment

    *outer, inner = names
    press = getattr(kvpress, inner)(compression_ratio=ratio)
    for name in reversed(outer):
        press = getattr(kvpress, name)(press)
    compressing: Callable[[PreTrainedModel], AbstractContextManager[None]] = press
    return compressing


def _logits(model: PreTrainedModel, cache: Any, ids: Sequence[int], start: int, keep: int = 1) -> Tensor:
    """Run tokens at positions from ``start`` on; what was dropped of the context keeps its positions.

    Where heads drop different tokens, kvpress puts keys in their place that none of the queries sees. Of
    many queries at once there may be no such key. Then they go through the model in two halves, which is
    the same computation.
    """
    positions = torch.arange(start, start + len(ids))[None]
    before = _lengths(cache)
    try:
        output = model(torch.tensor([ids]), past_key_values=cache, position_ids=positions, logits_to_keep=keep)
    except ValueError as error:
        if "fake keys" not in str(error) or len(ids) == 1:
            raise
        _crop(cache, before)
        half = len(ids) // 2
        halves = (ids[:half], start), (ids[half:], start + half)
        return torch.cat([_logits(model, cache, some, at, min(keep, len(some))) for some, at in halves])[-keep:]
    logits: Tensor = output.logits[0]
    return logits


def _lengths(cache: Any) -> list[int]:
    return [layer.keys.shape[2] for layer in cache.layers]


def _crop(cache: Any, lengths: Sequence[int]) -> None:
    for layer, length in zip(cache.layers, lengths, strict=True):
        layer.keys, layer.values = layer.keys[:, :, :length], layer.values[:, :, :length]


def _next(model: PreTrainedModel, cache: Any, ids: Sequence[int], start: int) -> int:
    return int(_logits(model, cache, ids, start)[-1].argmax())


def _ends(model: PreTrainedModel) -> list[int]:
    ends = model.generation_config.eos_token_id
    return ends if isinstance(ends, list) else [ends]


def _numbers(model: PreTrainedModel, cache: Any) -> int:
    """Count the numbers in keys and values, without those that a press only marks as dropped."""
    total = 0
    for decoder, layer in zip(model.model.layers, cache.layers, strict=True):
        marked = getattr(decoder.self_attn, "masked_key_indices", None)
        pairs = layer.keys[..., 0].numel() - (0 if marked is None else len(marked[0]))
        total += pairs * (layer.keys.shape[-1] + layer.values.shape[-1])
    return total


@contextmanager
def _counted(model: PreTrainedModel) -> Iterator[list[int]]:
    """Note how many tokens go through the model in each pass of a ``with`` block."""
    counts: list[int] = []

    def count(_: Any, __: Any, options: dict[str, Any]) -> None:
        counts.append(options["input_ids"].numel())

    hook = model.model.register_forward_pre_hook(count, with_kwargs=True)
    try:
        yield counts
    finally:
        hook.remove()


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # what keeps everything does without kvpress
            continue
    return found


def _replies() -> TextIO:
    """Return the standard output, and let whatever else is printed go where errors go."""
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return replies


def main() -> None:
    """Load the model and answer until the standard input ends."""
    folder, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    logging.disable_progress_bar()
    with _replies() as replies:
        # A press that drops other tokens in each head cannot do so in transformers' "eager" attention.
        model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", attn_implementation="sdpa").eval()
        print(json.dumps(_versions()), file=replies, flush=True)
        for line in sys.stdin:
            print(json.dumps(answer(model, **json.loads(line))), file=replies, flush=True)


if __name__ == "__main__":
    main()
