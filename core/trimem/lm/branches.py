"""Texts that a model reads side by side and goes on reading, from wherever any of them stands."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from trimem.errors import ContextLengthError
from trimem.lm.model import LanguageModel


class Branches:
    """Texts, what the model foretells after each, and one KV cache for all of them.

    Args:
        lm: The model; any causal one of transformers.
        texts: Token ids of each, at least one text of at least one token.

    Attributes:
        said: (texts, vocabulary) log-probability of each text's next token, in nats, float32.

    Raises:
        ContextLengthError: A text does not fit the model's context.

    Cost: a forward pass over what is new. Where a cache is more than the keys and values of all tokens (recurrent
    layers, sliding windows), texts are read again from their beginning.
    """

    def __init__(self, lm: LanguageModel, texts: Sequence[Sequence[int]]) -> None:
        self._lm = lm
        self._texts = [list(text) for text in texts]
        self._cache = _cache(lm)
        self._mask = torch.zeros(len(texts), 0, dtype=torch.long, device=lm.device)
        self.said: Tensor = self._read(self._texts, [text[-1:] for text in self._texts])[1]

    def extend(self, parents: Sequence[int], tokens: Sequence[Sequence[int]]) -> list[float]:
        """Replace the texts by continuations of them.

        Args:
            parents: Which text each continues; one may be continued several times, or not at all.
            tokens: What follows there, at least one token each.

        Returns:
            Log-probability of all that follows, given the text before it, in nats.

        Raises:
            ContextLengthError: A text does not fit the model's context any more.
        """
        chosen = torch.tensor(parents, device=self._lm.device)
        first = self.said[chosen, torch.tensor([new[0] for new in tokens], device=self._lm.device)]
        self._texts = [self._texts[parent] + list(new) for parent, new in zip(parents, tokens, strict=True)]
        self._mask = self._mask[chosen]
        if self._cache is not None and list(parents) != list(range(len(self.said))):
            self._cache.reorder_cache(cast("torch.LongTensor", chosen))
        rest, self.said = self._read(tokens, tokens)
        log_probability: list[float] = (first + rest).tolist()
        return log_probability

    @torch.no_grad()
    def _read(self, rows: Sequence[Sequence[int]], new: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Read ``rows``; return the log-probability of all but the first of ``new``, and of what comes next."""
        if max(map(len, self._texts)) > self._lm.context_length:
            raise ContextLengthError(
                f"a text has {max(map(len, self._texts))} tokens, {self._lm.name} reads {self._lm.context_length}: "
                "give it less to read"
            )
        rows = self._texts if self._cache is None else rows
        lengths = [len(row) for row in rows]
        longest, device = max(lengths), self._lm.device
        ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=device)
        mask = torch.tensor([[1] * length + [0] * (longest - length) for length in lengths], device=device)
        options = {}
        if self._cache is not None:
            starts = self._mask.sum(1, keepdim=True)
            self._mask = mask = torch.cat([self._mask, mask], dim=1)
            # What was padding stays in the cache, masked; positions count only what is there.
            options = {"position_ids": starts + torch.arange(longest, device=device), "past_key_values": self._cache}
        hidden = self._lm.model.base_model(input_ids=ids, attention_mask=mask, use_cache=bool(options), **options)[0]
        # Only what foretells something that is asked for goes through the head, a fifth of the work.
        asked = [(i, lengths[i] - len(last) + j) for i, last in enumerate(new) for j in range(len(last))]
        at = torch.tensor(asked, device=device)
        said = torch.log_softmax(self._lm.model.get_output_embeddings()(hidden[at[:, 0], at[:, 1]]).float(), dim=-1)
        ends = torch.tensor([len(last) for last in new], device=device).cumsum(0) - 1
        follows = torch.tensor([token for last in new for token in [*last[1:], 0]], device=device)
        found = said.gather(1, follows[:, None])[:, 0]
        found[ends] = 0.0
        return said.new_zeros(len(new)).index_add(0, at[:, 0], found), said[ends]


def _cache(lm: LanguageModel) -> DynamicCache | None:
    """Return an empty cache whose rows can be taken apart and put together, or None if the model's cannot."""
    if "position_ids" not in inspect.signature(lm.model.base_model.forward).parameters:
        return None
    cache = DynamicCache(config=lm.model.config)
    return cache if all(type(layer) is DynamicLayer for layer in cache.layers) else None
