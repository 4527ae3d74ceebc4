"""ExplicitBank: documents remembered as attention key-values."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from functools import cached_property, partial
from pathlib import Path
from threading import RLock
from typing import Any, Literal, overload

from trimem.bank import Bank
from trimem.errors import (
    BankNotFoundError,
    ContextLengthError,
    CorruptTensorError,
    InvalidInputError,
    SlotNotFoundError,
)
from trimem.explicit.answering import Answering, read_found
from trimem.explicit.background import Background
from trimem.explicit.batch import Batch
from trimem.explicit.cache import RecordCache
from trimem.explicit.compiler import Compiler
from trimem.explicit.config import ExplicitConfig
from trimem.explicit.density import tokens_per_hit
from trimem.explicit.documents import documents
from trimem.explicit.identity import MECHANISM, check_config, check_encoder, check_model
from trimem.explicit.read import Placement
from trimem.explicit.read_config import ReadConfig, as_read_config
from trimem.explicit.reading import AnswerStream, Reading
from trimem.explicit.records import Records
from trimem.explicit.rereading import question_likelihood
from trimem.explicit.sync import sync
from trimem.explicit.writer import Writer
from trimem.lm.attach import attach
from trimem.lm.load import load_model
from trimem.lm.model import LanguageModel
from trimem.progress import track
from trimem.store import integrity, upkeep
from trimem.store.fusion import reread
from trimem.store.metadata import Document, MetadataStore, utc_now
from trimem.store.scope import parse_path
from trimem.store.search import HybridSearch
from trimem.store.tensors import StagedShard, Swept
from trimem.text import following
from trimem.text.encoders import Embeddings, Encoder, as_encoder
from trimem.text.readers import MAX_BYTES
from trimem.types import (
    Answer,
    BankStats,
    CompactReport,
    ErasureReceipt,
    Hit,
    IntegrityReport,
    Message,
    Metadata,
    RepairReport,
    SlotId,
    SyncReport,
    Turn,
    as_namespace,
    check_history,
    check_k,
)

DATABASE = "bank.sqlite"
CACHE_BYTES = 256 << 20


class ExplicitBank(Bank):
    """Documents compiled once to attention key-values, which a model reads without their text.

    Open one with :meth:`open`. A bank belongs to the model that compiled it; any thread may use it.
    """

    swept = Swept()
    """What a crash had left and was removed when the bank was opened."""

    def __init__(
        self,
        folder: Path,
        model: LanguageModel | str | Path | None,
        encoder: Encoder,
        config: ExplicitConfig | None,
        cache_bytes: int,
        device_cache_bytes: int,
        clock: Callable[[], datetime],
    ) -> None:
        self.folder = folder
        self._given_model = model
        self._given_config = config
        self._encoder = encoder
        self._store = MetadataStore(folder / DATABASE, clock)
        self._records = Records(self._store, RecordCache(cache_bytes), RecordCache(device_cache_bytes))
        self._background = Background()
        self._search = HybridSearch(self._store.reader)
        self._clock = clock
        self._lock = RLock()

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        model: LanguageModel | str | Path | None = None,
        encoder: Encoder | Embeddings | str | Path | None = None,
        config: ExplicitConfig | None = None,
        create: bool = True,
        cache_bytes: int = CACHE_BYTES,
        device_cache_bytes: int = CACHE_BYTES,
        clock: Callable[[], datetime] = utc_now,
    ) -> ExplicitBank:
        """Open the bank in a folder, or make a new one there.

        Args:
            path: The folder.
            model: The model that compiles and reads, or what :func:`trimem.load_model` takes, which is
                loaded when it is first needed. None is the one the bank was made by, and for a new
                bank the small default.
            encoder: What finds slots by meaning; see :func:`trimem.text.encoders.as_encoder`.
            config: How to compile; None is what the bank has, and for a new one the defaults.
            create: Whether to make a bank where there is none.
            cache_bytes: Most bytes of decoded key-values that are kept in memory; what was read least
                lately goes first.
            device_cache_bytes: The same on the model's device, where that is not the CPU.
            clock: Tells the moment that rows are stamped with.

        Raises:
            BankNotFoundError: There is none and ``create`` is False.
            FingerprintMismatch: The bank was compiled by another model.
            InvalidInputError: The folder is a file, or ``config`` differs from the bank's.
            SchemaVersionError: The bank was written by a newer trimem.
        """
        folder = Path(path)
        if "://" in str(path) or (folder.exists() and not folder.is_dir()):
            raise InvalidInputError(f"a bank is a folder, got {path}")
        if not (folder / DATABASE).exists():
            if not create:
                raise BankNotFoundError(f"there is no bank in {folder}; remember something there first")
            folder.mkdir(parents=True, exist_ok=True)
        bank = cls(folder, model, as_encoder(encoder), config, cache_bytes, device_cache_bytes, clock)
        try:
            row = bank._store.bank()
            bank.swept = upkeep.tend(bank._store)
            if row is not None:
                check_config(folder, row, config)
                if isinstance(model, LanguageModel):
                    check_model(folder, row, model)
        except BaseException:
            bank.close()
            raise
        return bank

    def __repr__(self) -> str:
        return f"ExplicitBank({str(self.folder)!r})"

    def close(self) -> None:
        self._background.close()
        self._search.close()
        self._store.close()

    # What the bank is made with

    @cached_property
    def model(self) -> LanguageModel:
        """The model that compiles and reads; loaded at the first use if it was given by name.

        Raises:
            FingerprintMismatch: The bank was compiled by another.
        """
        with self._lock:
            row = self._store.bank()
            name = self._given_model
            if isinstance(name, LanguageModel):
                lm = name
            else:
                lm = load_model(row.model_name if name is None and row is not None else name)
            if row is not None:
                check_model(self.folder, row, lm)
            return lm

    @cached_property
    def config(self) -> ExplicitConfig:
        """How this bank is compiled."""
        if self._given_config is not None:
            return self._given_config
        row = self._store.bank()
        return ExplicitConfig() if row is None else ExplicitConfig.from_json(row.config)

    @cached_property
    def compiler(self) -> Compiler:
        """The model with the bank's configuration.

        Raises:
            UnsupportedModelError: The model's keys cannot be moved.
        """
        with self._lock:
            return Compiler(self.model, self.config)

    # Writing

    def remember(
        self,
        texts: str | Turn | Sequence[str | Turn],
        *,
        namespace: str | Sequence[str],
        metadata: Metadata | Sequence[Metadata] | None = None,
        ids: str | Sequence[str] | None = None,
        compile: bool = True,
        progress: bool | None = None,
    ) -> list[SlotId]:
        """Compile texts and store them; see :meth:`trimem.Bank.remember`.

        Args:
            texts: One or many. Each is cut on sentence borders into references of at most
                ``config.reference_tokens`` tokens. A :class:`trimem.Turn` of a conversation is read with its
                speaker before it, and has speaker and time in its metadata.
            namespace: Whose they are.
            metadata: Stored beside them, one for all or one each.
            ids: Keys of the texts, one each.
            compile: False stores and indexes text only: a slot is then compiled when it is first read.
            progress: Whether to show a bar; None shows it where there is a terminal or a notebook.

        Returns:
            The slots of all texts, in order, those that were there already included.

        Raises:
            InvalidInputError: A text is empty, metadata is no JSON object, or the lists differ in
                length. Nothing is stored then.

        One forward pass over each reference: O(tokens). What an interruption leaves undone, the same
        call does when it is repeated.
        """
        path = as_namespace(namespace)
        given = documents(texts, metadata, ids)
        with self._lock:
            row = self._store.bank()
            if row is None:
                row = self._store.create_bank(
                    mechanism=MECHANISM,
                    model_name=self.model.name,
                    model_fingerprint=self.model.fingerprint,
                    encoder_fingerprint=self._encoder.fingerprint,
                    config=self.config.to_json(),
                )
            check_config(self.folder, row, self.config)
            check_encoder(self.folder, row, self._encoder)
            stored = self._store.documents(path, list(given))
            unchanged = {
                key: document.metadata
                for key, document in given.items()
                if key in stored and stored[key][0] == document.content_hash
            }
            if metadata is not None and unchanged:
                self._store.update_metadata(path, unchanged)
            slots = {key: stored[key][1] for key in unchanged}
            new = [document for key, document in given.items() if key not in unchanged]
            if new:
                check_model(self.folder, row, self.model)
                writer = Writer(self._store, self._records, self._encoder, self.compiler)
                slots.update(writer.write(path, new, compile=compile, progress=progress))
                self._search.follow()
        return [slot for key in given for slot in slots[key]]

    def forget(
        self,
        *,
        namespace: str | Sequence[str],
        ids: str | Collection[str] | None = None,
        where: Mapping[str, Any] | None = None,
    ) -> ErasureReceipt:
        """Erase slots from the disk; see :meth:`trimem.Bank.forget`. O(index) for the words."""
        path = as_namespace(namespace)
        chosen = [ids] if isinstance(ids, str) else ids
        with self._lock:
            receipt = self._store.delete(path, chosen, where, siblings=self.config.context == "document")
            self._records.drop(receipt.slots)
        return receipt

    def receipts(self, *, namespace: str | Sequence[str]) -> list[ErasureReceipt]:
        """Return the receipts of what was erased in a namespace and below, oldest first."""
        return self._store.receipts(as_namespace(namespace))

    # Upkeep

    def verify(self) -> IntegrityReport:
        """Compare every file and row with its checksum. O(bytes of the bank); needs no model."""
        return integrity.verify(self._store)

    def repair(self, *, progress: bool | None = None) -> RepairReport:
        """Make again what is damaged and can be made again; the model is needed where tensors or slots are lost.

        Tensors are compiled from the texts of their slots, slots cut from their documents, indexes built from
        rows. A document whose own row is damaged is left as it is, and named.

        Args:
            progress: Whether to show a bar; None shows it where there is a terminal or a notebook.

        Raises:
            CorruptDatabaseError: The database cannot be read at all.
            FingerprintMismatch: The bank was made by another model or encoder.
        """
        with self._lock:
            integrity.repair_indexes(self._store)
            lost = integrity.repair_shards(self._store)
            upkeep.tend(self._store)
            self._records.drop(lost)
            rewritten: list[SlotId] = []
            for row in integrity.documents_to_rewrite(self._store):
                document = Document(row.key, row.text, row.meta)
                writer = Writer(self._store, self._records, self._encoder, self.compiler)
                written = writer.write(parse_path(row.namespace), [document], compile=True, progress=progress)
                rewritten += written[row.key]
            again = [slot.id for slot in self._store.slots(lost)]
            if again:
                self._compile(again, progress)
            self._search.follow()
        return RepairReport(tuple(again), tuple(rewritten), self.verify().problems)

    def compact(self) -> CompactReport:
        """Merge small files of tensors, and give back what deletions left free. O(bytes of small files)."""
        return upkeep.compact(self._store)

    def sync(
        self,
        folder: str | Path,
        *,
        namespace: str | Sequence[str],
        max_bytes: int = MAX_BYTES,
        progress: bool | None = None,
    ) -> SyncReport:
        """Make a namespace hold what the files of a folder hold: compile what changed, forget what is gone.

        Only what a sync of the same folder remembered is replaced or forgotten. A file that cannot be
        read is reported and holds nothing up; if it had been read before, what it said then stays.

        Args:
            folder: The folder, read with all below it but hidden files and links to folders.
            namespace: Whose it is.
            max_bytes: The largest file to read.
            progress: Whether to show bars; None shows them where there is a terminal or a notebook.

        Raises:
            InvalidInputError: There is no such folder; nothing is forgotten then.

        Reads every file, O(bytes), and compiles those that changed, O(tokens). Whoever reads the bank finds
        each document as it was or as it is. What an interruption leaves undone, the same call does when it is
        repeated; while another sync of the bank runs, it waits.
        """
        path = as_namespace(namespace)
        return sync(self, self._store, path, Path(folder), at=self.folder, max_bytes=max_bytes, progress=progress)

    # Reading

    def recall(
        self,
        query: str,
        k: int = 4,
        *,
        namespace: str | Sequence[str],
        where: Mapping[str, Any] | None = None,
        history: Sequence[Message] = (),
        rerank: int = 0,
    ) -> list[Hit]:
        """Return the best ``k`` slots for ``query``, best first; see :meth:`trimem.Bank.recall`.

        By words and by meaning at once (:mod:`trimem.store.search`). The language model is not needed,
        unless it is to rerank.

        Args:
            query: What to look for.
            k: How many at most.
            namespace: Where to look, and below.
            where: Metadata a slot must have, or how it must compare.
            history: What was said before, which is searched for, too (:mod:`trimem.text.following`).
            rerank: How many of the best are read before they are ranked: the model has each in memory
                and tells how likely the query is then (:mod:`trimem.explicit.rereading`). Those that
                are not compiled are compiled first.

        Raises:
            InvalidInputError: The query is empty, k is less than 1 or rerank less than 0.
            FingerprintMismatch: The bank was made with another encoder, or is to be read by another model.
        """
        path = as_namespace(namespace)
        check_k(k)
        check_history(history)
        if not isinstance(rerank, int) or rerank < 0:
            raise InvalidInputError(f"rerank must be a whole number of at least 0, got {rerank!r}")
        if not isinstance(query, str) or not query.strip():
            raise InvalidInputError(f"a query must be a string that is not empty, got {query!r}")
        row = self._store.bank()
        if row is None:
            return []
        check_encoder(self.folder, row, self._encoder)
        words, vector = following.words(query, history), self._encoder.encode_query(query)
        find = partial(self._search, words, vector, max(k, rerank), path, where)
        hits = find()
        if rerank and hits:
            hits = read_found(hits, find=find, read=lambda found: self._reread(query, found, rerank))
        return hits[:k]

    def _reread(self, query: str, hits: Sequence[Hit], most: int) -> list[Hit]:
        """Rank hits by their score and by what the model makes of the query when it has read the first of them."""
        read = hits[:most]
        self.compile(read, progress=False)
        records = self._records.read(self.compiler, [hit.id for hit in read], [None] * len(read))
        scores = reread([hit.score for hit in hits], question_likelihood(self.compiler, records, query))
        rescored = [replace(hit, score=score) for hit, score in zip(hits, scores, strict=True)]
        return sorted(rescored, key=lambda hit: -hit.score)

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
            InvalidInputError: ``read`` is unknown.
            SlotNotFoundError: A hit is not in the bank (any more).
            CalibrationNotFoundError: Heads are chosen by calibration, and the model has none.
            ContextLengthError: The hits fill the model's context.
            CorruptTensorError: The tensors of a hit cannot be read.
        """
        lm = self.model if model is None else model
        row = self._store.bank()
        if lm is not self.model and row is not None:
            check_model(self.folder, row, lm)
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
            self._check_held([hit.id for hit in hits])  # or was it removed a moment ago?
            raise
        placement = compiler.place(compiler.prepare(records, [hit.text for hit in hits], read), read)
        lm = compiler.lm
        if placement.span >= lm.context_length:
            raise ContextLengthError(
                f"{len(hits)} hits are {placement.span} tokens of memory with the prefix, which leaves nothing of the "
                f"{lm.context_length} that {lm.name} was made for: attach fewer"
            )
        return placement

    def compile(self, hits: Sequence[Hit], *, progress: bool | None = None) -> int:
        """Compile those hits that have no tensors: remembered with ``compile=False`` and not read since.

        Args:
            hits: What :meth:`recall` returned.
            progress: Whether to show a bar; None shows it where there is a terminal or a notebook.

        Returns:
            How many were compiled.

        Raises:
            SlotNotFoundError: A hit is not in the bank (any more).
        """
        ids = list({hit.id: None for hit in hits})
        self._check_held(ids)
        with self._lock:
            cold = self._records.missing(ids)
            if cold:
                self._compile(cold, progress)
        return len(cold)

    def _compile(self, cold: Sequence[SlotId], progress: bool | None) -> None:
        self._store.forsake(cold)
        documents = self._pieces(cold)
        staged: list[StagedShard] = []
        try:
            with track("compiling references", sum(map(len, documents)), progress) as advance:
                self._records.compile(self.compiler, documents, staged, advance)
            self._store.set_tensors(staged)
        finally:
            for shard in staged:
                shard.discard()  # nothing where it was stored

    def prefetch(
        self,
        query: str,
        *,
        namespace: str | Sequence[str],
        k: int = 5,
        where: Mapping[str, Any] | None = None,
        read: ReadConfig | str = "dense",
    ) -> Future[int]:
        """Find and load in the background what a question will read: while it is still typed, say.

        What is not compiled yet is compiled.

        Args:
            query: What is known of the question.
            namespace: Whose memory to read, and below.
            k: How many slots at most.
            where: Filter on metadata, as in :meth:`recall`.
            read: How the slots will be read, as in :meth:`attach`.

        Returns:
            How many slots are now in memory, in the future; or its error. Nobody needs to wait for it.
        """
        how = as_read_config(read)

        def load() -> int:
            hits = self.recall(query, k, namespace=namespace, where=where)
            self.compile(hits, progress=False)
            return len(self._records.read(self.compiler, [hit.id for hit in hits], tokens_per_hit(hits, how.density)))

        return self._background.submit(load)

    def _cold(self, hits: Sequence[Hit]) -> list[Hit]:
        """Return those hits that are not compiled."""
        missing = set(self._records.missing([hit.id for hit in hits]))
        return [hit for hit in hits if hit.id in missing]

    def _check_held(self, ids: Sequence[SlotId]) -> None:
        held = {slot.id for slot in self._store.slots(ids)}
        if gone := [slot for slot in ids if slot not in held]:
            raise SlotNotFoundError(f"the bank in {self.folder} does not hold (any more) the slots {gone}")

    def _pieces(self, cold: Sequence[SlotId]) -> list[dict[SlotId, str]]:
        """Return the texts that must be compiled for slots: their own, or all of their documents."""
        if self.config.context == "independent":
            return [{slot.id: slot.text} for slot in self._store.slots(cold)]
        return self._store.whole(cold)

    @overload
    def ask(
        self,
        question: str,
        *,
        namespace: str | Sequence[str],
        k: int = 5,
        where: Mapping[str, Any] | None = None,
        history: Sequence[Message] = (),
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
        history: Sequence[Message] = (),
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
        history: Sequence[Message] = (),
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
            history: What was said before, as messages of ``user`` and ``assistant``, oldest first: "she"
                and "the other one" are understood from it, in the search and by the model.
            max_new_tokens: Most tokens of the answer.
            read: How the slots are read, as in :meth:`attach`.
            cold: What to do with slots that are not compiled yet: ``"compile"`` them first, or put their
                ``"text"`` into the prompt and compile them in the background after the answer.
            stream: True returns the answer as it is spoken.
            options: Passed to transformers' ``generate``; greedy by default.

        Raises:
            ContextLengthError: Memory, question and answer do not fit the model's context.
            InvalidInputError: The question is empty, k is less than 1, or ``cold`` is something else.
        """
        if cold not in ("compile", "text"):
            raise InvalidInputError(f'cold must be "compile" or "text", got {cold!r}')
        how = as_read_config(read)
        find = partial(self.recall, k=k, namespace=namespace, where=where)
        answering = Answering(
            self.compiler,
            find,
            partial(find, history=check_history(history)),
            lambda hits: self.attach(hits=hits, read=how),
            self._cold if cold == "text" else lambda _: (),
            question,
            history,
            max_new_tokens,
            how.exchange,
            options,
        )

        def speak(on_text: Callable[[str], None] | None = None, stop: Callable[[], bool] | None = None) -> Answer:
            answer = answering.speak(on_text, stop)
            if answering.as_text:
                self._background.submit(partial(self.compile, answering.as_text, progress=False))
            return answer

        return AnswerStream(speak) if stream else speak()

    def ask_many(
        self,
        questions: Sequence[str],
        *,
        namespaces: Sequence[str | Sequence[str]],
        k: int = 5,
        where: Mapping[str, Any] | None = None,
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
            max_new_tokens: Most tokens of each answer.
            read: How the slots are read, as in :meth:`attach`.
            options: Passed to transformers' ``generate``; greedy by default.

        Raises:
            ContextLengthError: Memory, question and answer of one do not fit the model's context.
            InvalidInputError: There is no question, one is empty, or there is not one namespace for each.
        """
        if not questions or len(questions) != len(namespaces):
            raise InvalidInputError(
                f"ask_many takes one namespace for each of at least one question, got {len(questions)} questions and "
                f"{len(namespaces)} namespaces"
            )
        how = as_read_config(read)
        asked = [
            (question, partial(self.recall, k=k, namespace=namespace, where=where))
            for question, namespace in zip(questions, namespaces, strict=True)
        ]
        batch = Batch(self.compiler, asked, partial(self._place, self.compiler, how), how)
        return batch.speak(max_new_tokens, options)

    async def aask(self, question: str, **kwargs: Any) -> Answer:
        """:meth:`ask`, off the event loop."""
        return await asyncio.to_thread(lambda: self.ask(question, **kwargs))

    def stats(self, *, namespace: str | Sequence[str] | None = None) -> BankStats:
        """Count what is stored, in all or under one namespace; what all share counts in all only."""
        if namespace is not None:
            return self._store.stats(as_namespace(namespace))
        stats = self._store.stats(None)
        memory, device = self._records.cache_stats()
        return replace(
            stats,
            tensor_bytes=stats.tensor_bytes + self._records.codebook_bytes(),
            cache=memory,
            device_cache=device,
        )
