"""Signal Consensus: what was stored and what a language would say decide together, and a checksum judges.

The posterior of a word is its prior times the likelihood of the signal, a code or a noisy phase. Blocks are
decoded at once: every word is scored given the best guesses before it, the guesses are renewed, and so on, as
long as that settles blocks (Jacobi decoding, Santilli et al., ACL 2023). What stays in doubt is decoded from left
to right by beam search, by a narrow beam and then by a wide one (:mod:`trimem.resonance.beam`). Each time a block
is read, its CRC judges the best guess and then others, likeliest first; what still fails is flagged, and never
passed off as memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trimem.errors import FingerprintMismatch
from trimem.progress import track
from trimem.resonance.beam import Beam, Block, Stretch, search
from trimem.resonance.code import Codebook, checksum
from trimem.resonance.lexicon import Lexicon
from trimem.resonance.listing import Hypothesis, listed
from trimem.resonance.prior import CONTEXT, NOTHING, LanguagePrior, Prior, UnigramPrior, Window
from trimem.resonance.torus import TURN
from trimem.resonance.trajectory import Trajectory

CANDIDATES = 64
ROUNDS = 4
WORTH = 0.125
"""Share of the blocks in doubt that a round must settle for another one to come before the beams."""

BEAMS = (Beam(4, 5.0), Beam(12, 8.0))
"""The searches for what rounds leave in doubt, one after the other."""

TRIES = 4096
"""Guesses at a block that are checked, all readings together: a wrong one passes a CRC-32 once in a million blocks."""

READINGS = 8
"""Into so many parts tries are divided. Each reading of a block has one, the last one has what is left."""

SEGMENT = 8192
"""Words that are decoded together; the next ones follow with what was decoded as context."""

STRETCH = 8
"""Most blocks in doubt that are read in one window."""

_NEVER = -1  # a checksum that no text has
_RUNNERS_UP = 32  # of one word, in combinations


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What the signal says of each word.

    Attributes:
        candidates: (words, candidates) surfaces, :data:`trimem.resonance.prior.NOTHING` where there are fewer.
        likelihood: (words, candidates) log-likelihood of the signal, in nats.
        anchors: Words that are stored as they are.
    """

    candidates: NDArray[np.int64] = field(repr=False)
    likelihood: NDArray[np.float64] = field(repr=False)
    anchors: dict[int, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """A text decoded from its trajectory.

    Attributes:
        text: The text, with a best guess where a block is flagged.
        units: The same, word by word.
        start: Position of the first word.
        verified_blocks: Blocks whose checksum holds.
        flagged_blocks: Blocks whose checksum fails: their text is a guess.
    """

    text: str
    units: tuple[str, ...] = field(repr=False)
    start: int
    verified_blocks: tuple[int, ...]
    flagged_blocks: tuple[int, ...]

    @property
    def verified(self) -> bool:
        """Whether all of it is as it was."""
        return not self.flagged_blocks


def code_evidence(trajectory: Trajectory, codebook: Codebook, start: int, stop: int, k: int = CANDIDATES) -> Evidence:
    """Return what codes say: every surface that has the code is as likely, any other impossible.

    Args:
        trajectory: What is stored.
        codebook: Of the same lexicon and configuration.
        start: First word.
        stop: Word past the last.
        k: Most candidates of a word, the most common ones.

    Raises:
        FingerprintMismatch: The trajectory was made with another lexicon or configuration.
    """
    if (trajectory.lexicon, trajectory.config) != (codebook.lexicon.identity, codebook.config):
        raise FingerprintMismatch(
            f"the trajectory was made with lexicon {trajectory.lexicon} and {trajectory.config}, not with lexicon "
            f"{codebook.lexicon.identity} and {codebook.config}: decode it with what it was made with"
        )
    codes = trajectory.codes_at(start, stop)
    rows = [codebook.candidates(int(code))[:k] for code in codes]
    widest = max([len(row) for row in rows] + [1])
    candidates = np.full((len(rows), widest), NOTHING)
    for i, row in enumerate(rows):
        candidates[i, : len(row)] = row
    likelihood = np.where(candidates == NOTHING, -np.inf, 0.0)
    anchors = {at - start: text for at, text in trajectory.anchors_at(start, stop).items()}
    return Evidence(candidates, likelihood, anchors)


def phase_likelihood(phases: Tensor, codebook: Codebook, noise: float) -> Tensor:
    """Return how likely each word of the lexicon is to lie where phases were measured.

    Args:
        phases: (n, 16) in turns, each coordinate with normal noise.
        codebook: The words.
        noise: Its standard deviation, in turns.

    Returns:
        (n, entries) ``-d^2 / (2 noise^2)`` with the toroidal distance d, on the device of ``phases``.
    """
    points = (codebook.phases.double() / TURN).float().to(phases.device)
    total = phases.new_zeros(len(phases), len(points))
    for column, measured in zip(points.T, phases.T, strict=True):
        apart = (measured[:, None] - column[None]).abs()
        total += torch.minimum(apart, 1 - apart).square()
    return -total / (2 * noise**2)


def phase_evidence(phases: Tensor, codebook: Codebook, noise: float, k: int = CANDIDATES) -> Evidence:
    """Return what noisy phases say of the ``k`` words that fit best with their frequency; all their surfaces count."""
    lexicon = codebook.lexicon
    frequency = torch.tensor([entry.frequency for entry in lexicon.entries]).log().to(phases)
    likelihood = phase_likelihood(phases, codebook, noise)
    best = (likelihood + frequency).topk(min(k, len(frequency)), dim=1).indices
    surfaces = lexicon.surfaces_of[best.cpu().numpy()]
    likely = likelihood.gather(1, best).cpu().numpy().astype(np.float64)
    flat = surfaces.reshape(len(best), -1)
    likely = np.repeat(likely, surfaces.shape[2], axis=1)
    return Evidence(flat, np.where(flat == NOTHING, -np.inf, likely), {})


def reconstruct(
    trajectory: Trajectory,
    codebook: Codebook,
    prior: Prior | None = None,
    *,
    start: int = 0,
    stop: int | None = None,
    rounds: int = ROUNDS,
    tries: int = TRIES,
    k: int = CANDIDATES,
    beams: Sequence[Beam] = BEAMS,
) -> Reconstruction:
    """Decode a trajectory, or a stretch of it.

    Args:
        trajectory: What is stored.
        codebook: Of the same lexicon and configuration.
        prior: What words are likely; by default their frequency.
        start: First word.
        stop: Word past the last; None is the end.
        rounds: Most times that all blocks in doubt are read again at once.
        tries: Guesses checked of a block in doubt.
        k: Most candidates of a word.
        beams: Searches for what is still in doubt then, if the prior is a language model.

    Raises:
        FingerprintMismatch: The trajectory was made with another lexicon or configuration.
        InvalidInputError: The stretch is not inside the trajectory.

    Cost: where frequencies decide, O(words); else a forward pass over the blocks in doubt for each round, and over
    each word and hypothesis of what is left for each beam.
    """
    stop = len(trajectory) if stop is None else stop
    trajectory.check_span(start, stop)
    block = trajectory.config.block
    origin = start // block * block
    end = min(-(-stop // block) * block, len(trajectory)) if stop > start else origin
    units: list[str] = []
    doubtful: list[int] = []
    for low in range(origin, end, max(1, SEGMENT // block) * block):
        high = min(low + max(1, SEGMENT // block) * block, end)
        evidence = code_evidence(trajectory, codebook, low, high, k)
        checks = trajectory.checks[low // block : -(-high // block)].tolist()
        decoder = _Decoder(evidence, codebook.lexicon.surfaces, checks, block, units[-CONTEXT:])
        decoder.decode(prior, UnigramPrior(codebook.lexicon), rounds, tries, beams)
        units += decoder.units
        doubtful += [low // block + number for number in decoder.doubtful]
    verified = tuple(sorted(set(range(origin // block, -(-end // block))) - set(doubtful)))
    wanted = tuple(units[start - origin : stop - origin])
    return Reconstruction("".join(wanted), wanted, start, verified, tuple(doubtful))


def decode(evidence: Evidence, lexicon: Lexicon, prior: Prior | None, block: int, rounds: int = ROUNDS) -> list[str]:
    """Return the likeliest words, where there is no checksum to judge them.

    Args:
        evidence: What the signal says.
        lexicon: Of its candidates.
        prior: What words are likely; by default their frequency.
        block: Words that are guessed together.
        rounds: Most times that all of it is read again.
    """
    checks = [_NEVER] * -(-len(evidence.candidates) // block)
    decoder = _Decoder(evidence, lexicon.surfaces, checks, block, [])
    decoder.decode(prior, UnigramPrior(lexicon), rounds, tries=1)
    return decoder.units


class _Decoder:
    """The guesses of one reconstruction and which blocks are settled."""

    def __init__(
        self,
        evidence: Evidence,
        surfaces: Sequence[str],
        checks: Sequence[int],
        block: int,
        context: Sequence[str] = (),
    ) -> None:
        self._evidence = evidence
        self._context = list(context)
        self._surfaces = surfaces
        self._checks = checks
        self._block = block
        self._fixed = np.zeros(len(evidence.candidates), dtype=bool)
        self._fixed[list(evidence.anchors)] = True
        self._open = np.where(self._fixed[:, None], NOTHING, evidence.candidates)
        self._read: dict[tuple[str | int, ...], Sequence[str]] = {}
        self.units = [evidence.anchors.get(i, "") for i in range(len(evidence.candidates))]
        self.doubtful = list(range(len(checks)))

    def decode(
        self, prior: Prior | None, frequency: Prior, rounds: int, tries: int, beams: Sequence[Beam] = ()
    ) -> None:
        """Decode by frequency, what fails by the prior in rounds, and what they leave by beams."""
        part = max(1, tries // READINGS)
        self.renew(list(self.doubtful), frequency, part)
        if prior is None:
            return
        model = prior if isinstance(prior, LanguagePrior) and beams else None
        readings = 1
        for _ in range(rounds):
            before, doubted = list(self.units), len(self.doubtful)
            self.renew(list(self.doubtful), prior, part)
            readings += 1
            if self.units == before or (model and doubted - len(self.doubtful) < WORTH * doubted):
                break
        if model:
            for beam in beams:
                self.search(model, beam, part)
            # What no beam held: words that were far behind when only the text before them was known.
            readings += len(beams)
            self.renew(list(self.doubtful), prior, max(part, tries - part * readings), keep=True)

    def renew(self, blocks: Sequence[int], prior: Prior, tries: int, keep: bool = False) -> None:
        """Score the words of some blocks given all guesses, guess them anew unless these are kept, and check them."""
        asked = [(stretch, self._window(stretch)) for stretch in _stretches(blocks)]
        # Where nothing has changed since it was last read, reading it again says nothing new.
        asked = [each for each in asked if self._read.get((prior.name, *each[0])) != each[1].units]
        self._read.update(((prior.name, *stretch), window.units) for stretch, window in asked)
        for (stretch, _), scores in zip(asked, prior.score([window for _, window in asked]), strict=True):
            for number in stretch:
                start, stop = self._span(number)
                skipped = start - self._span(stretch[0])[0]
                posterior = scores[skipped : skipped + stop - start] + self._evidence.likelihood[start:stop]
                self._decode(number, posterior, tries, keep)

    def _span(self, number: int) -> tuple[int, int]:
        return number * self._block, min((number + 1) * self._block, len(self.units))

    def _window(self, stretch: Sequence[int]) -> Window:
        start, stop = self._span(stretch[0])[0], self._span(stretch[-1])[1]
        context = self._before(start)
        return Window([*context, *self.units[start:stop]], len(context), self._open[start:stop])

    def _before(self, start: int) -> tuple[str, ...]:
        """Return what a model reads before a word."""
        if start < CONTEXT:
            return (*self._context, *self.units[:start])[-CONTEXT:]
        return tuple(self.units[start - CONTEXT : start])

    def search(self, prior: LanguagePrior, beam: Beam, tries: int) -> None:
        """Decode blocks in doubt from left to right."""
        stretches = _stretches(self.doubtful)
        asked = [
            Stretch(self._before(self._span(numbers[0])[0]), list(map(self._doubt, numbers))) for numbers in stretches
        ]

        with track("decoding blocks in doubt", len(self.doubtful)) as advance:

            def judge(number: int, hypotheses: Sequence[Hypothesis]) -> tuple[str, ...] | None:
                advance(1)
                return self._judge(number, hypotheses, tries)

            found = search(prior, self._surfaces, asked, beam, judge)
        for numbers, units in zip(stretches, found, strict=True):
            self.units[self._span(numbers[0])[0] : self._span(numbers[-1])[1]] = units

    def _doubt(self, number: int) -> Block:
        start, stop = self._span(number)
        known = {i - start: self.units[i] for i in range(start, stop) if self._fixed[i]}
        return Block(number, self._evidence.candidates[start:stop], self._evidence.likelihood[start:stop], known)

    def _decode(self, number: int, posterior: NDArray[np.float64], tries: int, keep: bool) -> None:
        """Write the best guess of a block, or the best combination that passes its check."""
        start, stop = self._span(number)
        candidates = self._evidence.candidates[start:stop]
        order = np.argsort(-posterior, axis=1, kind="stable")[:, : _RUNNERS_UP + 1]
        ranked = np.take_along_axis(posterior, order, axis=1)
        if not keep:
            for i in range(stop - start):
                if not self._fixed[start + i]:
                    self.units[start + i] = self._surface(candidates[i, order[i, 0]])
        units = tuple(self.units[start:stop])
        swaps = tuple(
            (float(ranked[i, 0] - ranked[i, j]), ((i, surface),))
            for i in range(stop - start)
            if not self._fixed[start + i]
            for j in range(order.shape[1])
            if np.isfinite(ranked[i, j]) and (surface := self._surface(candidates[i, order[i, j]])) != units[i]
        )
        self.units[start:stop] = self._judge(number, [Hypothesis(units, 0.0, swaps)], tries) or units

    def _judge(self, number: int, hypotheses: Sequence[Hypothesis], tries: int) -> tuple[str, ...] | None:
        """Return the first of the likeliest guesses at a block that passes its check, which settles the block."""
        start, stop = self._span(number)
        for units in islice(listed(hypotheses, stop - start), tries):
            if checksum(units) == self._checks[number]:
                self.doubtful.remove(number)
                return units
        return None

    def _surface(self, number: int) -> str:
        return "" if number == NOTHING else self._surfaces[number]


def _stretches(blocks: Sequence[int]) -> list[list[int]]:
    """Return neighbouring blocks together, at most :data:`STRETCH`."""
    found: list[list[int]] = []
    for number in blocks:
        if found and found[-1][-1] == number - 1 and len(found[-1]) < STRETCH:
            found[-1].append(number)
        else:
            found.append([number])
    return found
