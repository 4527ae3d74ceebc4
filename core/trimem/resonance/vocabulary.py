"""The distinct words of an index by sound: their phonemes, phases and trigrams, in a table that grows."""

from __future__ import annotations

import math
from array import array
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from trimem.errors import InvalidInputError
from trimem.resonance.channel import Channel, align
from trimem.resonance.phonemes import Phonemes
from trimem.resonance.torus import TURN, phasors, word_phases

LONGEST_WORD = 24
"""Phonemes of a word that are compared."""


class Vocabulary:
    """Distinct words as they are spoken, numbered from 0 in the order they came.

    Args:
        gain: Of the phases; :class:`trimem.resonance.code.CodeConfig` says more.
        channel: How queries are misheard.
        device: Where the tables lie.
    """

    def __init__(self, gain: float = 0.15, channel: Channel | None = None, device: torch.device | str = "cpu") -> None:
        self.gain = gain
        self.channel = channel or Channel()
        self.device = torch.device(device)
        self.spoken: list[Phonemes] = []
        self.phasors = torch.zeros(0, 32, device=self.device)
        self.phonemes = torch.zeros(0, 1, dtype=torch.long, device=self.device)
        self.lengths = torch.zeros(0, dtype=torch.long, device=self.device)
        self.inventory: list[str] = []
        self._number: dict[str, int] = {}
        self._trigrams: dict[tuple[str, ...], array[int]] = defaultdict(lambda: array("q"))

    def __len__(self) -> int:
        return len(self.spoken)

    def extend(self, words: Sequence[Phonemes]) -> None:
        """Take in words that are not held yet.

        Raises:
            InvalidInputError: A word has no phonemes.

        Cost: O(phonemes of the words), and a copy of the tables.
        """
        if not all(words):
            raise InvalidInputError("every word of a resonance index has phonemes; leave out those that have none")
        if not words:
            return
        # In the order they came, which is the same however many words come at once: sums round the same then.
        for phoneme in (phoneme for word in words for phoneme in word):
            if phoneme not in self._number:
                self._number[phoneme] = len(self.inventory)
                self.inventory.append(phoneme)
        cut = [word[:LONGEST_WORD] for word in words]
        rows = padded([[self._number[phoneme] for phoneme in word] for word in cut]).to(self.device)
        width = max(rows.shape[1], self.phonemes.shape[1])
        self.phonemes = torch.cat([_widened(self.phonemes, width), _widened(rows, width)])
        self.lengths = torch.cat([self.lengths, torch.tensor([len(word) for word in cut], device=self.device)])
        self.phasors = torch.cat([self.phasors, self.points(words)])
        for i, word in enumerate(words, len(self.spoken)):
            for trigram in trigrams(word):
                self._trigrams[trigram].append(i)
        self.spoken += words

    def points(self, words: Sequence[Phonemes]) -> Tensor:
        """Return words as phasors, (words, 32) float32."""
        return phasors(word_phases(words, self.gain, self.device).double() / TURN).float()

    def shared(self, query: Sequence[Phonemes]) -> Tensor:
        """Return how much the trigrams say that words of the query and of the table share, (query, words)."""
        told = torch.zeros(len(query), len(self))
        for row, word in zip(told, query, strict=True):
            for trigram in trigrams(word):
                if (held := self._trigrams.get(trigram)) is not None:
                    row[torch.from_numpy(np.array(held))] += math.log(1 + len(self) / len(held))
        return told.to(self.device) / (self.lengths + 2).float().sqrt()

    def likelihood(self, query: Sequence[Phonemes], chosen: Tensor) -> Tensor:
        """Return log-probabilities that a word was heard for each chosen one said, (query, chosen)."""
        heard = sorted({phoneme for word in query for phoneme in word})
        confusion = self.channel.heard(heard, self.inventory).to(self.device)
        ids = padded([[heard.index(phoneme) for phoneme in word] for word in query]).to(self.device)
        lengths = torch.tensor([len(word) for word in query], device=self.device)
        width = int(self.lengths[chosen].max())
        spoken = self.phonemes[chosen.reshape(-1), :width]
        rows = ids.repeat_interleave(chosen.shape[1], dim=0)
        return align(
            confusion[rows[:, :, None], spoken[:, None, :]],
            lengths.repeat_interleave(chosen.shape[1]),
            self.lengths[chosen.reshape(-1)],
            spurious=self.channel.spurious(len(self.inventory)),
            dropped=math.log(self.channel.dropped),
        ).reshape(chosen.shape)


def padded(rows: Sequence[Sequence[int]]) -> Tensor:
    """Return lists of numbers as one table, (rows, longest), filled up with 0."""
    table = np.zeros((len(rows), max(map(len, rows))), dtype=np.int64)
    for i, row in enumerate(rows):
        table[i, : len(row)] = row
    return torch.from_numpy(table)


def trigrams(word: Phonemes) -> set[tuple[str, ...]]:
    """Return the runs of three phonemes of a word, its edges included."""
    edged = ("", *word, "")
    return {edged[i : i + 3] for i in range(len(edged) - 2)}


def _widened(table: Tensor, width: int) -> Tensor:
    return torch.nn.functional.pad(table, (0, width - table.shape[1]))
