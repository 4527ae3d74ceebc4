"""ExplicitBank: documents remembered as attention key-values."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from math import log
from typing import Any, Literal, overload

from trimem import tracing
from trimem.banks.identity import check_model
from trimem.checks import MOST_HITS, check_characters, check_history, check_k, check_text, several, shown, whole
from trimem.errors import (
    ContextLengthError,
    CorruptTensorError,
    InvalidInputError,
    SlotNotFoundError,
    TrimemError,
)
from trimem.explicit.answering import Answering, read_found
from trimem.explicit.batch import Batch
from trimem.explicit.compiler import Compiler
from trimem.explicit.density import tokens_per_hit
from trimem.explicit.read import Placement
from trimem.explicit.read_config import ReadConfig, as_read_config
from trimem.explicit.reading import AnswerStream, Reading
from trimem.explicit.rereading import question_attention, question_likelihood
from trimem.explicit.stored_bank import StoredBank
from trimem.lm.attach import attach
from trimem.lm.generate import check_new_tokens
from trimem.lm.model import LanguageModel
from trimem.store.fusion import reread
from trimem.text import following
from trimem.types import Answer, Hit, Message

_logger = logging.getLogger(__name__)
_LEAST = 1e-30  # attention that counts as some, for its logarithm


class ExplicitBank(StoredBank):
    """Documents compiled once to attention key-values, which a model reads without their text.

    Open one with :meth:`open`. A bank belongs to the model that compiled it; any thread may use it.
    """

    def recall(
        self,
        query: str,
        k: int = 4,
        *,
        namespace: str | Sequence[str],
        where: Mapping[str, Any] | None = None,
        min_trust: float = 0.0,
        history: Sequence[Message] = (),
        rerank: int = 0,
        rerank_by: Literal["likelihood", "attention"] = "likelihood",
    ) -> list[Hit]:
        """Return the best ``k`` slots for ``query``, best first; see :meth:`trimem.Bank.recall`.

        By words and by meaning at once (:mod:`trimem.store.search`). The language model is not needed,
        unless it is to rerank.

        Args:
            query: What to look for.
            k: How many at most.
            namespace: Where to look, and below.
            where: Metadata a slot must have, or how it must compare.
            min_trust: The least trust of a slot, from 0 to 1.
            history: What was said before, which is searched for, too (:mod:`trimem.text.following`).
            rerank: How many of the best are read before they are ranked (:mod:`trimem.explicit.rereading`).
                Those that are not compiled are compiled first.
            rerank_by: What the model tells of them: how likely the query is with each in memory, or how much
                attention the query's tokens pay to each, which takes one forward pass for all.

        Raises:
            InvalidInputError: The query is empty, k is less than 1, rerank less than 0, or ``min_trust`` or
                ``rerank_by`` is something else.
            FingerprintMismatch: The bank was made with another encoder, or is to be read by another model.
        """
        check_text(query, "a query")
        check_k(k)
        check_history(history)
        whole(rerank, "rerank", 0, MOST_HITS)
        if rerank_by not in ("likelihood", "attention"):
            raise InvalidInputError(f'rerank_by must be "likelihood" or "attention", got {shown(rerank_by)}')
        words = following.words(query, history)
        find = partial(self._finder(query, words, namespace, where, min_trust), max(k, rerank))
        hits = find()
        if rerank and hits:
            hits = read_found(hits, find=find, read=lambda found: self._reread(words, found, rerank, rerank_by))
        return self._recalled(hits[:k])

    def _reread(self, query: str, hits: Sequence[Hit], most: int, by: str) -> list[Hit]:
        """Rank hits by their score and by what the model makes of the query when it has the first of them."""
        read = hits[:most]
        self.compile(read, progress=False)
        records = self._records.read(self.compiler, [hit.id for hit in read], [None] * len(read))
        if by == "likelihood":
            told = question_likelihood(self.compiler, records, query)
        else:
            told = [log(max(heed, _LEAST)) for heed in question_attention(self.compiler, records, query)]
        scores = reread([hit.score for hit in hits], told)
        rescored = [replace(hit, score=score) for hit, score in zip(hits, scores, strict=True)]
        return sorted(rescored, key=lambda hit: -hit.score)

    @property
    def instruction(self) -> str:
        return self.config.instruction

    @contextmanager
    def attach(
        self,
        model: LanguageModel | None = None,
        *,
        hits: Sequence[Hit],
        read: ReadConfig | str = "dense",
    ) -> Iterator[Reading]:
        """Let a model read ``hits`` in every forward pass of a ``with`` block.

        The model reads the bank's prefix, then the hits, the first nearest, then whatever it is given.
        See :func:`trimem.lm.attach` for what holds in the block.

        Args:
            model: The model that compiled the bank; None is ``bank.model``.
            hits: What :meth:`recall` returned; none is allowed.
            read: How: ``"dense"`` as the text would be read, ``"mixed"`` what search is sure of in full and
                the rest at low resolution, or a :class:`ReadConfig`.

        Yields:
            The reading, which tells afterwards how much attention each hit received.

        Raises:
            FingerprintMismatch: Another model compiled the bank.
            InvalidInputError: ``hits`` are no hits, ``model`` is no model, or ``read`` is unknown.
            SlotNotFoundError: A hit is not in the bank (any more).
            CalibrationNotFoundError: Heads are chosen by calibration, and the model has none.
            ContextLengthError: The hits fill the model's context.
            CorruptTensorError: The tensors of a hit cannot be read.
        """
        hits = several(hits, "hits", Hit)
        lm = self.model if model is None else model
        if not isinstance(lm, LanguageModel):
            raise InvalidInputError(f"model must be a LanguageModel, as load_model returns it, got {shown(lm)}")
        row = self._store.bank()
        if lm is not self.model and row is not None:
            check_model(self.folder, row, lm.name, lm.fingerprint)
        compiler = self.compiler if lm is self.model else Compiler(lm, self.config)
        how = as_read_config(read)
        reading = Reading(lm, hits, partial(self._place, compiler, how), how.reanchor)
        with attach(lm, reading.placement.memory, shares=reading.shares) as reading.attachment:
            yield reading

    def _place(self, compiler: Compiler, read: ReadConfig, hits: Sequence[Hit]) -> Placement:
        """Bring hits to the positions right before the context."""
        self.compile(hits, progress=False)
        try:
            records = self._records.read(compiler, [hit.id for hit in hits], tokens_per_hit(hits, read.density))
        except CorruptTensorError:
            self._store.check_held([hit.id for hit in hits])  # or was it removed a moment ago?
            raise
        placement = compiler.place(compiler.prepare(records, [hit.text for hit in hits], read), read)
        lm = compiler.lm
        if placement.span >= lm.context_length:
            raise ContextLengthError(
                f"{len(hits)} hits are {placement.span} tokens of memory with the prefix, which leaves nothing of the "
                f"{lm.context_length} that {lm.name} was made for: attach fewer"
            )
        return placement

    def prefetch(
        self,
        query: str,
        *,
        namespace: str | Sequence[str],
        k: int = 5,
        where: Mapping[str, Any] | None = None,
        min_trust: float = 0.0,
        history: Sequence[Message] = (),
        read: ReadConfig | str = "dense",
    ) -> Future[int]:
        """Find and load in the background what a question will read: while it is still typed, say.

        What is not compiled yet is compiled.

        Args:
            query: What is known of the question.
            namespace: Whose memory to read, and below.
            k: How many slots at most.
            where: Filter on metadata, as in :meth:`recall`.
            min_trust: The least trust of a slot, as there.
            history: What was said before it, as in :meth:`ask`.
            read: How the slots will be read, as in :meth:`attach`.

        Returns:
            How many slots are now in memory, in the future; or its error. Nobody needs to wait for it.
        """
        how = as_read_config(read)

        def load() -> int:
            hits = self.recall(query, k, namespace=namespace, where=where, min_trust=min_trust, history=history)
            self.compile(hits, progress=False)
            return len(self._records.read(self.compiler, [hit.id for hit in hits], tokens_per_hit(hits, how.density)))

        return self._background.submit(load)

    def _compile_unseen(self, hits: Sequence[Hit]) -> None:
        """Compile hits where nobody waits for it, so that what goes wrong is logged instead of raised."""
        try:
            self.compile(hits, progress=False)
        except SlotNotFoundError:
            pass  # they were forgotten or replaced meanwhile
        except TrimemError as error:
            _logger.warning("slots were not compiled in the background, and will be when they are read: %s", error)

    def _cold(self, hits: Sequence[Hit]) -> list[Hit]:
        """Return those hits that are not compiled."""
        missing = set(self._records.missing([hit.id for hit in hits]))
        return [hit for hit in hits if hit.id in missing]

    @overload
    def ask(
        self,
        question: str,
        *,
        namespace: str | Sequence[str],
        k: int = 5,
        where: Mapping[str, Any] | None = None,
        min_trust: float = 0.0,
        history: Sequence[Message] = (),
        system: str = "",
        max_new_tokens: int = 128,
        read: ReadConfig | str = "dense",
        cold: Literal["compile", "text"] = "compile",
        stream: Literal[False] = False,
        **options: Any,
    ) -> Answer: ...

    @overload
    def ask(
        self,
        question: str,
        *,
        namespace: str | Sequence[str],
        k: int = 5,
        where: Mapping[str, Any] | None = None,
        min_trust: float = 0.0,
        history: Sequence[Message] = (),
        system: str = "",
        max_new_tokens: int = 128,
        read: ReadConfig | str = "dense",
        cold: Literal["compile", "text"] = "compile",
        stream: Literal[True],
        **options: Any,
    ) -> AnswerStream: ...

    def ask(
        self,
        question: str,
        *,
        namespace: str | Sequence[str],
        k: int = 5,
        where: Mapping[str, Any] | None = None,
        min_trust: float = 0.0,
        history: Sequence[Message] = (),
        system: str = "",
        max_new_tokens: int = 128,
        read: ReadConfig | str = "dense",
        cold: Literal["compile", "text"] = "compile",
        stream: bool = False,
        **options: Any,
    ) -> Answer | AnswerStream:
        """Answer a question from memory: find the best slots, attach them, generate.

        Only the question goes through the model; the text of the slots does not. Where nothing is
        found, the model answers without memory and ``hits`` is empty.

        Args:
            question: The question.
            namespace: Whose memory to read, and below.
            k: How many slots at most.
            where: Filter on metadata, as in :meth:`recall`.
            min_trust: The least trust of a slot, as there.
            history: What was said before, as messages of ``user`` and ``assistant``, oldest first: "she"
                and "the other one" are understood from it, in the search and by the model.
            system: What the application tells the model: read before the first thing the user says, not searched for.
            max_new_tokens: Most tokens of the answer.
            read: How the slots are read, as in :meth:`attach`.
            cold: What to do with slots that are not compiled yet: ``"compile"`` them first, or put their
                ``"text"`` into the prompt and compile them in the background after the answer.
            stream: True returns the answer as it is spoken.
            options: Passed to transformers' ``generate``; greedy by default. ``seed`` makes sampling repeat itself.

        Raises:
            ContextLengthError: Memory, question and answer do not fit the model's context.
            InvalidInputError: The question is empty, k is less than 1, or ``cold`` is something else.
        """
        if cold not in ("compile", "text"):
            raise InvalidInputError(f'cold must be "compile" or "text", got {shown(cold)}')
        check_text(question, "a query")
        check_new_tokens(self.model, max_new_tokens)
        how = as_read_config(read)
        find = partial(self.recall, k=k, namespace=namespace, where=where, min_trust=min_trust)
        asked = tracing.Asking(self.folder.name, self.model.name, question, max_new_tokens)
        with asked.under():
            answering = Answering(
                self.compiler,
                find,
                partial(find, history=check_history(history)),
                lambda hits: self.attach(hits=hits, read=how),
                self._cold if cold == "text" else lambda _: (),
                question,
                history,
                check_characters(system, "system"),
                max_new_tokens,
                how.exchange,
                options,
            )

        def speak(on_text: Callable[[str], None] | None = None, stop: Callable[[], bool] | None = None) -> Answer:
            with asked.under():
                answer = answering.speak(on_text, stop)
            asked.answered(answer)
            if answering.as_text:
                self._background.submit(partial(self._compile_unseen, answering.as_text))
            return answer

        return AnswerStream(speak) if stream else speak()

    def ask_many(
        self,
        questions: Sequence[str],
        *,
        namespaces: Sequence[str | Sequence[str]],
        k: int = 5,
        where: Mapping[str, Any] | None = None,
        min_trust: float = 0.0,
        max_new_tokens: int = 128,
        read: ReadConfig | str = "dense",
        **options: Any,
    ) -> list[Answer]:
        """Answer several questions in the same forward passes, each from its own namespace.

        No question sees another's memory. Each answer is what :meth:`ask` gives, up to the rounding of
        larger batches.

        Args:
            questions: The questions.
            namespaces: Whose memory each reads, one a question.
            k: How many slots at most, each.
            where: Filter on metadata, as in :meth:`recall`.
            min_trust: The least trust of a slot, as there.
            max_new_tokens: Most tokens of each answer.
            read: How the slots are read, as in :meth:`attach`.
            options: Passed to transformers' ``generate``; greedy by default.

        Raises:
            ContextLengthError: Memory, question and answer of one do not fit the model's context.
            InvalidInputError: There is no question, one is empty, or there is not one namespace for each.
        """
        questions, namespaces = several(questions, "questions"), several(namespaces, "namespaces")
        for question in questions:
            check_text(question, "a query")
        if not questions or len(questions) != len(namespaces):
            raise InvalidInputError(
                f"ask_many takes one namespace for each of at least one question, got {len(questions)} questions and "
                f"{len(namespaces)} namespaces"
            )
        check_new_tokens(self.model, max_new_tokens)
        how = as_read_config(read)
        asked = [
            (question, partial(self.recall, k=k, namespace=namespace, where=where, min_trust=min_trust))
            for question, namespace in zip(questions, namespaces, strict=True)
        ]
        batch = Batch(self.compiler, asked, partial(self._place, self.compiler, how), how)
        return batch.speak(max_new_tokens, options)

    async def aask(self, question: str, **kwargs: Any) -> Answer:
        """:meth:`ask`, off the event loop."""
        return await asyncio.to_thread(lambda: self.ask(question, **kwargs))
