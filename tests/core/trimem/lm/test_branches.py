"""Texts that are read on from anywhere say what they would if each were read from its beginning."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests import tiny
from trimem import ContextLengthError, LanguageModel
from trimem.lm.branches import Branches

CAUSAL = ("bloom", "falcon", "jamba", "lfm2", "mamba", "mpt", "qwen3_5")  # of those that cannot read memory
TEXTS = [[5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16], [20, 21], [30, 31, 32, 33, 34]]


@torch.no_grad()
def said(lm: LanguageModel, text: list[int]) -> Tensor:
    """Return (tokens, vocabulary), what a model foretells after each token of a text that it reads at once."""
    hidden = lm.model.base_model(input_ids=torch.tensor([text]), use_cache=False)[0][0]
    return torch.log_softmax(lm.model.get_output_embeddings()(hidden).float(), dim=-1)


@pytest.mark.parametrize("name", [*tiny.MODELS, *tiny.NOPE, *CAUSAL])
def test_reading_on_is_reading_from_the_beginning(name: str) -> None:
    lm = tiny.build(name)
    branches = Branches(lm, TEXTS)
    texts = TEXTS
    # Some are dropped, some stand several times, in another order, and go on by unlike lengths.
    for parents, more in (
        ([2, 0, 0, 1], [[40], [41, 42, 43], [44, 45], [46]]),
        ([0, 1, 2, 3], [[50, 51], [52], [53], [54]]),
        ([3, 1], [[60, 61, 62], [63]]),
    ):
        found = branches.extend(parents, more)
        texts = [texts[parent] + new for parent, new in zip(parents, more, strict=True)]
        for row, (text, new) in enumerate(zip(texts, more, strict=True)):
            truth = said(lm, text)
            before = truth[-len(new) - 1 : -1]
            assert found[row] == pytest.approx(float(before.gather(1, torch.tensor(new)[:, None]).sum()), abs=2e-4)
            torch.testing.assert_close(branches.said[row], truth[-1], atol=2e-4, rtol=0)


def test_only_new_tokens_pass_through_a_plain_model(tiny_llama: LanguageModel) -> None:
    read: list[int] = []
    hook = tiny_llama.model.base_model.register_forward_pre_hook(
        lambda _, __, options: read.append(options["input_ids"].numel()), with_kwargs=True
    )
    try:
        branches = Branches(tiny_llama, TEXTS[:1])
        branches.extend([0, 0], [[40], [41]])
    finally:
        hook.remove()
    assert read == [12, 2]


def test_texts_that_do_not_fit_are_refused(tiny_llama: LanguageModel) -> None:
    branches = Branches(tiny_llama, [[5] * 512])
    with pytest.raises(ContextLengthError, match="give it less to read"):
        branches.extend([0], [[6]])
