"""ResonanceBank: what was said, found by ear, by meaning or by place, and read by a model."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import accumulate
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from trimem import tracing
from trimem.checks import as_namespace, check_k, check_text, check_trust
from trimem.errors import InvalidInputError
from trimem.lm.answering import speak
from trimem.lm.generate import check_new_tokens
from trimem.lm.marks import hidden, tokenize
from trimem.lm.model import LanguageModel
from trimem.resonance.consensus import Reconstruction
from trimem.resonance.heard import Heard
from trimem.resonance.hits import SoundHit, score
from trimem.resonance.places import Spot, parse_spot
from trimem.resonance.prior import LanguagePrior
from trimem.resonance.reading import BETA, INSTRUCTION, SpanReading, format_of, lent
from trimem.resonance.search import LONGEST_QUERY
from trimem.resonance.sought import FRAME, Sought
from trimem.resonance.sounds import Resonant
from trimem.resonance.stored_bank import StoredBank
from trimem.store.reader import SlotInLine
from trimem.store.scope import format_path
from trimem.types import Answer, Hit, Slot, SlotId, StoredText

By = Literal["auto", "sound", "meaning", "place"]

SURE = 5.0
"""Nats that must tell for a word of a question to have been heard for another, before the other is searched for."""

QUOTED = 0.5
"""The share of what its phonemes could tell from which on a query is taken for a quotation."""

_LEAST_QUOTED = 3  # words of a quotation
_LONGEST_QUOTATION = 1000  # characters
_LEAST_PHONEMES = 3  # shorter words sound like too many others


@dataclass(frozen=True, slots=True)
class Position:
    """A word of a dialogue.

    Attributes:
        slot: The slot it is in.
        word: Which word of the slot.
        state: Of the slot's path before the word, (16,) uint32.
    """

    slot: Slot
    word: int
    state: NDArray[np.uint32] = field(repr=False)


class ResonanceBank(StoredBank):
    """What was said, as paths on a torus: found by ear, by meaning or by place.

    Open one with :meth:`open`. No language model is needed to remember or to find; any thread may use it.
    """

    def recall(
        self,
        query: str | Heard,
        k: int = 4,
        *,
        namespace: str | Sequence[str],
        where: Mapping[str, Any] | None = None,
        min_trust: float = 0.0,
        by: By = "auto",
    ) -> list[Hit]:
        """Return the best ``k`` slots for ``query``, best first; see :meth:`trimem.Bank.recall`.

        Args:
            query: What to look for; what a recogniser heard is looked for by sound.
            k: How many at most.
            namespace: Where to look, and below.
            where: Metadata a slot must have, or how it must compare.
            min_trust: The least trust of a slot, from 0 to 1.
            by: ``"sound"`` compares phonemes, both as a phrase that is quoted and as a question about what was said;
                its hits are :class:`trimem.resonance.hits.SoundHit`. ``"meaning"`` compares words and vectors.
                ``"place"`` takes "minute 12", "0:12:30", "turn 7", "word 1500", or a time in ISO 8601, and returns
                what was said there and around it. ``"auto"`` is by place where a query names one and nothing else; by
                sound where somebody said it nearly as it is (:data:`QUOTED`); else by meaning, with every word that
                nobody said here replaced by the one it sounds like, where there is one.

        Raises:
            InvalidInputError: The query is empty, k is less than 1, ``by`` or ``min_trust`` is something else,
                nothing of a query by sound can be spoken, or a query by place names none.
            FingerprintMismatch: The bank was made with another encoder.
        """
        check_k(k)
        if by not in get_args(By):
            raise InvalidInputError(f"by must be one of {', '.join(get_args(By))}, got {by!r}")
        path = as_namespace(namespace)
        check_trust(min_trust, "min_trust")
        if isinstance(query, Heard):
            if by not in ("auto", "sound"):
                raise InvalidInputError(f"what was heard is looked for by sound, not by {by}")
            return self._recalled(self._by_sound(self._sought(query), k, path, where, min_trust))
        check_text(query, "a query")
        if by == "sound":
            return self._recalled(self._by_sound(self._sought(query), k, path, where, min_trust))
        if by == "meaning":
            return self._decoded(super().recall(query, k, namespace=path, where=where, min_trust=min_trust))
        spot = parse_spot(query)
        if by == "place":
            if spot is None:
                raise InvalidInputError(
                    'a query by place is "minute 12", "0:12:30", "turn 7", "word 1500" or a time in ISO 8601, got '
                    f"{query!r}"
                )
            return self._recalled(self._by_place(spot, k, path, where, min_trust))
        if spot is not None and (hits := self._by_place(spot, k, path, where, min_trust)):
            return self._recalled(hits)
        if quoted := self._quoted(query, k, path, where, min_trust):
            return self._recalled(quoted)
        mended = self.mend(query, namespace=path)
        return self._decoded(self._recalled(self._finder(mended, mended, path, where, min_trust)(k)))

    def mend(self, query: str, *, namespace: str | Sequence[str]) -> str:
        """Return a query with each word that nobody said there replaced by the one it was most likely heard for.

        A word stays where what it sounds like tells less than :data:`SURE` nats.
        """
        path = format_path(as_namespace(namespace))
        if self._store.bank() is None:
            return query
        units = self.speech.units(query)
        for i, phonemes in enumerate(self.speech.speak(units[:LONGEST_QUERY])):
            word = units[i].strip()
            if len(phonemes) >= _LEAST_PHONEMES and word.lower() not in FRAME:
                like = self._sounds.like(phonemes, path)
                if like is not None and like[1] >= SURE:
                    units[i] = units[i].replace(word, like[0])
        return "".join(units)

    def get(self, ids: str | Collection[str], *, namespace: str | Sequence[str]) -> list[StoredText]:
        """Return whole texts by their keys; see :meth:`trimem.Bank.get`.

        Where the bank keeps no text, it is decoded, with blanks for the white space between slots.
        """
        found = super().get(ids, namespace=namespace)
        return found if self.config.keep_text else [replace(text, text=self._whole(text)) for text in found]

    def _whole(self, text: StoredText) -> str:
        said = ""
        for slot in self._slots(self._store.documents(text.namespace, [text.key])[text.key][1]):
            said = said.ljust(slot.start) + slot.text
        return said

    def reconstruct(self, slot: SlotId, start: int = 0, stop: int | None = None) -> Reconstruction:
        """Decode a slot from its trajectory, or a stretch of it.

        What codes leave open, frequency decides, and where that fails the bank's model, if it has one. A block whose
        checksum fails is flagged, with its best guess. What was heard has no checksum: all of it is flagged.

        Args:
            slot: Its id.
            start: First word.
            stop: Word past the last; None is the end.

        Raises:
            SlotNotFoundError: The bank does not hold it (any more).
            InvalidInputError: The stretch is not inside the slot.
            CorruptTensorError: Its trajectory cannot be read.
        """
        trajectory, heard = self._read(slot)
        trajectory.check_span(start, len(trajectory) if stop is None else stop)
        prior = None if self.model is None else LanguagePrior(self.model, self.speech.lexicon)
        if heard is not None:
            return self.speech.understand(heard, prior, start, stop)
        return self.speech.decode(trajectory, prior, start, stop)

    def seek(self, position: int, *, namespace: str | Sequence[str]) -> Position:
        """Return the word at a position of the dialogue that the slots of a namespace are, in the order they came.

        A slot's path begins with the slot, so that whatever is forgotten before it, it stays bit for bit what it was,
        and only positions move up. O(slots) for the place, and at most one stretch of codes for the state.

        Raises:
            InvalidInputError: There is no such position.
        """
        line = self._line(as_namespace(namespace))
        ends = list(accumulate(slot.tokens for slot in line))
        words = ends[-1] if ends else 0
        if isinstance(position, bool) or not isinstance(position, int) or not 0 <= position < words:
            raise InvalidInputError(f"positions are whole numbers from 0 to below {words}, got {position!r}")
        at = int(np.searchsorted(ends, position, side="right"))
        word = position - (ends[at] - line[at].tokens)
        trajectory, _ = self._read(line[at].slot_id)
        (slot,) = self._slots([line[at].slot_id])
        return Position(slot, word, trajectory.state(word))

    @property
    def instruction(self) -> str:
        return INSTRUCTION

    @contextmanager
    def attach(
        self, model: LanguageModel | None = None, *, hits: Sequence[Hit], beta: float = BETA
    ) -> Iterator[SpanReading]:
        """Let a model read ``hits`` in every forward pass of a ``with`` block.

        Their texts are read once, each by itself, and laid before the context, the first hit nearest. A hit that was
        found by ear weighs the more the clearer it resonates: ``beta * z`` is added to its attention logits.

        Args:
            model: Any model that can be lent memory; None is the bank's.
            hits: What :meth:`recall` returned; none is allowed.
            beta: Nats for each standard deviation.

        Yields:
            The reading, which tells afterwards how much attention each hit received.

        Raises:
            SlotNotFoundError: A hit is not in the bank (any more).
            ContextLengthError: The hits fill the model's context.
            InvalidInputError: There is no model, or ``beta`` is below 0.
            UnsupportedModelError: The model's keys cannot be moved.
        """
        lm = self._reader(model)
        self._store.check_held([hit.id for hit in hits])
        with lent(lm, hits, beta) as reading:
            yield reading

    def _reader(self, model: LanguageModel | None) -> LanguageModel:
        """Return the model that reads; None is the bank's.

        Raises:
            InvalidInputError: There is none.
        """
        lm = self.model if model is None else model
        if lm is None:
            raise InvalidInputError("a model is needed to read: give model=, or open the bank with one")
        return lm

    def ask(
        self,
        question: str,
        *,
        namespace: str | Sequence[str],
        k: int = 5,
        where: Mapping[str, Any] | None = None,
        min_trust: float = 0.0,
        by: By = "auto",
        beta: float = BETA,
        max_new_tokens: int = 128,
        **options: Any,
    ) -> Answer:
        """Answer a question from what was said: find the best slots, attach them, generate.

        Args:
            question: The question.
            namespace: Whose memory to read, and below.
            k: How many slots at most.
            where: Filter on metadata, as in :meth:`recall`.
            min_trust: The least trust of a slot, as there.
            by: How to find them, as in :meth:`recall`.
            beta: As in :meth:`attach`.
            max_new_tokens: Most tokens of the answer.
            options: Passed to transformers' ``generate``; greedy by default.

        Raises:
            ContextLengthError: Memory, question and answer do not fit the model's context.
            InvalidInputError: The question is empty, k is less than 1, or the bank was opened without a model.
        """
        check_text(question, "a query")
        lm = self._reader(None)
        check_new_tokens(lm, max_new_tokens)
        asked = tracing.Asking(self.folder.name, lm.name, question, max_new_tokens)
        with asked.under():
            started = time.perf_counter()
            hits = self.recall(question, k, namespace=namespace, where=where, min_trust=min_trust, by=by)
            answer, _ = speak(
                lm,
                tokenize(lm, format_of(lm).question(hidden(lm, question))),
                self.attach(lm, hits=hits, beta=beta),
                started=started,
                searched=time.perf_counter(),
                max_new_tokens=max_new_tokens,
                **options,
            )
        asked.answered(answer)
        return answer

    # How slots are found

    def _quoted(
        self, query: str, k: int, path: tuple[str, ...], where: Mapping[str, Any] | None, min_trust: float
    ) -> list[Hit]:
        """Return what is found by sound, if the best of it says the query nearly as it is; nothing else."""
        units = self.speech.units(query[:_LONGEST_QUOTATION])
        sought = Sought.of(zip(units, self.speech.speak(units), strict=True))
        if not _LEAST_QUOTED <= len(sought.phrase) <= LONGEST_QUERY or len(query) > _LONGEST_QUOTATION:
            return []
        hits = self._by_sound(sought, k, path, where, min_trust)
        return hits if hits and isinstance(hits[0], SoundHit) and hits[0].quoted >= QUOTED else []

    def _sought(self, query: str | Heard) -> Sought:
        """Return what is looked for by sound; of what was heard, the words it most likely was tell what it is about."""
        if isinstance(query, Heard):
            units: Sequence[str] = self.speech.understand(query).units
            words = [*zip(units, query.phonemes, strict=True)]
        else:
            units = self.speech.units(query)
            words = [each for each in zip(units, self.speech.speak(units), strict=True) if each[1]]
        if not words:
            raise InvalidInputError(f"nothing of {query!r} can be spoken: search by meaning, or say it in words")
        return Sought.of(words[:LONGEST_QUERY])

    def _by_sound(
        self,
        query: Sought,
        k: int,
        path: tuple[str, ...],
        where: Mapping[str, Any] | None,
        min_trust: float,
    ) -> list[Hit]:
        if self._store.bank() is None:
            return []
        reader = self._store.reader
        with reader.session() as session:
            some = where or min_trust > 0 or reader.expired(session) is not None
            allowed = reader.rows(session, path, where, min_trust) if some else None
        found = self._sounds.search(query, format_path(path), allowed, k)
        with reader.session() as session:
            rows = {text.row: text.slot_id for text in reader.texts_of(session, [one.row for one in found])}
        held = [one for one in found if one.row in rows]
        slots = {slot.id: slot for slot in self._slots([rows[one.row] for one in held])}
        return [_hit(slots[rows[one.row]], one) for one in held if rows[one.row] in slots]

    def _by_place(
        self, spot: Spot, k: int, path: tuple[str, ...], where: Mapping[str, Any] | None, min_trust: float
    ) -> list[Hit]:
        line = self._line(path, where, min_trust)
        at = _place_in(line, spot)
        if at is None:
            return []
        order = sorted(range(len(line)), key=lambda i: (abs(i - at), -i))[:k]
        slots = {slot.id: slot for slot in self._slots([line[i].slot_id for i in order])}
        return [Hit(slots[line[i].slot_id], 1 / (1 + abs(i - at))) for i in order if line[i].slot_id in slots]

    def _line(
        self, path: tuple[str, ...], where: Mapping[str, Any] | None = None, min_trust: float = 0.0
    ) -> list[SlotInLine]:
        with self._store.reader.session() as session:
            return self._store.reader.line(session, path, where, min_trust)

    def _slots(self, ids: Sequence[SlotId]) -> list[Slot]:
        """Return slots with what they say, decoded where the bank keeps no text."""
        return [self._with_text(slot) for slot in self._store.slots(ids)]

    def _decoded(self, hits: Sequence[Hit]) -> list[Hit]:
        return [replace(hit, slot=self._with_text(hit.slot)) for hit in hits]

    def _with_text(self, slot: Slot) -> Slot:
        return slot if self.config.keep_text else replace(slot, text=self.reconstruct(slot.id).text)

    # The same, off the event loop

    async def aremember(self, texts: Any, **kwargs: Any) -> list[SlotId]:
        """:meth:`remember`, off the event loop."""
        return await asyncio.to_thread(lambda: self.remember(texts, **kwargs))

    async def arecall(self, query: str | Heard, k: int = 4, **kwargs: Any) -> list[Hit]:
        """:meth:`recall`, off the event loop."""
        return await asyncio.to_thread(lambda: self.recall(query, k, **kwargs))

    async def aask(self, question: str, **kwargs: Any) -> Answer:
        """:meth:`ask`, off the event loop."""
        return await asyncio.to_thread(lambda: self.ask(question, **kwargs))


def _hit(slot: Slot, found: Resonant) -> SoundHit:
    return SoundHit(slot, score(found.z), nats=found.nats, z=found.z, word=found.word, quoted=found.quoted)


def _place_in(line: Sequence[SlotInLine], spot: Spot) -> int | None:
    """Return which slot a place is in; None where the dialogue has no such place."""
    if spot.turn is not None:
        return spot.turn - 1 if 1 <= spot.turn <= len(line) else None
    if spot.word is not None:
        ends = list(accumulate(slot.tokens for slot in line))
        at = int(np.searchsorted(ends, spot.word, side="right"))
        return at if at < len(line) else None
    timed = [(slot.moment, i) for i, slot in enumerate(line) if slot.moment is not None]
    if not timed:
        return None
    first = min(timed)[0]
    if spot.since is not None:
        sought = first + spot.since // timedelta(microseconds=1)
    else:
        assert spot.moment is not None  # one of the four is set
        sought = int(spot.moment.timestamp() * 1_000_000)
    said = [each for each in timed if each[0] <= sought]
    return max(said)[1] if said else None
