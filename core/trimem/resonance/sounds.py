"""The slots of a bank by sound, kept in step with its database: an index for each namespace, and for none more.

What is counted, compared and ranked for one tenant is that tenant's alone: the words of others change neither what is
found nor its scores.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from threading import RLock

import numpy as np
import torch
from numpy.typing import NDArray

from trimem.resonance.phonemes import Phonemes
from trimem.resonance.search import PLACES, ResonanceIndex
from trimem.resonance.sought import Sought
from trimem.store.reader import SearchReader, SlotText

PHRASE = 0.4
"""The share of what its phonemes could tell from which on a query may be a phrase that was said.

Less of it is the frame of a question, which others have said word by word: "who talked about".
"""

_STEP = 4096  # slots read in one go
_LEAST_SPREAD = 1.0  # nats by which slots differ at least; fewer would make anything stand out in a small bank


@dataclass(frozen=True, slots=True)
class Said:
    """What a slot says.

    Attributes:
        forms: Its words as they are written.
        spoken: Their phonemes; none for signs.
    """

    forms: Sequence[str] = field(repr=False)
    spoken: Sequence[Phonemes] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Resonant:
    """A slot that sounds like a query.

    Attributes:
        row: Its row id.
        nats: How much more likely the query was heard because of it than by chance.
        z: That in standard deviations above the other slots.
        word: The word of the slot that what resonates begins with.
        quoted: How well the query is heard as a phrase said there: nats as a share of what its phonemes could tell;
            minus infinity where that is less than :data:`PHRASE`.
    """

    row: int
    nats: float
    z: float
    word: int
    quoted: float


class NamespaceSounds:
    """The slots of one namespace by sound."""

    def __init__(self) -> None:
        self.index = ResonanceIndex([], torch.zeros(0, dtype=torch.int32))
        self.rows = np.zeros(0, np.int64)
        self.forms: list[str] = []
        self._number: dict[Phonemes, int] = {}
        self._starts: list[int] = []
        self._word_of = np.zeros(0, np.int32)  # which word of its slot each word of the index is

    def put(self, slots: Iterable[tuple[int, Said]]) -> None:
        """Add slots; those that say nothing aloud are left out. O(words of the namespace) copies."""
        rows, lengths, words, word_of = [], [], [], []
        new: list[Phonemes] = []
        for row, said in slots:
            spoken = [i for i, phonemes in enumerate(said.spoken) if phonemes]
            for i in spoken:
                phonemes = said.spoken[i]
                if phonemes not in self._number:
                    self._number[phonemes] = len(self._number)
                    new.append(phonemes)
                    self.forms.append(said.forms[i].strip())
                words.append(self._number[phonemes])
            if spoken:
                rows.append(row)
                lengths.append(len(spoken))
                word_of += spoken
        if rows:
            begin = len(self.index)
            self.index.append(torch.tensor(words), lengths, new)
            self.rows = np.concatenate([self.rows, np.array(rows, np.int64)])
            self._starts += list(accumulate(lengths[:-1], initial=begin))
            self._word_of = np.concatenate([self._word_of, np.array(word_of, np.int32)])

    def without(self, gone: Collection[int]) -> NamespaceSounds:
        """Return a new one that never held some slots. O(words and distinct words of the namespace)."""
        kept = NamespaceSounds()
        spoken = self.index.vocabulary.spoken
        words = self.index.words.tolist()
        slots = []
        for row, (start, stop) in zip(self.rows.tolist(), pairwise([*self._starts, len(words)]), strict=True):
            if row not in gone:
                at = self._word_of[start:stop].tolist()
                said: list[Phonemes] = [()] * (at[-1] + 1)
                forms = [""] * (at[-1] + 1)
                for i, word in zip(at, words[start:stop], strict=True):
                    said[i], forms[i] = spoken[word], self.forms[word]
                slots.append((row, Said(forms, said)))
        kept.put(slots)
        return kept

    def holds(self, spoken: Phonemes) -> bool:
        """Return whether a word was said that sounds exactly so."""
        return spoken in self._number

    def search(
        self, query: Sought, allowed: NDArray[np.int64] | None
    ) -> tuple[dict[int, tuple[float, int, float]], int]:
        """Return nats, word and quotation by row for slots that sound like a query, and how many were compared.

        Both as a phrase that is quoted, and as a question about what was said; whichever is the likelier way to ask.
        """
        inside = np.ones(len(self.rows), np.bool_) if allowed is None else np.isin(self.rows, allowed)
        if not inside.any():
            return {}, 0
        mask = None if inside.all() else torch.from_numpy(inside)[self.index.stretch.cpu()]
        stretches, gained = self.index.about(query.about, allowed=mask)
        about = dict(zip(stretches.tolist(), gained.tolist(), strict=True))
        nothing = len(query.about) * math.log(0.5)
        found = {
            int(self.rows[stretch]): (max(nats, nothing) - math.log(2), self._begin(stretch), -math.inf)
            for stretch, nats in about.items()
        }
        most = sum(map(len, query.phrase)) * math.log(max(len(self.index.vocabulary.inventory), 2))
        for place in self.index.search(query.phrase, PLACES, allowed=mask):
            told = place.score if place.score >= PHRASE * most else -math.inf
            stretch = int(self.index.stretch[place.position])
            row = int(self.rows[stretch])
            nats = float(np.logaddexp(about.get(stretch, nothing), told)) - math.log(2)
            if row not in found or nats > found[row][0]:
                found[row] = nats, int(self._word_of[place.position]), told / most
        return found, int(inside.sum())

    def _begin(self, stretch: int) -> int:
        return int(self._word_of[self._starts[stretch]])


class FollowedSounds:
    """The slots of a bank by sound, as they are in the database. Any thread may search.

    Args:
        reader: Of the bank's database.
        said: Tells what slots say.
    """

    def __init__(self, reader: SearchReader, said: Callable[[Sequence[SlotText]], list[Said]]) -> None:
        self._reader = reader
        self._said = said
        self._lock = RLock()
        self._seen: int | None = None
        self._sounds: dict[str, NamespaceSounds] = {}
        self._paths: list[str] = []
        self._path_of: dict[int, str] = {}

    def search(self, query: Sought, path: str, allowed: NDArray[np.int64] | None, k: int) -> list[Resonant]:
        """Return the ``k`` slots that sound most like a query, best first.

        Args:
            query: What is looked for.
            path: Of the namespace, as it is stored; those below it are searched, too.
            allowed: Rows that may be found; None allows all of them.
            k: How many at most.
        """
        with self._lock:
            self._follow()
            found: dict[int, tuple[float, int, float]] = {}
            compared = 0
            for sounds in self._under(path):
                more, inside = sounds.search(query, allowed)
                found |= more
                compared += inside
        ranked = sorted(found.items(), key=lambda item: (-item[1][0], item[0]))
        nats = np.array([told[0] for _, told in ranked])
        z = _above_others(nats, compared, len(query.about) * math.log(0.5))
        return [
            Resonant(row, each, float(z[i]), word, quoted) for i, (row, (each, word, quoted)) in enumerate(ranked[:k])
        ]

    def like(self, word: Phonemes, path: str) -> tuple[str, float] | None:
        """Return what was said that a word was most likely heard for, and the nats that tell it from chance.

        None where the word itself was said, or nothing was.
        """
        with self._lock:
            self._follow()
            best: tuple[str, float] | None = None
            for sounds in self._under(path):
                if sounds.holds(word):
                    return None
                if len(sounds.index):
                    number, nats = sounds.index.like(word)
                    if best is None or nats > best[1]:
                        best = sounds.forms[number], nats
            return best

    def catch_up(self) -> None:
        """Follow the database now, unless nothing has been read yet."""
        with self._lock:
            if self._seen is not None:
                self._follow()

    def _under(self, path: str) -> list[NamespaceSounds]:
        first = bisect_left(self._paths, path)
        last = bisect_left(self._paths, f"{path[:-1]}0")  # the character after the slash that ends a path
        return [self._sounds[each] for each in self._paths[first:last]]

    def _follow(self) -> None:
        """Read all that changed since the last time. O(words of the namespaces where something did)."""
        with self._reader.session() as session:
            newest = self._reader.newest_change(session)
            if newest == self._seen:
                return
            changed = None if self._seen is None else self._reader.changes(session, self._seen)
        if changed is None:
            self._sounds, self._paths, self._path_of = {}, [], {}
            last = 0
            while rows := self._texts_after(last):
                self._put(rows)
                last = rows[-1].row
        else:
            self._remove(changed)
            for start in range(0, len(changed), _STEP):
                with self._reader.session() as session:
                    rows = self._reader.texts_of(session, changed[start : start + _STEP])
                self._put(rows)
        self._seen = newest

    def _texts_after(self, last: int) -> list[SlotText]:
        with self._reader.session() as session:
            return self._reader.texts_after(session, last, _STEP)

    def _put(self, rows: Sequence[SlotText]) -> None:
        by_path: dict[str, list[tuple[int, Said]]] = {}
        self._remove([row.row for row in rows])
        for row, said in zip(rows, self._said(rows), strict=True):
            by_path.setdefault(row.path, []).append((row.row, said))
            self._path_of[row.row] = row.path
        for path, slots in by_path.items():
            if path not in self._sounds:
                self._sounds[path] = NamespaceSounds()
                insort(self._paths, path)
            self._sounds[path].put(slots)

    def _remove(self, rows: Iterable[int]) -> None:
        gone: dict[str, set[int]] = {}
        for row in rows:
            if (path := self._path_of.pop(row, None)) is not None:
                gone.setdefault(path, set()).add(row)
        for path, some in gone.items():
            self._sounds[path] = self._sounds[path].without(some)
            if not len(self._sounds[path].rows):
                del self._sounds[path]
                self._paths.remove(path)


def _above_others(nats: NDArray[np.float64], compared: int, nothing: float) -> NDArray[np.float64]:
    """Return how many standard deviations each slot is above all others that were compared, best first.

    Slots that say nothing of a query count with what that gives, and one more of them stands beside all, so that a
    slot that is alone is compared with silence.
    """
    silent = compared - len(nats) + 1
    count = len(nats) + silent - 1  # others of each
    shifted = nats - nothing
    total, squares = shifted.sum(), (shifted**2).sum()
    mean = (total - shifted) / count
    spread = np.sqrt(np.maximum((squares - shifted**2) / count - mean**2, 0.0))
    z: NDArray[np.float64] = (shifted - mean) / np.maximum(spread, _LEAST_SPREAD)
    return np.minimum.accumulate(z)
