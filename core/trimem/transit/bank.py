"""TransitBank: a fixed number of slots of texts, found by their codes; what is used stays, what is not makes room."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trimem.banks.writer import encode
from trimem.checks import check_k
from trimem.errors import CorruptTensorError, InvalidInputError, SlotNotFoundError
from trimem.progress import track
from trimem.store.reader import in_batches
from trimem.store.tensors import staging
from trimem.store.vector_codec import CodedVectors
from trimem.transit.idrp import Idrp
from trimem.transit.numbers import NUMBERS
from trimem.transit.refit import Refit, refitted
from trimem.transit.stored_bank import StoredBank, name_of, shard_of
from trimem.transit.stored_vectors import corrections, expand
from trimem.types import Hit, SlotId

if TYPE_CHECKING:
    from trimem.lm.model import LanguageModel

T = TypeVar("T")


class TransitBank(StoredBank):
    """Texts in a fixed number of slots, their embeddings as short codes.

    Open one with :meth:`open`. When all slots are taken, what was used least makes room and is erased, with a
    receipt that says so. Any thread may use it.
    """

    def refit(self, *, steps: int = 0, seed: int = 0, progress: bool | None = None) -> Refit:
        """Fit the codec to what the bank holds, and store all slots by it; nothing if it would not be better.

        All texts are encoded again, O(texts), and the bound is kept anew. Rows, tensors and codec change in one
        transaction, so whatever interrupts it, and whoever reads meanwhile, finds the bank as it was or as it is.

        Args:
            steps: Of training that nearest neighbours stay so; 0 is PCA.
            seed: Of training.
            progress: Whether to show a bar; None shows it where there is a terminal or a notebook.

        Raises:
            InvalidInputError: The bank holds fewer than three texts.
        """
        encoded: dict[SlotId, tuple[NDArray[np.float32], NDArray[np.float32] | None]] = {}
        with self._lock:
            if (row := self._store.bank()) is not None:
                self._keep_up(row)
            codec, better, lost = self.codec, None, (0.0, 0.0)
            missing = self._store.all_slots()
            while True:
                self._store.erase_expired()  # which nobody reads any more
                with track("encoding texts", len(missing), progress) as advance:
                    for some in in_batches(missing):
                        encoded |= encode(self._encoding, {slot.id: slot.text for slot in self._store.slots(some)})
                        advance(len(some))
                if better is None:
                    better, lost = refitted(codec, list(encoded.values()), steps, seed, progress)
                    if lost[1] >= lost[0]:
                        return Refit(len(encoded), *lost, kept=False)
                missing = self._recode(better, encoded)
                if not missing:
                    self._take(better)
                    return Refit(len(encoded), *lost, kept=True)

    def _recode(
        self, codec: Idrp, encoded: Mapping[SlotId, tuple[NDArray[np.float32], NDArray[np.float32] | None]]
    ) -> list[SlotId]:
        """Store all slots by a codec; see :meth:`trimem.store.metadata.MetadataStore.recode`."""
        rows = CodedVectors(codec)
        codes = {
            slot: (rows.pack(whole), None if parts is None else rows.pack(parts, sentences=True))
            for slot, (whole, parts) in encoded.items()
        }
        name = shard_of(codec.fingerprint)
        with staging() as staged:
            staged.append(self._store.tensors.stage({name: codec.to_tensors()}, {}, name))
            for some in in_batches(encoded):
                vectors = torch.from_numpy(np.stack([encoded[slot][0] for slot in some]))
                staged.append(self._staged(codec, some, vectors))
            config = replace(self.config, codec=codec.config.to_json())
            made_by = name_of(codec), codec.fingerprint
            return self._store.recode(codes, staged[1:], staged[0], made_by, config.to_json())

    # Reading

    def recall(
        self,
        query: str,
        k: int = 4,
        *,
        namespace: str | Sequence[str],
        where: Mapping[str, Any] | None = None,
        min_trust: float = 0.0,
        by: Literal["words_and_meaning", "meaning"] = "words_and_meaning",
        touch: bool = True,
    ) -> list[Hit]:
        """Return the best ``k`` slots for ``query``, best first; see :meth:`trimem.Bank.recall`.

        The query's embedding is compared with what the codes stand for, every one of up to
        :data:`trimem.store.vectors.EXACT_BYTES`. Each hit says how far off that is expected to be.

        Args:
            query: What to look for.
            k: How many at most.
            namespace: Where to look, and below.
            where: Metadata a slot must have, or how it must compare.
            min_trust: How far a slot must be trusted at least, in [0, 1].
            by: Words of the text and meaning at once, or meaning alone.
            touch: Whether it counts as use of what is found.

        Raises:
            InvalidInputError: The query is empty, k is less than 1, or ``by`` is something else.
            FingerprintMismatch: The bank was made with another encoder or codec.
        """
        if by not in ("words_and_meaning", "meaning"):
            raise InvalidInputError(f'by must be "words_and_meaning" or "meaning", got {by!r}')
        check_k(k)
        words = query if by == "words_and_meaning" else ""
        hits = self._settled(lambda: self._told(self._finder(query, words, namespace, where, min_trust)(k)))
        return self._recalled(hits) if touch else hits

    def _told(self, hits: Sequence[Hit]) -> list[Hit]:
        return [replace(hit, expected_error=error) for hit, error in zip(hits, self._errors(hits), strict=True)]

    def _settled(self, read: Callable[[], T]) -> T:
        """Return what is read by the codec that the bank has: again, if it was refitted meanwhile."""
        while True:
            row = self._store.bank()
            if row is not None:
                self._keep_up(row)
            found = read()
            now = self._store.bank()
            if row is None or now is None or now.model_fingerprint == row.model_fingerprint:
                return found

    def _errors(self, hits: Sequence[Hit]) -> list[float | None]:
        """Return how far off each hit's vector is likely to be; None where it went meanwhile.

        Where the bank has a bound, tensors are read: what is left of the error where it was corrected.
        """
        rows = self._store.reader.codes([hit.id for hit in hits])
        if not rows:
            return [None] * len(hits)
        codes = torch.frombuffer(bytearray().join(rows.values()), dtype=NUMBERS[self.codec.config.numbers])
        errors = self.codec.expected_error(codes.view(len(rows), -1))
        bound = self.config.max_error
        by_slot = dict(zip(rows, (errors if bound is None else errors.clamp_max(bound)).tolist(), strict=True))
        for slot in rows if bound is not None else ():
            with suppress(CorruptTensorError):  # verify() names it, and texts are found all the same
                if (record := self._store.read(slot)) is not None and len(record) > 1:
                    by_slot[slot] = float(corrections(self.codec, record).left(1))
        return [by_slot.get(hit.id) for hit in hits]

    def vectors(self, ids: Sequence[SlotId]) -> Tensor:
        """Return what slots hold, expanded, within the bank's bound: (n, dim) in float32.

        Args:
            ids: Of slots, as :meth:`remember` and hits give them.

        Raises:
            SlotNotFoundError: One is not in the bank (any more).
            CorruptTensorError: The tensors of one cannot be read.
        """
        wanted = list(dict.fromkeys(ids))
        self._store.check_held(wanted)
        with self._lock:
            if (row := self._store.bank()) is not None:
                self._keep_up(row)
            if cold := [slot for slot in wanted if slot not in self._store.places(wanted)]:
                self._compile(cold, False)
        expanded = self._settled(lambda: expand(self.codec, [self._record(slot) for slot in wanted]))
        at = {slot: i for i, slot in enumerate(wanted)}
        return expanded[[at[slot] for slot in ids]]

    def _record(self, slot: SlotId) -> dict[str, Tensor]:
        tensors = self._store.read(slot)
        if tensors is None:
            raise SlotNotFoundError(f"the bank in {self.folder} does not hold slot {slot} any more")
        return tensors

    def attach(self, model: LanguageModel, *, hits: Sequence[Hit]) -> AbstractContextManager[Any]:
        """Refuse: what transit memory holds of a text is its embedding, which no model attends to.

        Raises:
            InvalidInputError: Always.
        """
        raise InvalidInputError(
            "a bank of transit memory holds texts and their embeddings, which a model cannot attend to: put hit.text "
            "into the prompt, or remember these texts in an ExplicitBank and attach that"
        )
