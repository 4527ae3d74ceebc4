"""Records by slot: written as they are compiled, read from the disk, compiled where they are missing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from trimem.errors import CorruptTensorError
from trimem.explicit.compiler import Compiler
from trimem.explicit.record import Record
from trimem.store.tensors import TensorStore
from trimem.types import SlotId


class Records:
    """The records of a bank, which can all be made again from the texts of their slots.

    Args:
        tensors: Where they lie.
    """

    def __init__(self, tensors: TensorStore) -> None:
        self._tensors = tensors

    def compile(
        self,
        compiler: Compiler,
        texts: Mapping[SlotId, str],
        sizes: dict[SlotId, int],
        advance: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Compile slots and write their records.

        Args:
            compiler: Of the bank's model.
            texts: By slot.
            sizes: Gets the bytes of each record as soon as it is written, so that they are known even
                if the rest fails.
            advance: Called with the number of slots done, after each batch.
        """
        slots = list(texts)
        made_by = {"model": compiler.lm.fingerprint}
        for batch in compiler.compile(list(texts.values())):
            for i, record in batch.items():
                sizes[slots[i]] = self._tensors.write(slots[i], record.to_tensors(), made_by)
            advance(len(batch))

    def missing(self, slots: Iterable[SlotId]) -> list[SlotId]:
        """Return those slots that have no record."""
        return [slot for slot in slots if not self._tensors.exists(slot)]

    def read(self, slots: Sequence[SlotId]) -> list[Record]:
        """Read records, memory-mapped.

        Raises:
            CorruptTensorError: One cannot be read.
        """
        return [self._read(slot) for slot in slots]

    def delete(self, slots: Iterable[SlotId]) -> tuple[int, int]:
        """Remove records and return how many there were and their bytes."""
        return self._tensors.delete(slots)

    def _read(self, slot: SlotId) -> Record:
        try:
            return Record.from_tensors(self._tensors.read(slot))
        except KeyError as error:
            raise CorruptTensorError(
                f"{self._tensors.path(slot)} lacks the tensor {error}. Delete the file, and the slot is compiled again "
                "from its stored text when it is next read"
            ) from error
