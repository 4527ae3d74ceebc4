"""How likely words are before they are heard: by their frequency, or by what a language model has read so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trimem.errors import ContextLengthError
from trimem.lm.branches import Branches
from trimem.lm.model import LanguageModel
from trimem.resonance.lexicon import Lexicon

CONTEXT = 64
"""Words before those in doubt that a language model reads."""

NOTHING = -1
"""In place of a candidate where there are fewer than in other rows."""


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """A stretch of text in which the last words are in doubt.

    Attributes:
        units: The words, as far as they are known or guessed.
        first: The first one in doubt; those before are context.
        candidates: (units in doubt, candidates) surfaces, :data:`NOTHING` where there are fewer.
    """

    units: Sequence[str]
    first: int
    candidates: NDArray[np.int64] = field(repr=False)


class Prior(Protocol):
    """Says how likely candidates are.

    Attributes:
        name: What results call it.
    """

    name: str

    def score(self, windows: Sequence[Window]) -> list[NDArray[np.float64]]:
        """Return for each window the log-probability of each candidate given the units before it.

        Each is (units in doubt, candidates), up to a constant a row, and minus infinity for none.
        """


class UnigramPrior:
    """Words are as likely as they are frequent.

    Args:
        lexicon: The words.
    """

    name = "unigram"

    def __init__(self, lexicon: Lexicon) -> None:
        self._log_prior = np.append(lexicon.log_prior, -np.inf)  # NOTHING is the last

    def score(self, windows: Sequence[Window]) -> list[NDArray[np.float64]]:
        return [self._log_prior[window.candidates] for window in windows]


class LanguagePrior:
    """Words are as likely as a causal language model finds them after all words before.

    A word of several tokens is scored by its first one in context, and among words that begin with the same
    token by its frequency. One forward pass scores every word of a window at once.

    Args:
        lm: The model; any causal one of transformers.
        lexicon: The words.
        batch_tokens: Most tokens of one forward pass.
    """

    def __init__(self, lm: LanguageModel, lexicon: Lexicon, batch_tokens: int = 2048) -> None:
        self.name = lm.name
        self._lm = lm
        self._lexicon = lexicon
        self._batch_tokens = batch_tokens
        tokenizer = lm.tokenizer
        ids = (tokenizer.bos_token_id, tokenizer.eos_token_id, 0)
        self._start = next(token for token in ids if token is not None)
        self._tokens: dict[str, list[int]] = {}

    def score(self, windows: Sequence[Window]) -> list[NDArray[np.float64]]:
        """Score windows in batches of like length.

        Raises:
            ContextLengthError: A window does not fit the model's context.

        Cost: one forward pass over the tokens of all windows.
        """
        tokens = self.tokenize({unit for window in windows for unit in window.units})
        lengths = [1 + sum(len(tokens[unit]) for unit in window.units) for window in windows]
        if windows and max(lengths) > self._lm.context_length:
            raise ContextLengthError(
                f"a window has {max(lengths)} tokens, {self._lm.name} reads {self._lm.context_length}: use smaller ones"
            )
        order = sorted(range(len(windows)), key=lambda i: lengths[i])
        scores: dict[int, NDArray[np.float64]] = {}
        while order:
            count = max(1, self._batch_tokens // lengths[order[-1]])
            batch, order = order[-count:], order[:-count]
            scores.update(zip(batch, self._forward([windows[i] for i in batch], tokens), strict=True))
        return [scores[i] for i in range(len(windows))]

    def read(self, texts: Sequence[Sequence[str]]) -> Branches:
        """Read texts to go on from them."""
        tokens = self.tokenize({unit for text in texts for unit in text})
        return Branches(
            self._lm, [[self._start, *(token for unit in text for token in tokens[unit])] for text in texts]
        )

    def extend(self, branches: Branches, parents: Sequence[int], units: Sequence[str]) -> list[float]:
        """Continue texts by a unit each; return how likely it is with all its tokens, given the text."""
        tokens = self.tokenize(set(units))
        return branches.extend(parents, [tokens[unit] for unit in units])

    def foretold(self, said: Tensor, candidates: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return how likely each candidate is by its first token and its share, (texts, candidates).

        Args:
            said: (texts, vocabulary) log-probability of the next token.
            candidates: (candidates,) surfaces, :data:`NOTHING` where there is none.
        """
        first, share = self._first_tokens
        places = torch.from_numpy(first[candidates]).to(said.device)
        return said[:, places].cpu().numpy().astype(np.float64) + share[candidates]

    def tokenize(self, units: set[str]) -> dict[str, list[int]]:
        """Return the tokens of each unit by itself; a unit that gives none gets the start token."""
        missing = [unit for unit in units if unit not in self._tokens]
        if missing:
            # A tokenizer takes no surrogates; what stands for them is context at most.
            plain = [unit.encode("utf-8", "replace").decode() for unit in missing]
            ids = map(self._encode, plain)
            self._tokens.update((unit, found or [self._start]) for unit, found in zip(missing, ids, strict=True))
        return self._tokens

    def _encode(self, text: str) -> list[int]:
        # One by one in the library below takes a fifth of the time of transformers' batches.
        backend = getattr(self._lm.tokenizer, "backend_tokenizer", None)
        if backend is None:
            return self._lm.tokenize(text)
        ids: list[int] = backend.encode(text, add_special_tokens=False).ids
        return ids

    @torch.no_grad()
    def _forward(self, windows: Sequence[Window], tokens: dict[str, list[int]]) -> list[NDArray[np.float64]]:
        rows, before, open_words = [], [], []
        for window in windows:
            row = [self._start]
            # Only where there is something to choose the vocabulary is looked through, a fifth of the work.
            asked = (window.candidates != NOTHING).sum(1) > 1
            open_words.append(asked)
            places = []
            for i, unit in enumerate(window.units):
                if i >= window.first and asked[i - window.first]:
                    places.append(len(row) - 1)  # what is read there foretells the unit's first token
                row += tokens[unit]
            rows.append(row)
            before.append(places)
        longest = max(map(len, rows))
        device = self._lm.device
        ids = torch.tensor([row + [self._start] * (longest - len(row)) for row in rows], device=device)
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=device)
        hidden: Tensor = self._lm.model.base_model(input_ids=ids, attention_mask=mask, use_cache=False)[0]
        head = self._lm.model.get_output_embeddings()
        first, share = self._first_tokens
        scores = []
        for state, places, window, asked in zip(hidden, before, windows, open_words, strict=True):
            said = torch.log_softmax(head(state[places]).float(), dim=-1).cpu().numpy().astype(np.float64)
            score = share[window.candidates]
            score[asked] += np.take_along_axis(said, first[window.candidates[asked]], axis=1)
            scores.append(score)
        return scores

    @cached_property
    def _first_tokens(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The first token of each surface, and the log-share the surface has of those that begin with it."""
        ids = map(self._encode, self._lexicon.surfaces)
        first = np.array([found[0] if found else self._start for found in ids], dtype=np.int64)
        total = np.zeros(int(first.max()) + 1)
        np.add.at(total, first, np.exp(self._lexicon.log_prior))
        share = self._lexicon.log_prior - np.log(total[first])
        return np.append(first, 0), np.append(share, -np.inf)
