"""The vectors of a bank's slots in memory, and the nearest of them to a query.

Up to :data:`EXACT_BYTES` all vectors are held as they are and compared one by one. Beyond, they are
held in four bits a coordinate by turbovec, an eighth of the memory, which needs no training, takes and
removes vectors one at a time and compares only what a mask allows. What it finds is meant to be scored
again with the vectors as they are, which stay in the database alone.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from threading import Lock
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from trimem.errors import FingerprintMismatch, MissingDependencyError

if TYPE_CHECKING:
    from turbovec import TurboQuantIndex  # type: ignore[import-untyped]

EXACT_BYTES = 128_000_000
"""Of vectors that are compared one by one: 83,333 of 384 dimensions, about 17 ms on one core; a million of 32."""

_GATHERED = 4  # a scope below this share of all rows is gathered before it is compared
_ROOM = 1024  # rows that a buffer is made for at first

Ids = NDArray[np.int64]
Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
T = TypeVar("T", bound=np.generic)


class Rows(Protocol):
    """Vectors by row, from 0 without gaps."""

    def add(self, vectors: Floats) -> None:
        """Put (n, dim) vectors into the next rows."""

    def swap_remove(self, row: int) -> None:
        """Take a row out and move the last row into its place."""

    def nearest(self, vector: Floats, k: int, mask: Mask | None) -> NDArray[np.int64]:
        """Return at most ``k`` rows, those of the greatest dot product with (dim,) first.

        Args:
            vector: What is near.
            k: How many at most.
            mask: (rows,), which may be returned; None is all.
        """
        ...


class ExactRows:
    """Rows of float32, every one compared. ``nearest`` is O(rows * dim).

    Args:
        dim: Of the vectors.
    """

    def __init__(self, dim: int) -> None:
        self._vectors = np.empty((_ROOM, dim), np.float32)
        self._count = 0

    @property
    def vectors(self) -> Floats:
        """All rows, (rows, dim)."""
        return self._vectors[: self._count]

    def add(self, vectors: Floats) -> None:
        self._vectors = grown(self._vectors, self._count + len(vectors))
        self._vectors[self._count : self._count + len(vectors)] = vectors
        self._count += len(vectors)

    def swap_remove(self, row: int) -> None:
        self._count -= 1
        self._vectors[row] = self._vectors[self._count]
        self._vectors[self._count] = 0.0  # what is forgotten is gone

    def nearest(self, vector: Floats, k: int, mask: Mask | None) -> NDArray[np.int64]:
        rows = np.arange(self._count) if mask is None else np.flatnonzero(mask)
        few = len(rows) * _GATHERED < self._count
        # By torch: two thread pools, numpy's and torch's, would take the cores from each other and
        # slow down the encoder that runs before and the model that runs after by a factor of two.
        held = torch.from_numpy(self._vectors[rows] if few else self.vectors)
        scores = held @ torch.from_numpy(vector)
        scores = scores if few or mask is None else scores[torch.from_numpy(rows)]
        best: NDArray[np.int64] = rows[scores.topk(min(k, len(rows))).indices.numpy()]
        return best


class QuantizedRows:
    """Rows of four bits a coordinate, held by turbovec. ``nearest`` is O(rows * dim / 8).

    Args:
        dim: Of the vectors.

    Raises:
        MissingDependencyError: turbovec is not installed.
    """

    def __init__(self, dim: int) -> None:
        try:
            from turbovec import TurboQuantIndex
        except ImportError as error:
            raise MissingDependencyError(
                f"a bank of more than {EXACT_BYTES:,} bytes of vectors is searched by turbovec: pip install turbovec"
            ) from error
        # It takes dimensions that are multiples of 8; zeros change no dot product.
        self._pad = -dim % 8
        self._index: TurboQuantIndex = TurboQuantIndex(dim=dim + self._pad, bit_width=4)

    def add(self, vectors: Floats) -> None:
        self._index.add(self._padded(vectors))

    def swap_remove(self, row: int) -> None:
        self._index.swap_remove(row)

    def nearest(self, vector: Floats, k: int, mask: Mask | None) -> NDArray[np.int64]:
        most = len(self._index) if mask is None else int(mask.sum())
        if most == 0:
            return np.empty(0, np.int64)
        _, rows = self._index.search(self._padded(vector[None]), min(k, most), mask=mask)
        found: NDArray[np.int64] = np.asarray(rows[0], np.int64)
        return found

    def _padded(self, vectors: Floats) -> Floats:
        return np.ascontiguousarray(np.pad(vectors, ((0, 0), (0, self._pad))), np.float32)


class SlotVectors:
    """The vectors of slots by the slots' row ids, each in a namespace. Any thread may use it.

    Args:
        dim: Of the vectors.
        exact_slots: The most slots that are compared one by one; None is what :data:`EXACT_BYTES` hold.
    """

    def __init__(self, dim: int, exact_slots: int | None = None) -> None:
        self.dim = dim
        self._exact_slots = EXACT_BYTES // (4 * dim) if exact_slots is None else exact_slots
        self._lock = Lock()
        self._rows: ExactRows | QuantizedRows = ExactRows(dim)
        self._count = 0
        self._ids = np.empty(_ROOM, np.int64)
        self._row_of = np.full(_ROOM, -1, np.int32)  # by id; ids of a database have few gaps
        self._paths: list[str] = []  # sorted, so that what lies under a path is one stretch
        self._codes: dict[str, int] = {}
        self._code_of = np.empty(_ROOM, np.int32)  # by row
        self._in_path: list[int] = []  # slots, by code

    def __len__(self) -> int:
        return self._count

    @property
    def exact(self) -> bool:
        """Whether all vectors are compared as they are."""
        return isinstance(self._rows, ExactRows)

    def count(self, path: str) -> int:
        """Return how many slots lie in and below a namespace."""
        with self._lock:
            return sum(self._in_path[self._codes[each]] for each in self._inside(path))

    def put(self, ids: Sequence[int], paths: Sequence[str], vectors: Floats) -> None:
        """Add slots; one whose id is there already is replaced.

        Args:
            ids: Row ids.
            paths: The namespace of each, as it is stored.
            vectors: (slots, dim), of length 1.

        Raises:
            FingerprintMismatch: The vectors are of another dimension.
            MissingDependencyError: There are too many to be compared one by one, and turbovec is not
                installed.
        """
        if not ids:
            return
        self.check(vectors.shape[1])
        with self._lock:
            self._remove(ids)
            self._quantize(self._count + len(ids))
            self._rows.add(vectors)
            stop = self._count + len(ids)
            self._ids, self._code_of = grown(self._ids, stop), grown(self._code_of, stop)
            self._row_of = grown(self._row_of, max(ids) + 1, fill=-1)
            self._ids[self._count : stop] = ids
            self._row_of[ids] = np.arange(self._count, stop)
            codes = [self._code(each) for each in paths]
            self._code_of[self._count : stop] = codes
            for code in codes:
                self._in_path[code] += 1
            self._count = stop

    def remove(self, ids: Sequence[int]) -> None:
        """Take slots out; ids that are not there do not matter."""
        with self._lock:
            self._remove(ids)

    def nearest(self, vector: Floats, k: int, path: str, allowed: Ids | None, without: Ids | None = None) -> Ids:
        """Return the ids of the ``k`` slots nearest to a vector, nearest first.

        Args:
            vector: (dim,), of length 1.
            k: How many at most.
            path: Where to look, and below: the namespace as it is stored.
            allowed: Which ids may be returned; None is all.
            without: Which may not.

        Raises:
            FingerprintMismatch: The vector is of another dimension.
        """
        self.check(len(vector))
        with self._lock:
            mask = self._mask(path, allowed, without)
            found: Ids = self._ids[self._rows.nearest(vector, k, mask)]
            return found

    def check(self, dim: int) -> None:
        """Raise if vectors of that dimension do not belong here."""
        if dim != self.dim:
            raise FingerprintMismatch(
                f"the bank holds vectors of {self.dim} dimensions, the encoder makes {dim}: open the bank with the "
                "encoder it was made with"
            )

    def _inside(self, path: str) -> list[str]:
        """Return the namespaces that are this one or lie below it."""
        return self._paths[bisect_left(self._paths, path) : bisect_left(self._paths, f"{path[:-1]}0")]

    def _mask(self, path: str, allowed: Ids | None, without: Ids | None) -> Mask | None:
        """Return which rows lie under a path and are allowed; None if all do and are."""
        inside = self._inside(path)
        mask: Mask | None = None
        if len(inside) < len(self._paths):
            under = np.zeros(len(self._paths), np.bool_)
            under[[self._codes[each] for each in inside]] = True
            mask = under[self._code_of[: self._count]]
        if allowed is not None:
            chosen = np.zeros(self._count, np.bool_)
            chosen[self._rows_of(allowed)] = True
            mask = chosen if mask is None else mask & chosen
        if without is not None:
            mask = np.ones(self._count, np.bool_) if mask is None else mask
            mask[self._rows_of(without)] = False
        return mask

    def _rows_of(self, ids: Ids) -> NDArray[np.int32]:
        """Return the rows of those ids that are there."""
        rows = self._row_of[ids[ids < len(self._row_of)]]
        return rows[rows >= 0]

    def _remove(self, ids: Sequence[int]) -> None:
        for slot in ids:
            row = int(self._row_of[slot]) if slot < len(self._row_of) else -1
            if row < 0:
                continue
            self._rows.swap_remove(row)
            self._in_path[self._code_of[row]] -= 1
            self._count -= 1
            moved = self._ids[self._count]
            self._ids[row], self._code_of[row] = moved, self._code_of[self._count]
            self._row_of[moved] = row
            self._row_of[slot] = -1

    def _code(self, path: str) -> int:
        if path not in self._codes:
            self._codes[path] = len(self._codes)
            self._in_path.append(0)
            insort(self._paths, path)
        return self._codes[path]

    def _quantize(self, count: int) -> None:
        """Go over to four bits a coordinate if ``count`` slots are too many to be compared one by one."""
        if count > self._exact_slots and isinstance(self._rows, ExactRows):
            quantized = QuantizedRows(self.dim)
            if self._count:
                quantized.add(self._rows.vectors)
            self._rows = quantized


def grown(array: NDArray[T], count: int, fill: int | None = None) -> NDArray[T]:
    """Return the array, or one at least twice its length with the same beginning, to hold ``count`` rows."""
    if count <= len(array):
        return array
    longer = np.empty((max(count, 2 * len(array)), *array.shape[1:]), array.dtype)
    if fill is not None:
        longer[len(array) :] = fill
    longer[: len(array)] = array
    return longer
