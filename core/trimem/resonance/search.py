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
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trimem.errors import InvalidInputError
from trimem.resonance.channel import Channel, align_inside
from trimem.resonance.phonemes import Phonemes
from trimem.resonance.torus import DIMS
from trimem.resonance.vocabulary import LONGEST_WORD, Vocabulary

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
_SEED = 0
_UNSEEN = 10_000  # words of anything that a text is thought to go on with, so that a short one makes nothing rare
_MEANT = 0.5  # the share of a question's words that are thought to be said where its answer is


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
    """A text's words by sound, or those of several stretches, which no phrase crosses.

    Args:
        vocabulary: Phonemes of each distinct word.
        words: (n,) which of them is said, in order.
        stretch: (n,) which stretch each word is of, in order; None is one for all.
        gain: Of the phases; :class:`trimem.resonance.code.CodeConfig` says more.
        channel: How queries are misheard.
        device: Where the index lies and searches run.

    Raises:
        InvalidInputError: A word is outside the vocabulary or has no phonemes.

    Cost: O(n) bytes and time, 20 bytes a word; ``search`` does not depend on n.
    """

    def __init__(
        self,
        vocabulary: Sequence[Phonemes],
        words: Tensor,
        *,
        stretch: Tensor | None = None,
        gain: float = 0.15,
        channel: Channel | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        if len(words) and not 0 <= int(words.min()) <= int(words.max()) < len(vocabulary):
            raise InvalidInputError(f"words are numbers below {len(vocabulary)}, that of distinct words")
        self.device = torch.device(device)
        self.vocabulary = Vocabulary(gain, channel, device)
        self.vocabulary.extend(list(vocabulary))
        self.words = words.to(self.device, torch.int32)
        self.stretch = (
            torch.zeros_like(self.words) if stretch is None else stretch.to(self.device, torch.int32)
        ).long()
        self._count()
        self._sort()

    def append(self, words: Tensor, lengths: Sequence[int], new: Sequence[Phonemes] = ()) -> None:
        """Add stretches at the end.

        Args:
            words: (n,) numbers of the vocabulary.
            lengths: Words of each stretch; together n, none of them 0.
            new: What the vocabulary does not hold yet; numbered after what it holds.

        Cost: O(n) copies, and O(n log n) once in :data:`POSTINGS` words.
        """
        self.vocabulary.extend(list(new))
        first = int(self.stretch[-1]) + 1 if len(self.stretch) else 0
        sizes = torch.tensor(list(lengths), device=self.device)
        number = torch.arange(first, first + len(sizes), device=self.device)
        self.words = torch.cat([self.words, words.to(self.device, torch.int32)])
        self.stretch = torch.cat([self.stretch, number.repeat_interleave(sizes)])
        self._count()
        if len(self.words) - self._sorted > POSTINGS:
            self._sort()

    def _count(self) -> None:
        """Count how often each word is said, and where stretches begin."""
        said = len(self.words)
        self._counts = torch.bincount(self.words, minlength=len(self.vocabulary)).to(self.device)
        self._prior = (self._counts.clamp(min=1).float() / (said + _UNSEEN)).log()
        self._lengths = torch.bincount(self.stretch)
        self._first = self._lengths.cumsum(0) - self._lengths
        generator = torch.Generator().manual_seed(_SEED)
        self._sample = torch.randint(0, max(said, 1), (_SAMPLE,), generator=generator).to(self.device)

    def _sort(self) -> None:
        """Sort places by what is said there; those that are added later are looked through one by one."""
        self._sorted = len(self.words)
        self._postings = torch.argsort(self.words, stable=True).to(torch.int32)
        self._sizes = self._counts
        self._offsets = torch.cat([self._sizes.new_zeros(1), self._sizes.cumsum(0)])

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
        spoken = checked(query)
        if not len(self.words):
            return []
        correlations, evidence = self._evidence(spoken)
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

    def correlation(self, query: Sequence[Phonemes]) -> Tensor:
        """Return the mean cosine between the phases of a phrase and of what is said from each place on, (n,).

        Raises:
            InvalidInputError: As of :meth:`search`.

        Cost: O(n * words of the query).
        """
        spoken = checked(query)
        table = self.vocabulary.points(spoken) @ self.vocabulary.phasors.T / DIMS
        return self._total(table, torch.arange(len(self.words), device=self.device), 0.0) / len(spoken)

    def about(self, query: Sequence[Phonemes], *, allowed: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return how likely a question is about each stretch, whatever the order of its words.

        Half of a question's words are thought to be drawn, by ear, from what it is about, the others from anywhere
        (the query likelihood of Ponte and Croft, SIGIR 1998, over a channel that errs)::

            log P(query | stretch) / P(query) = sum_q log(1/2 + 1/2 mean_w exp evidence(q, w))

        Args:
            query: Phonemes of each of its words.
            allowed: (n,) bool, the words that may be compared; None allows all.

        Returns:
            Numbers of the stretches that say anything of it, and nats for each. All others have
            ``len(query) * log(1/2)``.

        Raises:
            InvalidInputError: As of :meth:`search`.
        """
        spoken = checked(query)
        if not len(self.words):
            return self.stretch, self.stretch.float()
        _, evidence = self._evidence(spoken)
        word, at = self._heard(evidence, allowed)
        of = self.stretch[at]
        pairs, inverse = torch.unique(of * len(spoken) + word, return_inverse=True)
        told = evidence[word, self.words[at].long()].exp()
        total = torch.zeros(len(pairs), device=self.device).index_add_(0, inverse, told)
        stretch = pairs // len(spoken)
        share = total / self._lengths[stretch]
        gained = (1 - _MEANT + _MEANT * share).log() - math.log(1 - _MEANT)
        stretches, inverse = torch.unique(stretch, return_inverse=True)
        nats = torch.full((len(stretches),), len(spoken) * math.log(1 - _MEANT), device=self.device)
        return stretches, nats.index_add_(0, inverse, gained)

    def like(self, word: Phonemes) -> tuple[int, float]:
        """Return which word of the text one was most likely heard for, and how much more likely than by chance.

        Raises:
            InvalidInputError: The text is empty, or as of :meth:`search`.
        """
        if not len(self.words):
            raise InvalidInputError("an index of nothing holds no word that is like another")
        best = self._evidence(checked([word]))[1][0].max(0)
        return int(best.indices), float(best.values)

    def _evidence(self, query: Sequence[Phonemes]) -> tuple[Tensor, Tensor]:
        """Return correlations, (query, vocabulary), and how much each word of the text speaks for each of the query.

        The second is (query, vocabulary) in nats.
        """
        vocabulary = self.vocabulary
        correlations = vocabulary.points(query) @ vocabulary.phasors.T / DIMS
        alike = min(_ALIKE, len(vocabulary))
        near = correlations.topk(alike, dim=1).indices
        chosen = torch.cat([near, vocabulary.shared(query).topk(alike, dim=1).indices], dim=1)
        likely = vocabulary.likelihood(query, chosen)
        # By chance: over what is said here, and over anything else. A word chosen by both ways counts twice, which
        # is 0.7 nats at most.
        lengths = torch.tensor([len(word) for word in query], device=self.device)[:, None]
        anything = math.log(_UNSEEN / (len(self.words) + _UNSEEN)) - lengths * math.log(len(vocabulary.inventory) + 1)
        known = torch.logsumexp(likely + self._prior[chosen], dim=1, keepdim=True)
        told = (likely - torch.logaddexp(known, anything)).clamp(min=_FLOOR)
        return correlations, torch.full_like(correlations, _FLOOR).scatter_(1, chosen, told)

    def _heard(self, evidence: Tensor, allowed: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return where words of the query may be heard: numbers of them, and places; at most so many are read."""
        places = None
        if allowed is not None:
            places = allowed.to(self.device).nonzero()[:, 0]
        elif len(self.words) <= POSTINGS:
            places = torch.arange(len(self.words), device=self.device)
        if places is not None and len(places) <= POSTINGS:
            word, which = (evidence[:, self.words[places].long()] > 0).nonzero(as_tuple=True)
            return word, places[which]
        word, said = (evidence[:, : len(self._sizes)] > 0).nonzero(as_tuple=True)
        size = self._sizes[said]
        # What tells most for each posting that must be read comes first.
        order = torch.argsort(evidence[word, said] / size.clamp(min=1).float().sqrt(), descending=True)
        word, said, size = word[order], said[order], size[order]
        read = size.cumsum(0) <= POSTINGS
        word, said, size = word[read], said[read], size[read]
        owner = torch.repeat_interleave(torch.arange(len(size), device=self.device), size)
        within = torch.arange(len(owner), device=self.device) - (size.cumsum(0) - size)[owner]
        at = self._postings[self._offsets[said][owner] + within].long()
        late, behind = (evidence[:, self.words[self._sorted :].long()] > 0).nonzero(as_tuple=True)
        word, at = torch.cat([word[owner], late]), torch.cat([at, behind + self._sorted])
        if allowed is not None:
            inside = allowed.to(self.device)[at]
            word, at = word[inside], at[inside]
        return word, at

    def _candidates(self, evidence: Tensor, allowed: Tensor | None) -> Tensor:
        """Return places where the phrase may begin: all, where they are few, else those with the most votes."""
        if allowed is not None:
            places = allowed.to(self.device).nonzero()[:, 0]
            if len(places) <= POSTINGS:
                return places
        elif len(self.words) <= POSTINGS:
            return torch.arange(len(self.words), device=self.device)
        word, at = self._heard(evidence, allowed)
        starts = torch.maximum(at - word, self._first[self.stretch[at]])
        weight = evidence[word, self.words[at].long()]
        if allowed is not None:
            inside = allowed.to(self.device)[starts]
            starts, weight = starts[inside], weight[inside]
        starts, place = torch.unique(starts, return_inverse=True)
        votes = torch.zeros(len(starts), device=self.device).index_add_(0, place, weight)
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
        held = at.clamp(max=len(self.words) - 1)
        inside = (at < len(self.words)) & (self.stretch[held] == self.stretch[starts][:, None])
        said = self.words[held].long()
        values = table[torch.arange(len(table), device=self.device), said]
        return torch.where(inside, values, values.new_tensor(missing)).sum(1)

    def _aligned(self, query: Sequence[Phonemes], starts: Tensor) -> tuple[Tensor, Tensor]:
        """Return how much more likely the phrase was heard near each place than by chance, and where it begins.

        Returns:
            (places,) nats, and (places,) words.
        """
        flat = [phoneme for word in query for phoneme in word]
        heard = sorted(set(flat))
        vocabulary = self.vocabulary
        channel = vocabulary.channel
        confusion = channel.heard(heard, vocabulary.inventory).to(self.device)
        reach = torch.arange(-_MARGIN, len(query) + _MARGIN, device=self.device)
        at = starts[:, None] + reach
        held = at.clamp(0, len(self.words) - 1)
        inside = (at >= 0) & (at < len(self.words)) & (self.stretch[held] == self.stretch[starts][:, None])
        said = self.words[held].long()
        lengths = torch.where(inside, vocabulary.lengths[said], 0)
        total = lengths.sum(1)
        columns = torch.arange(int(total.max()), device=self.device).expand(len(starts), -1)
        ends = lengths.cumsum(1)
        which = torch.searchsorted(ends, columns.contiguous(), right=True).clamp(max=len(reach) - 1)
        place = columns - (ends - lengths).gather(1, which)
        spoken = vocabulary.phonemes[said.gather(1, which), place.clamp(0, vocabulary.phonemes.shape[1] - 1)]
        ids = torch.tensor([heard.index(phoneme) for phoneme in flat], device=self.device)
        likely, begin = align_inside(
            confusion[ids[None, :, None], spoken[:, None, :]],
            total,
            spurious=channel.spurious(len(vocabulary.inventory)),
            dropped=math.log(channel.dropped),
        )
        begin = begin.clamp(max=columns.shape[1] - 1)[:, None]
        first = which.gather(1, begin)
        # Where less than half of a word is in the phrase, the phrase begins with the next one.
        late = 2 * place.gather(1, begin) > lengths.gather(1, first)
        position = (starts + reach[0] + first[:, 0] + late[:, 0]).clamp(0, len(self.words) - 1)
        return likely + len(flat) * math.log(len(vocabulary.inventory)), position


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


def checked(query: Sequence[Phonemes]) -> list[Phonemes]:
    """Return the words of a query that can be spoken, as much of them as is compared.

    Raises:
        InvalidInputError: There are none, or too many.
    """
    spoken = [word[:LONGEST_WORD] for word in query if word]
    if not spoken or len(spoken) > LONGEST_QUERY:
        raise InvalidInputError(
            f"a query has 1 to {LONGEST_QUERY} words that can be spoken, got {len(spoken)} of {len(query)}"
        )
    return spoken
