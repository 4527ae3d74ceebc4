"""Ways to answer a question with one model: without help, with the text in the prompt, with the text as memory.

Unless their name says otherwise, all see the same tokens in the same order (prefix, references with the
best one last, question); what differs is how the references reach the model. So a difference between
them is the reading's own.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch

from trimem.explicit.bank import ExplicitBank
from trimem.explicit.read_config import READ_CONFIGS, ReadConfig
from trimem.explicit.reading import Reading
from trimem.lm.generate import generate
from trimem.types import Hit


@dataclass(frozen=True, slots=True)
class Spoken:
    """What a system said and what it took.

    Attributes:
        text: The answer.
        first_token: Seconds from the given hits to the first token.
        tokens_per_second: Decoding speed after it.
        prefill_tokens: Tokens that went through the model before it.
        hits: What was read, with shares of attention where the system knows them.
        kept_bytes: Bytes of the key-values that were made of these hits for this answer alone.
    """

    text: str
    first_token: float
    tokens_per_second: float
    prefill_tokens: int
    hits: tuple[Hit, ...]
    kept_bytes: int = 0


class System(Protocol):
    """One way to answer."""

    @property
    def name(self) -> str: ...

    @property
    def searches(self) -> bool:
        """Whether it reads what search finds."""
        ...

    def ask(
        self, question: str, hits: Sequence[Hit], answer: str, *, max_new_tokens: int, lead: str
    ) -> tuple[Spoken, float]:
        """Answer greedily, and tell how likely the right answer was.

        Args:
            question: The question.
            hits: What was found for it, best first.
            answer: What should be said after ``lead``, without the space before it.
            max_new_tokens: Most tokens of the answer.
            lead: How every answer is made to begin; not part of what is said.

        Returns:
            What was said, and the mean negative log-likelihood of the right answer's tokens, in nats.
        """
        ...

    def bytes_per_ref(self, said: Sequence[Spoken]) -> float:
        """Return the bytes it keeps of one reference, on the mean over what it said."""
        ...


@dataclass(frozen=True, slots=True)
class Setting:
    """What a model has before it when it is to answer.

    Attributes:
        prompt: Token ids it must read.
        reading: The memory attached, if any.
    """

    prompt: list[int]
    reading: Reading | None = None


@dataclass(frozen=True, slots=True)
class LocalSystem(ABC):
    """A system that sets a bank's model up and lets it run.

    Attributes:
        bank: Whose model answers.
        name: Of the system.
    """

    bank: ExplicitBank
    name: str

    searches: ClassVar[bool] = True

    @abstractmethod
    def prepare(self, question: str, hits: Sequence[Hit]) -> AbstractContextManager[Setting]:
        """Set the model up to answer ``question`` from ``hits``, best first."""

    def speak(self, question: str, hits: Sequence[Hit], *, max_new_tokens: int, lead: str = "") -> Spoken:
        """Answer greedily; the arguments are those of :meth:`System.ask`."""
        lm = self.bank.model
        started = time.perf_counter()
        with self.prepare(question, hits) as setting:
            prompt = [*setting.prompt, *lm.tokenize(lead)]
            memory_tokens = 0 if setting.reading is None else setting.reading.tokens
            said = generate(lm, prompt, max_new_tokens=max_new_tokens, memory_tokens=memory_tokens)
        seconds = said.finished - said.first_token
        return Spoken(
            said.text.strip(),
            said.first_token - started,
            (said.new_tokens - 1) / seconds if said.new_tokens > 1 else 0.0,
            len(prompt),
            tuple(hits) if setting.reading is None else setting.reading.attended(),
        )

    @torch.no_grad()
    def answer_nll(self, question: str, hits: Sequence[Hit], answer: str, *, lead: str) -> float:
        """Tell how likely the right answer was; arguments and result are those of :meth:`System.ask`."""
        lm = self.bank.model
        wanted = lm.tokenize(f" {answer}")
        with self.prepare(question, hits) as setting:
            ids = torch.tensor([[*setting.prompt, *lm.tokenize(lead), *wanted]], device=lm.device)
            output = lm.model(ids, attention_mask=torch.ones_like(ids), logits_to_keep=len(wanted) + 1)
        log_probabilities = output.logits[0, :-1].float().log_softmax(-1)
        chosen = log_probabilities.gather(1, torch.tensor(wanted, device=lm.device)[:, None])
        return -float(chosen.mean())

    def ask(
        self, question: str, hits: Sequence[Hit], answer: str, *, max_new_tokens: int, lead: str
    ) -> tuple[Spoken, float]:
        said = self.speak(question, hits, max_new_tokens=max_new_tokens, lead=lead)
        return said, self.answer_nll(question, hits, answer, lead=lead)

    def bytes_per_ref(self, said: Sequence[Spoken]) -> float:
        """Return a reference's share of the database with the indexes, which search needs."""
        stats = self.bank.stats()
        return stats.database_bytes / stats.slots


@dataclass(frozen=True, slots=True)
class ClosedBook(LocalSystem):
    """The question alone."""

    name: str = "closed_book"

    searches: ClassVar[bool] = False

    @contextmanager
    def prepare(self, question: str, hits: Sequence[Hit]) -> Iterator[Setting]:
        compiler = self.bank.compiler
        yield Setting([*compiler.prefix_ids, *compiler.question(question)])

    def bytes_per_ref(self, said: Sequence[Spoken]) -> float:
        return 0.0


@dataclass(frozen=True, slots=True)
class TextRag(LocalSystem):
    """The text of the hits in the prompt.

    Attributes:
        best_first: Whether the best hit stands first, not last.
        cached_prefix: Whether what stands before the references is read as key-values, which is all
            that prefix caching can reuse where every question finds other references.
    """

    name: str = "text_rag"
    best_first: bool = False
    cached_prefix: bool = False

    @contextmanager
    def prepare(self, question: str, hits: Sequence[Hit]) -> Iterator[Setting]:
        compiler = self.bank.compiler
        ordered = hits if self.best_first else reversed(hits)
        references = [token for hit in ordered for token in compiler.reference(hit.text)]
        read = [*references, *compiler.question(question)]
        if not self.cached_prefix:
            yield Setting([*compiler.prefix_ids, *read])
            return
        with self.bank.attach(hits=()) as reading:
            yield Setting(read, reading)


@dataclass(frozen=True, slots=True)
class ExplicitMemory(LocalSystem):
    """The key-values of the hits attached.

    Attributes:
        read: As of :meth:`ExplicitBank.attach`.
    """

    name: str = "explicit_dense"
    read: ReadConfig = READ_CONFIGS["dense"]

    @contextmanager
    def prepare(self, question: str, hits: Sequence[Hit]) -> Iterator[Setting]:
        with self.bank.attach(hits=hits, read=self.read) as reading:
            yield Setting(self.bank.compiler.question(question), reading)

    def bytes_per_ref(self, said: Sequence[Spoken]) -> float:
        """Return a reference's share of the database and its tensors."""
        stats = self.bank.stats()
        return stats.database_bytes / stats.slots + stats.tensor_bytes / stats.compiled
