"""What a bank of resonance memory holds: written as trajectories, read back, checked."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self

from sqlalchemy import select

from trimem.banks.documents import Given, Told, slot_id
from trimem.banks.folder import encoder_of
from trimem.banks.slot_bank import SlotBank
from trimem.banks.writer import Writer, all_at_once
from trimem.checks import several, typed
from trimem.errors import CorruptTensorError, InvalidInputError, SlotNotFoundError
from trimem.lm.load import load_model, model_given
from trimem.lm.model import LanguageModel
from trimem.progress import track
from trimem.reports import IntegrityReport, Problem
from trimem.resonance.config import ResonanceConfig
from trimem.resonance.heard import HEARD, Heard
from trimem.resonance.records import pack, unpack
from trimem.resonance.sounds import FollowedSounds, Said
from trimem.resonance.speech import Speech
from trimem.resonance.trajectory import Trajectory
from trimem.store.capacity import Capacity
from trimem.store.metadata import Document, utc_now
from trimem.store.reader import SlotText
from trimem.store.schema import BankRow, DocumentRow
from trimem.store.scope import having
from trimem.store.tensors import StagedShard, staging
from trimem.text.chunking import Chunk, Chunker
from trimem.text.encoders import Embeddings, Encoder
from trimem.types import Metadata, Namespace, Slot, SlotId, Turn


class StoredBank(SlotBank):
    """What a bank of resonance memory holds, without the ways to find and read it."""

    mechanism = "resonance"

    def __init__(
        self,
        folder: Path,
        model: LanguageModel | str | Path | None,
        encoder: Encoder,
        config: ResonanceConfig | None,
        clock: Callable[[], datetime],
        capacity: Capacity | None = None,
    ) -> None:
        super().__init__(folder, encoder, typed(config, "config", ResonanceConfig), clock, capacity)
        self._given_model = model_given(model)
        self._sounds = FollowedSounds(self._store.reader, self._said)

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        model: LanguageModel | str | Path | None = None,
        encoder: Encoder | Embeddings | str | Path | None = None,
        config: ResonanceConfig | None = None,
        create: bool = True,
        clock: Callable[[], datetime] = utc_now,
        capacity: Capacity | None = None,
    ) -> Self:
        """Open the bank in a folder, or make a new one there.

        Args:
            path: The folder.
            model: The model that decides what codes leave open and reads what is attached, or what
                :func:`trimem.load_model` takes, which is loaded when it is first needed. Remembering and finding need
                none, and any model may take the place of another.
            encoder: What finds slots by meaning; see :func:`trimem.text.encoders.as_encoder`. By default
                the bank's own, where it is one of a hub, and for a new bank all-MiniLM-L6-v2.
            config: How to make a bank; None is what the bank has, and for a new one the defaults.
            create: Whether to make a bank where there is none.
            clock: Tells the moment that rows are stamped with and expire by.
            capacity: The most that the bank holds; what this one writes makes room. It is not stored with the bank.

        Raises:
            BankNotFoundError: There is none and ``create`` is False.
            InvalidInputError: The folder is a file, or ``config`` differs from the bank's.
            SchemaVersionError: The bank was written by a newer trimem.
        """
        return cls._opened(
            path, create, lambda folder: cls(folder, model, encoder_of(folder, encoder), config, clock, capacity)
        )

    @cached_property
    def model(self) -> LanguageModel | None:
        """The model the bank was opened with, loaded at the first use if it was given by name."""
        with self._lock:
            given = self._given_model
            return given if given is None or isinstance(given, LanguageModel) else load_model(given)

    @cached_property
    def config(self) -> ResonanceConfig:
        """How this bank is made."""
        if isinstance(self._given_config, ResonanceConfig):
            return self._given_config
        row = self._store.bank()
        return ResonanceConfig() if row is None else self._stored_config(row)

    @cached_property
    def speech(self) -> Speech:
        """The bank's language, as it speaks, hears and writes it."""
        return Speech(self.config)

    def _stored_config(self, row: BankRow) -> ResonanceConfig:
        return ResonanceConfig.from_json(row.config)

    def _made_by(self) -> tuple[str, str]:
        config = self.config
        return f"a lexicon of {config.lexicon_words:,} words ({config.language})", self.speech.lexicon.identity

    def _beside(self, folder: Path, model: Any, encoder: Encoder) -> Self:
        if model is not None:
            raise InvalidInputError(
                "no language model makes a bank of resonance memory: open it with any model, and recompile it to "
                "another encoder alone"
            )
        with self._store.session() as session:
            if session.scalars(select(DocumentRow.id).where(*having({HEARD: True})).limit(1)).first() is not None:
                raise InvalidInputError(
                    f"the bank in {self.folder} holds phonemes that were heard, and not the text they were: it cannot "
                    "be made anew"
                )
        return self.open(folder, encoder=encoder, config=self.config, clock=self._clock)

    def _adopt(self, row: BankRow) -> None:
        super()._adopt(row)
        self.__dict__.pop("speech", None)

    # Writing

    def remember(
        self,
        texts: Given | Heard | Sequence[Given | Heard],
        *,
        namespace: str | Sequence[str],
        metadata: Metadata | Sequence[Metadata] | None = None,
        ids: str | Sequence[str] | None = None,
        ttl: timedelta | None = None,
        provenance: str | None = None,
        trust: float | None = None,
        near_duplicates: float | None = None,
        compile: bool = True,
        progress: bool | None = None,
    ) -> list[SlotId]:
        """Store texts, turns of a conversation, or what a recogniser heard; see :meth:`trimem.Bank.remember`.

        What was heard (:class:`trimem.Heard`) is stored as its phonemes, and beside it, for search, as the words it
        most likely was by their frequency; :meth:`trimem.ResonanceBank.reconstruct` asks a language model.

        Args:
            texts: One or many.
            namespace: Whose they are.
            metadata: Stored beside them, one for all or one each.
            ids: Keys of the texts, one each.
            ttl: How long to hold them, as there.
            provenance: Who or what they are from.
            trust: How far to trust them, from 0 to 1.
            near_duplicates: The cosine from which on a text is taken for one that is there, as there.
            compile: False stores and indexes text only: a slot's trajectory is then made when it is first read.
            progress: Whether to show a bar; None shows it where there is a terminal or a notebook.

        Raises:
            InvalidInputError: A text is empty, metadata is no JSON object, the lists differ in length, or
                ``compile`` is False where the trajectory is all that is kept. Nothing is stored then.
        """
        given = [texts] if isinstance(texts, str | Turn | Told | Heard) else several(texts, "texts")
        kept = self.config.keep_text and not any(isinstance(one, Heard) for one in given)
        if not compile and not kept:
            raise InvalidInputError(
                "compile=False keeps a text and makes its trajectory later; here the trajectory is all that is kept"
            )
        told = [self._told(one) if isinstance(one, Heard) else one for one in given]
        return super().remember(
            told,
            namespace=namespace,
            metadata=metadata,
            ids=ids,
            ttl=ttl,
            provenance=provenance,
            trust=trust,
            near_duplicates=near_duplicates,
            compile=compile,
            progress=progress,
        )

    def _told(self, heard: Heard) -> Told:
        if len(heard.words) > self.config.slot_words:
            raise InvalidInputError(
                f"what is heard at once has at most {self.config.slot_words} words, got {len(heard.words)}: give it in "
                "several pieces"
            )
        return Told(self.speech.understand(heard).text, heard.metadata, heard.to_json())

    def _write(
        self, namespace: Namespace, documents: Sequence[Document], *, compile: bool, progress: bool | None
    ) -> dict[str, list[SlotId]]:
        speech, config = self.speech, self.config
        heard = {
            slot_id(namespace, document, Chunk("", 0, 0, 1)): Heard.from_json(document.identity)
            for document in documents
            if document.identity is not None
        }

        def length(text: str) -> int:
            return len(speech.units(text))

        cut = Chunker(length, config.slot_words)
        writer = Writer(self._store, self._encoder, cut, length, self._drop, self.capacity, keep_text=config.keep_text)
        stage = all_at_once(partial(self._stage, heard)) if compile else None
        return writer.write(namespace, documents, "listening", stage, progress)

    def _stage(self, heard: Mapping[SlotId, Heard], texts: Mapping[SlotId, str], staged: list[StagedShard]) -> None:
        speech = self.speech
        records = {
            slot: pack(speech.encode_heard(heard[slot]) if slot in heard else speech.encode(text), heard.get(slot))
            for slot, text in texts.items()
        }
        if records:
            staged.append(self._store.tensors.stage(records, {"lexicon": speech.lexicon.identity}))

    def _drop(self, slots: Collection[SlotId]) -> None:
        if slots:
            self._sounds.catch_up()

    def _compile(self, slots: Sequence[SlotId], progress: bool | None) -> None:
        self._begin()  # it may hold items alone, which no lexicon had to do with so far
        self._store.forsake(slots)
        texts = {slot.id: slot.text for slot in self._store.slots(slots) if _can_be_made(slot)}
        with staging() as staged:
            with track("listening", len(texts), progress) as advance:
                self._stage({}, texts, staged)
                advance(len(texts))
            self._store.set_tensors(staged)

    def verify(self) -> IntegrityReport:
        """Compare every file and row with its checksum; see :meth:`FolderBank.verify`.

        A trajectory that is lost and cannot be made again, since no text of it is kept, is named, too.
        """
        report = super().verify()
        lost = [slot for slot in self._store.slots(self._store.uncompiled()) if not _can_be_made(slot)]
        problems = tuple(
            Problem(
                "slot",
                f"{'/'.join(slot.namespace)}/{slot.document}",
                "has lost its trajectory, and nothing else holds what it says: forget it, and remember it again",
                (slot.id,),
            )
            for slot in lost
        )
        return replace(report, problems=(*report.problems, *problems))

    # Reading

    def _read(self, slot: SlotId) -> tuple[Trajectory, Heard | None]:
        """Return what is stored of a slot, made now if it was put off.

        Raises:
            SlotNotFoundError: The bank does not hold it (any more).
            CorruptTensorError: It cannot be read.
        """
        tensors = self._store.read(slot)
        if tensors is None:
            if not self._store.slots([slot]):
                raise SlotNotFoundError(f"the bank in {self.folder} does not hold (any more) the slot {slot}")
            with self._lock:
                self._compile([slot], False)
            tensors = self._store.read(slot)
        if tensors is None:
            raise CorruptTensorError(
                f"the trajectory of slot {slot} is lost, and nothing else holds what it says: forget it, and remember "
                "it again"
            )
        return unpack(tensors)

    def _said(self, slots: Sequence[SlotText]) -> list[Said]:
        """Return what slots say aloud: by their texts, or by their trajectories where those are all there is."""
        found = []
        for slot in slots:
            if slot.text and not slot.metadata.get(HEARD):
                units = self.speech.units(slot.text)
                found.append(Said(units, self.speech.speak(units)))
                continue
            try:
                trajectory, heard = self._read(slot.slot_id)
            except (SlotNotFoundError, CorruptTensorError):
                found.append(Said((), ()))  # forgotten a moment ago, or lost: verify() names it
                continue
            if heard is not None:
                forms = self.speech.understand(heard).units if not slot.text else self.speech.units(slot.text)
                found.append(Said(forms, heard.phonemes))
            else:
                units = list(self.speech.decode(trajectory).units)
                found.append(Said(units, self.speech.speak(units)))
        return found


def _can_be_made(slot: Slot) -> bool:
    """Return whether the trajectory of a slot can be made from its row."""
    return bool(slot.text) and not slot.metadata.get(HEARD)
