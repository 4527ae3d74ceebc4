"""Finding by ear: where in a long text something was said that sounds like the query.

1. Each word of the query is compared with the distinct words of the text: those that share phoneme trigrams
   with it and those whose phases lie near it are aligned phoneme by phoneme. What comes out is how much more
   likely the query's word was heard because that word was said than by chance, in nats.
2. Places vote: the postings of the words that tell most are read, up to a fixed number, so that the time does
   not grow with the length of the text.
3. The best places are judged: phase correlation with its z-score against random places of the same text, and
   an alignment of the whole phrase, in which words may be split or merged.

Everything but the query's own strings is tensors, on whichever device the index lies.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trimem.errors import InvalidInputError
from trimem.resonance.channel import Channel, align, align_inside
from trimem.resonance.phonemes import Phonemes
from trimem.resonance.torus import DIMS, TURN, phasors, word_phases

POSTINGS = 1 << 15
"""Postings read for one query."""

PLACES = 64
"""Places whose phrase is aligned."""

LONGEST_QUERY = 256
"""Most words of a query."""

_ALIKE = 64  # words of the text that a word of the query is aligned with, by trigrams and by phases each
_SAMPLE = 1024  # random places that tell what correlation is by chance
_MARGIN = 1  # words before and after a place that the phrase may reach into
_FLOOR = -8.0  # nats against a place for one word of it that fits ill
_LONGEST_WORD = 24  # phonemes of a word that are compared
_SEED = 0


@dataclass(frozen=True, slots=True)
class Resonance:
    """A place that sounds like a query.

    Attributes:
        position: Of its first word.
        score: How much more likely the query was heard because this was said than by chance, in nats.
        correlation: Mean cosine of the phases of query and place, -1 to 1.
        z: The correlation in standard deviations above its mean over random places.
    """

    position: int
    score: float
    correlation: float
    z: float


class ResonanceIndex:
    """A text's words by sound.

    Args:
        vocabulary: Phonemes of each distinct word.
        words: (n,) which of them is said, in order.
        gain: Of the phases; :class:`trimem.resonance.code.CodeConfig` says more.
        channel: How queries are misheard.
        device: Where the index lies and searches run.

    Raises:
        InvalidInputError: A word is outside the vocabulary or has no phonemes.

    Cost: O(n) bytes and time, 8 bytes a word; ``search`` does not depend on n.
    """

    def __init__(
        self,
        vocabulary: Sequence[Phonemes],
        words: Tensor,
        *,
        gain: float = 0.15,
        channel: Channel | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        if not all(vocabulary):
            raise InvalidInputError("every word of a resonance index has phonemes; leave out those that have none")
        if len(words) and not 0 <= int(words.min()) <= int(words.max()) < len(vocabulary):
            raise InvalidInputError(f"words are numbers below {len(vocabulary)}, that of distinct words")
        self.device = torch.device(device)
        self.gain = gain
        self.channel = channel or Channel()
        self.words = words.to(self.device, torch.int32)
        self._inventory = sorted({phoneme for spoken in vocabulary for phoneme in spoken})
        number = {phoneme: i for i, phoneme in enumerate(self._inventory)}
        cut = [spoken[:_LONGEST_WORD] for spoken in vocabulary]
        self._lengths = torch.tensor([len(spoken) for spoken in cut], dtype=torch.long, device=self.device)
        longest = max((len(spoken) for spoken in cut), default=1)
        table = torch.zeros(len(cut), longest, dtype=torch.long)
        for i, spoken in enumerate(cut):
            table[i, : len(spoken)] = torch.tensor([number[phoneme] for phoneme in spoken])
        self._phonemes = table.to(self.device)
        self._phasors = self._points(vocabulary)
        self._trigrams = {key: torch.tensor(held, device=self.device) for key, held in _by_trigram(vocabulary).items()}
        self._counts = torch.bincount(self.words, minlength=len(vocabulary)).to(self.device)
        self._postings = torch.argsort(self.words, stable=True).to(torch.int32)
        self._offsets = torch.cat([self._counts.new_zeros(1), self._counts.cumsum(0)])
        self._prior = (self._counts.clamp(min=1).float() / max(len(words), 1)).log()
        generator = torch.Generator().manual_seed(_SEED)
        self._sample = torch.randint(0, max(len(words), 1), (_SAMPLE,), generator=generator).to(self.device)

    def __len__(self) -> int:
        return len(self.words)

    def search(self, query: Sequence[Phonemes], k: int = 10, *, allowed: Tensor | None = None) -> list[Resonance]:
        """Return the ``k`` places that sound most like a phrase, best first, no two of them overlapping by half.

        Args:
            query: Phonemes of each of its words.
            k: Most places.
            allowed: (n,) bool, the words a place may begin with; None allows all. Runs before any scoring.

        Raises:
            InvalidInputError: The query is empty, too long, or holds a phoneme that nobody knows.
        """
        spoken = [word[:_LONGEST_WORD] for word in query if word]
        if not spoken or len(spoken) > LONGEST_QUERY:
            raise InvalidInputError(
                f"a query has 1 to {LONGEST_QUERY} words that can be spoken, got {len(spoken)} of {len(query)}"
            )
        if not len(self.words):
            return []
        correlations = self._points(spoken) @ self._phasors.T / DIMS
        evidence = self._evidence(spoken, correlations)
        starts = self._candidates(evidence, allowed)
        if not len(starts):
            return []
        rough = self._total(evidence, starts, _FLOOR)
        starts = starts[rough.topk(min(PLACES, len(starts))).indices]
        score, starts = self._aligned(spoken, starts)
        rho = self._total(correlations, starts, 0.0) / len(spoken)
        chance = self._total(correlations, self._sample, 0.0) / len(spoken)
        z = (rho - chance.mean()) / chance.std().clamp(min=1e-6)
        # Correlation decides between places that are aligned equally well.
        order = torch.argsort(score + 1e-3 * rho, descending=True)
        columns = (starts[order], score[order], rho[order], z[order])
        rows = zip(*(column.tolist() for column in columns), strict=True)
        found: list[Resonance] = []
        for position, *numbers in rows:
            if len(found) == k:
                break
            if all(abs(position - other.position) > len(spoken) // 2 for other in found):
                found.append(Resonance(position, *numbers))
        return found

    def _points(self, words: Sequence[Phonemes]) -> Tensor:
        """Return words as phasors, (words, 32) float32."""
        return phasors(word_phases(words, self.gain, self.device).double() / TURN).float()

    def _evidence(self, query: Sequence[Phonemes], correlations: Tensor) -> Tensor:
        """Return for each word of the query how much each word of the text speaks for it, (query, vocabulary) nats."""
        alike = min(_ALIKE, len(self._prior))
        near = correlations.topk(alike, dim=1).indices
        shared = torch.zeros_like(correlations)
        for row, word in zip(shared, query, strict=True):
            for trigram in _trigrams(word):
                if (held := self._trigrams.get(trigram)) is not None:
                    row[held] += math.log(1 + len(self._prior) / len(held))
        shared /= (self._lengths + 2).float().sqrt()
        chosen = torch.cat([near, shared.topk(alike, dim=1).indices], dim=1)
        likely = self._word_likelihood(query, chosen)
        # By chance: over what is said here. A word chosen by both ways counts twice, which is 0.7 nats at most.
        chance = torch.logsumexp(likely + self._prior[chosen], dim=1, keepdim=True)
        return torch.full_like(correlations, _FLOOR).scatter_(1, chosen, (likely - chance).clamp(min=_FLOOR))

    def _word_likelihood(self, query: Sequence[Phonemes], chosen: Tensor) -> Tensor:
        """Return log-probabilities that a word was heard for each chosen one said, (query, chosen)."""
        heard = sorted({phoneme for word in query for phoneme in word})
        confusion = self.channel.heard(heard, self._inventory).to(self.device)
        ids = _padded([[heard.index(phoneme) for phoneme in word] for word in query]).to(self.device)
        lengths = torch.tensor([len(word) for word in query], device=self.device)
        width = int(self._lengths[chosen].max())
        spoken = self._phonemes[chosen.reshape(-1), :width]
        rows = ids.repeat_interleave(chosen.shape[1], dim=0)
        return align(
            confusion[rows[:, :, None], spoken[:, None, :]],
            lengths.repeat_interleave(chosen.shape[1]),
            self._lengths[chosen.reshape(-1)],
            spurious=self.channel.spurious(len(self._inventory)),
            dropped=math.log(self.channel.dropped),
        ).reshape(chosen.shape)

    def _candidates(self, evidence: Tensor, allowed: Tensor | None) -> Tensor:
        """Return places where the phrase may begin: all, where they are few, else those with the most votes."""
        if allowed is not None:
            places = allowed.to(self.device).nonzero()[:, 0]
            if len(places) <= POSTINGS:
                return places
        elif len(self.words) <= POSTINGS:
            return torch.arange(len(self.words), device=self.device)
        word, said = (evidence > 0).nonzero(as_tuple=True)
        size = self._counts[said]
        # What tells most for each posting that must be read comes first.
        order = torch.argsort(evidence[word, said] / size.clamp(min=1).float().sqrt(), descending=True)
        word, said, size = word[order], said[order], size[order]
        read = size.cumsum(0) <= POSTINGS
        word, said, size = word[read], said[read], size[read]
        owner = torch.repeat_interleave(torch.arange(len(size), device=self.device), size)
        within = torch.arange(len(owner), device=self.device) - (size.cumsum(0) - size)[owner]
        starts = self._postings[self._offsets[said][owner] + within].long() - word[owner]
        weight = evidence[word, said][owner]
        inside = (starts >= 0) & (starts < len(self.words))
        if allowed is not None:
            inside &= allowed.to(self.device)[starts.clamp(0, len(self.words) - 1)]
        starts, place = torch.unique(starts[inside], return_inverse=True)
        votes = torch.zeros(len(starts), device=self.device).index_add_(0, place, weight[inside])
        # A word that was heard as two moves all that follows by one place.
        beside = (starts[1:] - starts[:-1] == 1).float()
        joined = votes.clone()
        joined[1:] += 0.5 * beside * votes[:-1]
        joined[:-1] += 0.5 * beside * votes[1:]
        best: Tensor = starts[joined.topk(min(8 * PLACES, len(starts))).indices]
        return best

    def _total(self, table: Tensor, starts: Tensor, missing: float) -> Tensor:
        """Return the sum over the query's words of what the table says of the words at each place, (places,)."""
        at = starts[:, None] + torch.arange(len(table), device=self.device)
        inside = at < len(self.words)
        said = self.words[at.clamp(max=len(self.words) - 1)].long()
        values = table[torch.arange(len(table), device=self.device), said]
        return torch.where(inside, values, values.new_tensor(missing)).sum(1)

    def _aligned(self, query: Sequence[Phonemes], starts: Tensor) -> tuple[Tensor, Tensor]:
        """Return how much more likely the phrase was heard near each place than by chance, and where it begins.

        Returns:
            (places,) nats, and (places,) words.
        """
        flat = [phoneme for word in query for phoneme in word]
        heard = sorted(set(flat))
        confusion = self.channel.heard(heard, self._inventory).to(self.device)
        reach = torch.arange(-_MARGIN, len(query) + _MARGIN, device=self.device)
        at = starts[:, None] + reach
        inside = (at >= 0) & (at < len(self.words))
        said = self.words[at.clamp(0, len(self.words) - 1)].long()
        lengths = torch.where(inside, self._lengths[said], 0)
        total = lengths.sum(1)
        columns = torch.arange(int(total.max()), device=self.device).expand(len(starts), -1)
        ends = lengths.cumsum(1)
        which = torch.searchsorted(ends, columns.contiguous(), right=True).clamp(max=len(reach) - 1)
        place = columns - (ends - lengths).gather(1, which)
        spoken = self._phonemes[said.gather(1, which), place.clamp(0, self._phonemes.shape[1] - 1)]
        ids = torch.tensor([heard.index(phoneme) for phoneme in flat], device=self.device)
        likely, begin = align_inside(
            confusion[ids[None, :, None], spoken[:, None, :]],
            total,
            spurious=self.channel.spurious(len(self._inventory)),
            dropped=math.log(self.channel.dropped),
        )
        begin = begin.clamp(max=columns.shape[1] - 1)[:, None]
        first = which.gather(1, begin)
        # Where less than half of a word is in the phrase, the phrase begins with the next one.
        late = 2 * place.gather(1, begin) > lengths.gather(1, first)
        position = (starts + reach[0] + first[:, 0] + late[:, 0]).clamp(0, len(self.words) - 1)
        return likely + len(flat) * math.log(len(self._inventory)), position


