"""References that were written apart, mended to know one another."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests import tiny
from trimem import ExplicitConfig, ReadConfig
from trimem.explicit.compiler import Compiler
from trimem.explicit.record import Record
from trimem.lm.attach import attach

TEXTS = ["the grey boat leaves on tuesday", "bread is eaten on it", "eleven eggs make one very large and heavy cake"]


@pytest.fixture(params=["llama", "gemma3"])
def compiler(request: pytest.FixtureRequest) -> Compiler:
    return Compiler(tiny.build(request.param), ExplicitConfig(codec="float32", reference_tokens=64))


def best_first(compiler: Compiler, texts: list[str]) -> list[Record]:
    records = {i: record for batch in compiler.compile([[text] for text in texts]) for i, record in batch.items()}
    return [records[i] for i in range(len(texts))]


@torch.no_grad()
def logits(compiler: Compiler, ids: list[int]) -> Tensor:
    tokens = torch.tensor([ids])
    result: Tensor = compiler.lm.model(tokens, attention_mask=torch.ones_like(tokens)).logits[0]
    return result


def read(compiler: Compiler, texts: list[str], repair: int) -> Tensor:
    prepared = compiler.prepare(best_first(compiler, texts), texts, ReadConfig(repair=repair))
    with attach(compiler.lm, compiler.place(prepared).memory):
        return logits(compiler, compiler.question("which boat"))


def test_two_references_mended_throughout_read_as_their_text_does(compiler: Compiler) -> None:
    texts = TEXTS[:2]
    before = [
        *compiler.prefix_ids, *compiler.reference(texts[1]), *compiler.reference(texts[0])
    ]  # fmt: skip
    full = logits(compiler, [*before, *compiler.question("which boat")])[len(before) :]
    torch.testing.assert_close(read(compiler, texts, 64), full, atol=2e-4, rtol=0)
    assert not torch.allclose(read(compiler, texts, 0), full, atol=1e-3)


def test_only_the_heads_of_later_references_change(compiler: Compiler) -> None:
    records = best_first(compiler, TEXTS)
    prepared = compiler.prepare(records, TEXTS, ReadConfig(repair=2))
    assert torch.equal(prepared[2].key, records[2].key), "the first in reading order sees nothing else before it"
    for old, new in zip(records[:2], prepared[:2], strict=True):
        changed = (old.value != new.value).any(1)
        assert bool((old.token[changed] < 2).all())
        assert 0 < int(changed.sum()) <= 2 * old.counts.numel()


def test_tokens_that_are_not_kept_are_not_mended(compiler: Compiler) -> None:
    few = [record.first(1) for record in best_first(compiler, TEXTS)]
    prepared = compiler.prepare(few, TEXTS, ReadConfig(repair=64))
    for old, new in zip(few, prepared, strict=True):
        assert torch.equal(old.token, new.token)
        assert new.key.shape == old.key.shape


def test_one_reference_needs_no_mending(compiler: Compiler) -> None:
    (record,) = best_first(compiler, TEXTS[:1])
    (prepared,) = compiler.prepare([record], TEXTS[:1], ReadConfig(repair=8))
    assert torch.equal(prepared.key, record.key)
