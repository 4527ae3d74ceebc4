"""A generating model held to a stored trajectory: the same evidence as a logits processor of transformers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from trimem.errors import InvalidInputError
from trimem.resonance.code import Codebook
from trimem.resonance.consensus import CANDIDATES, code_evidence
from trimem.resonance.prior import NOTHING
from trimem.resonance.trajectory import Trajectory

State = tuple[int, tuple[int, ...]]
"""How many words are written, and the tokens of the next one that are."""


class TrajectoryGuide:
    """Makes ``generate(logits_processor=[guide])`` write only what a trajectory may say.

    With ``strength`` below infinity what does not fit is only made less likely; once the model has written
    something else, the trajectory no longer speaks.

    Args:
        trajectory: What is stored.
        codebook: Of the same lexicon and configuration.
        tokenize: Text to token ids, without special tokens: ``LanguageModel.tokenize``.
        prompt_tokens: Tokens before the first that is guided.
        end: Token that ends the text.
        start: First word.
        stop: Word past the last; None is the end.
        strength: Nats by which a token that does not fit is less likely.

    Raises:
        FingerprintMismatch: The trajectory was made with another lexicon or configuration.
        InvalidInputError: The stretch is not inside the trajectory, or strength is not above 0.

    Cost: O(candidates of a word) for each token.
    """

    def __init__(
        self,
        trajectory: Trajectory,
        codebook: Codebook,
        tokenize: Callable[[str], Sequence[int]],
        *,
        prompt_tokens: int,
        end: int,
        start: int = 0,
        stop: int | None = None,
        strength: float = math.inf,
    ) -> None:
        if not strength > 0:
            raise InvalidInputError(f"strength is in nats and above 0, got {strength!r}")
        evidence = code_evidence(trajectory, codebook, start, len(trajectory) if stop is None else stop, CANDIDATES)
        surfaces = codebook.lexicon.surfaces
        self._words = [
            [tuple(tokenize(evidence.anchors[i]))]
            if i in evidence.anchors
            else [tuple(tokenize(surfaces[number])) for number in row if number != NOTHING]
            for i, row in enumerate(evidence.candidates)
        ]
        self._prompt = prompt_tokens
        self._end = end
        self._strength = strength

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return scores, (batch, vocabulary), with what the trajectory does not say made less likely."""
        guided = scores.clone()
        for row, ids in zip(guided, input_ids.tolist(), strict=True):
            allowed = self.allowed(ids[self._prompt :])
            if allowed:
                barred = torch.ones_like(row, dtype=torch.bool)
                barred[list(allowed)] = False
                row[barred] -= self._strength
        return guided

    def allowed(self, written: Sequence[int]) -> set[int]:
        """Return the tokens that may follow those written; none where they have left the trajectory."""
        states: set[State] = self._settled({(0, ())})
        for token in written:
            states = self._settled({(word, (*part, token)) for word, part in states if self._fits(word, part, token)})
        tokens = {
            ids[len(part)] for word, part in states if word < len(self._words) for ids in self._going_on(word, part)
        }
        return tokens | ({self._end} if (len(self._words), ()) in states else set())

    def _settled(self, states: set[State]) -> set[State]:
        """Add for each word that is whole the state in which the next begins."""
        found = set(states)
        for state in states:
            word, part = state
            while word < len(self._words) and part in self._words[word]:
                word, part = word + 1, ()
                found.add((word, part))
        return found

    def _going_on(self, word: int, part: tuple[int, ...]) -> list[tuple[int, ...]]:
        return [ids for ids in self._words[word] if len(ids) > len(part) and ids[: len(part)] == part]

    def _fits(self, word: int, part: tuple[int, ...], token: int) -> bool:
        return word < len(self._words) and any(ids[len(part)] == token for ids in self._going_on(word, part))
