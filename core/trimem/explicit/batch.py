"""Several questions answered at once, each from its own memories, of its own namespace."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor

from trimem.explicit.answering import read_found
from trimem.explicit.attribution import citations
from trimem.explicit.compiler import Compiler
from trimem.explicit.pieces import found_by_each, starts
from trimem.explicit.read import Placement, moved
from trimem.explicit.read_config import ReadConfig
from trimem.explicit.reading import Passage, attended, passages_of
from trimem.lm.answering import answer_of
from trimem.lm.attach import attach
from trimem.lm.attention import Attachment, AttentionShares
from trimem.lm.generate import generate_rows
from trimem.lm.memory import Memory, stack_rows
from trimem.types import Answer, Hit, Timings


@dataclass(slots=True)
class _Row:
    """One question.

    Attributes:
        find: Finds hits for words, in the question's namespace.
        prompt: Token ids of the question.
        start: Of the last piece of the question, in tokens of the context; 0 where it is read in one.
        hits: What is read now.
        placement: Where it stands at the beginning.
        memory: The same, moved to where it stands now.
        passages: What was read before and is read now.
    """

    find: Callable[[str], Sequence[Hit]]
    prompt: list[int]
    start: int
    hits: Sequence[Hit]
    placement: Placement
    memory: Memory
    passages: list[Passage] = field(default_factory=list)


class Batch:
    """Questions that are answered in the same forward passes.

    Args:
        compiler: Of the bank's model.
        questions: Each with what finds hits for it, and for what is said of it.
        place: Brings hits to the positions right before the context.
        read: How.
    """

    def __init__(
        self,
        compiler: Compiler,
        questions: Sequence[tuple[str, Callable[[str], Sequence[Hit]]]],
        place: Callable[[Sequence[Hit]], Placement],
        read: ReadConfig,
    ) -> None:
        self._compiler = compiler
        self._place = place
        self._read = read
        self._started = time.perf_counter()
        prompts = [compiler.question(question) for question, _ in questions]
        self._width = max(map(len, prompts))  # prompts are padded on the left
        borders = starts(self._width, read.exchange)
        self._starts = [[max(0, start - self._width + len(prompt)) for start in borders] for prompt in prompts]
        finds = [
            partial(found_by_each, compiler.lm, question, prompt, begin, find)
            for (question, find), prompt, begin in zip(questions, prompts, self._starts, strict=True)
        ]
        found = [find() for find in finds]
        self._searched = time.perf_counter()
        placed = [
            read_found(pieces, find=find, read=lambda pieces: [self._stand(hits) for hits in pieces])
            for pieces, find in zip(found, finds, strict=True)
        ]
        self._found = [[hits for hits, _ in pieces] for pieces in placed]
        self._placed = [[placement for _, placement in pieces] for pieces in placed]
        self._rows = [
            _Row(find, prompt, begin[-1], hits[-1], placed[-1], moved(compiler.lm, placed[-1].memory, begin[-1]))
            for (_, find), prompt, begin, hits, placed in zip(
                questions, prompts, self._starts, self._found, self._placed, strict=True
            )
        ]
        self._loaded = time.perf_counter()

    def speak(self, max_new_tokens: int, options: Mapping[str, Any]) -> list[Answer]:
        """Generate; arguments as of :func:`trimem.lm.generate.generate_rows`."""
        lm, rows = self._compiler.lm, self._rows
        in_pieces = len(self._starts[0]) > 1

        def after_token(ids: Tensor) -> None:
            new = ids.shape[1] - self._width
            if (new < max_new_tokens and self._exchange(ids, new)) or (new == 1 and in_pieces):
                self._read_on(attachment)

        with attach(lm, stack_rows([row.memory for row in rows])) as attachment:
            if in_pieces:
                self._read_in_pieces(attachment)
            else:
                self._read_on(attachment)
            said = generate_rows(
                lm,
                [row.prompt for row in rows],
                max_new_tokens=max_new_tokens,
                memory_tokens=[row.placement.span for row in rows],
                on_token=after_token,
                **options,
            )
        return [
            answer_of(
                lm,
                len(row.prompt),
                row.placement.span,
                generation,
                attended(row.passages),
                Timings(
                    search=self._searched - self._started,
                    load=self._loaded - self._searched,
                    first_token=generation.first_token - self._started,
                    total=generation.finished - self._started,
                ),
                citations(lm, row.passages, generation.new_tokens),
            )
            for row, generation in zip(rows, said, strict=True)
        ]

    def _read_in_pieces(self, attachment: Attachment) -> None:
        """Let each piece of each question read its memory."""
        lm, shares = self._compiler.lm, AttentionShares()
        memories: list[Memory] = []
        for row, start, hits, placed in zip(self._rows, self._starts, self._found, self._placed, strict=True):
            row.passages += passages_of(hits, placed, shares, len(memories), len(self._rows) * len(start))
            memories += [moved(lm, each.memory, at) for each, at in zip(placed, start, strict=True)]
        attachment.memory, attachment.shares, attachment.piece = stack_rows(memories), shares, self._read.exchange

    def _read_on(self, attachment: Attachment) -> None:
        """Let each row read its memory from now on."""
        attachment.piece = None
        rows, shares = self._rows, AttentionShares()
        attachment.memory, attachment.shares = stack_rows([row.memory for row in rows]), shares
        for i, row in enumerate(rows):
            row.passages.append(Passage(tuple(row.hits), row.placement, shares, i, len(rows)))

    def _exchange(self, ids: Tensor, new: int) -> bool:
        """Exchange or move what the rows read for which it is time; tell whether there is any."""
        changed = False
        beams = ids.shape[0] // len(self._rows)
        for i, row in enumerate(self._rows):
            length = len(row.prompt) + new
            every, along = self._read.exchange, self._read.reanchor
            if every is not None and new % every == 0:
                said = self._compiler.lm.tokenizer.decode(ids[i * beams, -every:], skip_special_tokens=True)
                if str(said).strip():
                    find = partial(row.find, str(said))
                    row.hits, row.placement = read_found(find(), find=find, read=self._stand)
                    row.memory = moved(self._compiler.lm, row.placement.memory, length)
                    changed = True
            elif along is not None and length % along == 0:
                row.memory = moved(self._compiler.lm, row.placement.memory, length)
                changed = True
        return changed

    def _stand(self, hits: Sequence[Hit]) -> tuple[tuple[Hit, ...], Placement]:
        """Return hits, and where they stand."""
        return tuple(hits), self._place(hits)
