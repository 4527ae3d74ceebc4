"""From a question to an answer, with the time each step takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from torch import Tensor

from trimem.errors import SlotNotFoundError
from trimem.explicit.attribution import citations
from trimem.explicit.compiler import Compiler
from trimem.explicit.pieces import found_by_each, starts
from trimem.explicit.reading import Reading
from trimem.lm.answering import speak
from trimem.types import Answer, Hit, Message

ATTEMPTS = 5
"""To read hits before they are replaced by a new version of their document."""

F = TypeVar("F")
T = TypeVar("T")


class Answering:
    """One question that is being answered.

    Args:
        compiler: Of the bank's model.
        recall: Finds hits.
        follow: Finds those for a question, followed back to what was said before it; called at once.
        attach: Attaches hits to the model.
        cold: Tells which hits the prompt is to hold as text; not asked where a question is read in pieces.
        question: The question.
        history: What was said before it.
        system: What stands before the first thing the user says; it is not searched for.
        max_new_tokens: Most tokens of the answer.
        exchange: Every so many new tokens, what they find is read instead; None never.
        options: Passed to transformers' ``generate``.

    Attributes:
        as_text: The hits that the prompt holds.
    """

    def __init__(
        self,
        compiler: Compiler,
        recall: Callable[[str], Sequence[Hit]],
        follow: Callable[[str], Sequence[Hit]],
        attach: Callable[[Sequence[Hit]], AbstractContextManager[Reading]],
        cold: Callable[[Sequence[Hit]], Sequence[Hit]],
        question: str,
        history: Sequence[Message],
        system: str,
        max_new_tokens: int,
        exchange: int | None,
        options: Mapping[str, Any],
    ) -> None:
        self._compiler = compiler
        self._recall = recall
        self._attach = attach
        self._max_new_tokens = max_new_tokens
        self._exchange = exchange
        self._options = options
        self._started = time.perf_counter()
        self._prompt = compiler.question(question, history, system)
        self._starts = starts(len(self._prompt), exchange)
        self._find = partial(found_by_each, compiler.lm, question, self._prompt, self._starts, recall, follow)
        *earlier, found = self._find()
        self.as_text = () if earlier else tuple(cold(found))
        self._prompt[:0] = [token for hit in reversed(self.as_text) for token in compiler.reference(hit.text)]
        self._found = self._beside_text([*earlier, found])
        self._searched = time.perf_counter()

    def speak(self, on_text: Callable[[str], None] | None = None, stop: Callable[[], bool] | None = None) -> Answer:
        """Attach the hits and generate; arguments as of :func:`trimem.lm.generate.generate`."""
        lm = self._compiler.lm
        answer, reading = speak(
            lm,
            self._prompt,
            self._attached(),
            started=self._started,
            searched=self._searched,
            max_new_tokens=self._max_new_tokens,
            on_token=self._after_token,
            on_text=on_text,
            stop=stop,
            **self._options,
        )
        hits = answer.hits
        if self.as_text:
            hits = tuple(sorted((*hits, *self.as_text), key=lambda hit: -hit.score))
        return replace(answer, hits=hits, citations=citations(lm, reading.passages, answer.new_tokens))

    @contextmanager
    def _attached(self) -> Iterator[Reading]:
        with ExitStack() as stack:
            yield read_found(
                self._found, find=lambda: self._beside_text(self._find()), read=partial(self._enter, stack)
            )

    def _beside_text(self, found: Sequence[Sequence[Hit]]) -> list[tuple[Hit, ...]]:
        """Leave out what the prompt holds."""
        held = {hit.id for hit in self.as_text}
        return [tuple(hit for hit in hits if hit.id not in held) for hits in found]

    def _enter(self, stack: ExitStack, found: Sequence[Sequence[Hit]]) -> Reading:
        """Attach what the pieces of the prompt found until ``stack`` is closed."""
        *earlier, hits = found
        with ExitStack() as entered:
            reading = entered.enter_context(self._attach(hits))
            if earlier:
                reading.read_in_pieces(earlier, self._starts, len(self._prompt) - self._starts[-1])
            stack.enter_context(entered.pop_all())
        return reading

    def _after_token(self, reading: Reading, ids: Tensor) -> None:
        """Exchange what is read, or move it along, if it is time."""
        length = ids.shape[1]
        new = length - len(self._prompt)
        if new == 1 and len(self._starts) > 1:
            reading.read_on(self._starts[-1])
        if self._exchange is None or new % self._exchange or new == self._max_new_tokens:
            reading.follow(length)
            return
        said = str(self._compiler.lm.tokenizer.decode(ids[0, -self._exchange :], skip_special_tokens=True))
        if said.strip():

            def find() -> tuple[Hit, ...]:
                return self._beside_text([self._recall(said)])[0]

            read_found(find(), find=find, read=partial(reading.exchange, length=length))


def read_found(found: F, *, find: Callable[[], F], read: Callable[[F], T]) -> T:
    """Read what was found, or what is found anew if a document is replaced before it is read.

    Args:
        found: What was found.
        find: Finds again.
        read: Reads it.

    Raises:
        SlotNotFoundError: Documents were replaced :data:`ATTEMPTS` times.
    """
    for _ in range(ATTEMPTS - 1):
        try:
            return read(found)
        except SlotNotFoundError:
            found = find()
    return read(found)
