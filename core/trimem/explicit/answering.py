"""From a question to an answer, with the time each step takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

from trimem.errors import SlotNotFoundError
from trimem.explicit.compiler import Compiler
from trimem.explicit.reading import Reading
from trimem.lm.generate import generate
from trimem.types import Answer, Hit, Message, Timings

ATTEMPTS = 5
"""To read hits before they are replaced by a new version of their document."""


class Answering:
    """One question that is being answered.

    Args:
        compiler: Of the bank's model.
        recall: Finds the hits; called at once, and again if they are replaced before they are read.
        attach: Attaches hits to the model.
        question: The question.
        history: What was said before it.
        max_new_tokens: Most tokens of the answer.
        options: Passed to transformers' ``generate``.
    """

    def __init__(
        self,
        compiler: Compiler,
        recall: Callable[[], Sequence[Hit]],
        attach: Callable[[Sequence[Hit]], AbstractContextManager[Reading]],
        question: str,
        history: Sequence[Message],
        max_new_tokens: int,
        options: Mapping[str, Any],
    ) -> None:
        self._compiler = compiler
        self._recall = recall
        self._attach = attach
        self._max_new_tokens = max_new_tokens
        self._options = options
        self._started = time.perf_counter()
        self._hits = recall()
        self._searched = time.perf_counter()
        self._prompt = compiler.question(question, history)

    def speak(self, on_text: Callable[[str], None] | None = None, stop: Callable[[], bool] | None = None) -> Answer:
        """Attach the hits and generate; arguments as of :func:`trimem.lm.generate.generate`."""
        begun = time.perf_counter()
        with self._attached() as reading:
            loaded = time.perf_counter()
            generation = generate(
                self._compiler.lm,
                self._prompt,
                max_new_tokens=self._max_new_tokens,
                memory_tokens=reading.tokens,
                on_text=on_text,
                stop=stop,
                **self._options,
            )
        return Answer(
            generation.text.strip(),
            reading.attended(),
            Timings(
                search=self._searched - self._started,
                load=loaded - begun,
                first_token=generation.first_token - self._started,
                total=generation.finished - self._started,
            ),
            prompt_tokens=len(self._prompt),
            memory_tokens=reading.tokens,
            new_tokens=generation.new_tokens,
        )

    @contextmanager
    def _attached(self) -> Iterator[Reading]:
        with ExitStack() as stack:
            for left in reversed(range(ATTEMPTS)):
                try:
                    reading = stack.enter_context(self._attach(self._hits))
                    break
                except SlotNotFoundError:
                    if not left:
                        raise
                    self._hits = self._recall()
            yield reading