def index_words(
    spoken: Sequence[Phonemes], **options: float | Channel | torch.device | str | None
) -> tuple[ResonanceIndex, Tensor]:
    """Index a text by sound.

    Args:
        spoken: Phonemes of each unit; those without are left out.
        options: Of :class:`ResonanceIndex`.

    Returns:
        The index, and the unit that each of its words is, (words,).
    """
    at = [i for i, phonemes in enumerate(spoken) if phonemes]
    number: dict[Phonemes, int] = {}
    ids = [number.setdefault(spoken[i], len(number)) for i in at]
    words = torch.tensor(ids, dtype=torch.int32)
    return ResonanceIndex(list(number), words, **options), torch.tensor(at)  # type: ignore[arg-type]


def _padded(rows: Sequence[Sequence[int]]) -> Tensor:
    table = np.zeros((len(rows), max(map(len, rows))), dtype=np.int64)
    for i, row in enumerate(rows):
        table[i, : len(row)] = row
    return torch.from_numpy(table)


def _trigrams(word: Phonemes) -> set[tuple[str, ...]]:
    """Return the runs of three phonemes of a word, its edges included."""
    edged = ("", *word, "")
    return {edged[i : i + 3] for i in range(len(edged) - 2)}


def _by_trigram(vocabulary: Sequence[Phonemes]) -> dict[tuple[str, ...], list[int]]:
    held: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for i, word in enumerate(vocabulary):
        for trigram in _trigrams(word):
            held[trigram].append(i)
    return held
