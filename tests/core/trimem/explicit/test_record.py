"""Records, their order on the disk, and where they are read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests import tiny
from trimem import ExplicitConfig, LanguageModel, ReadConfig
from trimem.explicit.codec import codec
from trimem.explicit.compiler import Compiler
from trimem.explicit.read import moved, place
from trimem.explicit.record import Record, rows
from trimem.explicit.records import pack, unpack
from trimem.lm.attach import attach

TEXTS = ["the grey boat leaves on tuesday", "bread", "eleven eggs make one very large and heavy cake"]


@pytest.fixture(params=["llama", "qwen3", "mistral", "gemma3"])
def compiler(request: pytest.FixtureRequest) -> Compiler:
    return Compiler(tiny.build(request.param), ExplicitConfig(codec="float32", reference_tokens=64))


def compiled(compiler: Compiler, texts: list[str] = TEXTS) -> list[Record]:
    records = {i: record for batch in compiler.compile([[text] for text in texts]) for i, record in batch.items()}
    return [records[i] for i in range(len(texts))]


def by_head(record: Record) -> dict[tuple[int, int], tuple[Tensor, Tensor]]:
    """Key and value by head and token."""
    head, _ = rows(record.counts)
    return {
        (int(h), int(token)): (record.key[i], record.value[i])
        for i, (h, token) in enumerate(zip(head, record.token, strict=True))
    }


@torch.no_grad()
def logits(lm: LanguageModel, ids: list[int], first: int = 0) -> Tensor:
    tokens = torch.tensor([ids])
    positions = torch.arange(first, first + len(ids))[None]
    result: Tensor = lm.model(tokens, attention_mask=torch.ones_like(tokens), position_ids=positions).logits[0]
    return result


def test_rows_go_by_rank_then_by_head() -> None:
    head, rank = rows(torch.tensor([[2, 0], [1, 3]]))
    assert head.tolist() == [0, 2, 3, 0, 3, 3]
    assert rank.tolist() == [0, 0, 0, 1, 1, 2]


@pytest.mark.parametrize("rule", ["max", "repeat"])
def test_a_record_does_not_depend_on_its_batch(compiler: Compiler, rule: str) -> None:
    compiler = Compiler(compiler.lm, replace(compiler.config, selection=rule, tokens=5))
    for text, together in zip(TEXTS, compiled(compiler), strict=True):
        (alone,) = compiled(compiler, [text])
        theirs, own = by_head(together), by_head(alone)
        assert theirs.keys() == own.keys()
        for at, (key, value) in own.items():
            torch.testing.assert_close(theirs[at][0], key, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(theirs[at][1], value, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["float32", "int8"])
def test_few_tokens_are_the_beginning_of_the_record(compiler: Compiler, name: str) -> None:
    record = compiled(compiler)[2]
    stored = pack(record, codec(name))
    whole, few = (unpack(stored, codec(name), torch.float32, most) for most in (None, 3))
    assert torch.equal(whole.counts, record.counts.long())
    assert bool((few.counts == 3).all())
    assert torch.equal(few.key, whole.key[: len(few.key)])
    assert torch.equal(few.value, whole.value[: len(few.value)])
    assert few.tokens == record.tokens, "the tokens that are left out keep their places"
    if name == "float32":
        assert torch.equal(whole.key, record.key)


def test_a_token_left_out_is_a_token_hidden(compiler: Compiler) -> None:
    """Ragged heads, filled up and hidden, read as whole heads do with the same tokens masked."""
    record, lm = compiled(compiler)[2], compiler.lm
    most = torch.randint(1, record.tokens, record.counts.shape, generator=torch.Generator().manual_seed(0))
    most[0, 0] = record.tokens
    most[-1] = 1
    head, rank = rows(record.counts)
    keep = rank < most.flatten()[head]
    part = Record(record.key[keep], record.value[keep], record.token[keep], most, record.tokens)
    whole = place(lm, [compiler.prefix, record]).memory
    hidden = {idx: replace(layer, bias=torch.zeros(layer.key.shape[:3])) for idx, layer in whole.layers.items()}
    for i, layer in enumerate(lm.layers):
        bias = hidden[layer.layer_idx].bias
        assert bias is not None
        for kv_head in range(layer.num_kv_heads):  # the prefix first, then the record in order of rank
            bias[0, kv_head, compiler.prefix.tokens + int(most[i, kv_head]) :] = float("-inf")
    question = compiler.question("which boat")
    with attach(lm, replace(whole, layers=hidden)):
        wanted = logits(lm, question)
    with attach(lm, place(lm, [compiler.prefix, part]).memory):
        torch.testing.assert_close(logits(lm, question), wanted, atol=1e-4, rtol=0)


def test_heads_without_tokens_read_nothing(compiler: Compiler) -> None:
    lm = compiler.lm
    nothing = torch.zeros(len(lm.layers), lm.layers[0].num_kv_heads, dtype=torch.int)
    record = compiled(compiler)[0]
    empty = Record(record.key[:0], record.value[:0], record.token[:0], nothing, record.tokens)
    question = compiler.question("which boat")
    with attach(lm, place(lm, [compiler.prefix, empty]).memory):
        read = logits(lm, question)
    gap = replace(compiler.prefix, tokens=compiler.prefix.tokens + record.tokens)
    with attach(lm, place(lm, [gap]).memory):
        torch.testing.assert_close(read, logits(lm, question), atol=1e-4, rtol=0)


def whole(compiler: Compiler, **changes: Any) -> list[Record]:
    """The texts as one document."""
    compiler = Compiler(compiler.lm, replace(compiler.config, context="document", **changes))
    records = {i: record for batch in compiler.compile([TEXTS]) for i, record in batch.items()}
    return [records[i] for i in range(len(TEXTS))]


def test_a_document_encoded_as_one_reads_as_its_text_does(compiler: Compiler) -> None:
    lm, question = compiler.lm, compiler.question("which boat")
    records = whole(compiler)
    lengths = [len(compiler.reference(text)) for text in TEXTS]
    assert [record.start for record in records] == [0, lengths[0], lengths[0] + lengths[1]]
    before = [*compiler.prefix_ids, *(token for text in TEXTS for token in compiler.reference(text))]
    full = logits(lm, [*before, *question])[len(before) :]
    for layout in ("sequential", "original"):
        with attach(lm, compiler.place(records[::-1], ReadConfig(layout=layout)).memory):
            torch.testing.assert_close(logits(lm, question), full, atol=2e-4, rtol=0)
    with attach(lm, compiler.place(compiled(compiler)[::-1]).memory):
        apart = logits(lm, question)
    seen = any(layer.sliding_window is None for layer in lm.layers)  # a narrow window sees the last piece alone
    assert torch.allclose(apart, full, atol=1e-3) is not seen, "apart, they do not know one another"


def test_pieces_of_a_document_keep_what_the_bank_keeps(compiler: Compiler) -> None:
    for few, all_of_them in zip(whole(compiler, tokens=4), whole(compiler), strict=True):
        assert bool((few.counts == torch.tensor(4).clamp(max=few.tokens)).all())
        assert torch.equal(few.key, all_of_them.first(4).key), "the pieces before are read in full all the same"


def test_a_document_longer_than_the_context_leaves_its_beginning_behind() -> None:
    compiler = Compiler(tiny.build("llama"), ExplicitConfig(context="document", reference_tokens=64))
    pieces = [f"piece {i} of a text that goes on and on" for i in range(16)]
    records = {i: record for batch in compiler.compile([pieces]) for i, record in batch.items()}
    assert records[15].start + records[15].tokens > compiler.lm.context_length
    assert all(bool(record.key.isfinite().all()) for record in records.values())


def test_parallel_references_know_no_order(compiler: Compiler) -> None:
    records = compiled(compiler)
    question = compiler.question("which boat")
    read = []
    for order in (records, records[::-1]):
        with attach(compiler.lm, compiler.place(order, ReadConfig(layout="parallel")).memory):
            read.append(logits(compiler.lm, question))
    torch.testing.assert_close(read[0], read[1], atol=1e-4, rtol=0)
    with attach(compiler.lm, compiler.place(records).memory):
        assert not torch.allclose(logits(compiler.lm, question), read[0], atol=1e-3)


def test_bias_on_a_record_weighs_its_tokens(compiler: Compiler) -> None:
    records, lm = compiled(compiler)[:2], compiler.lm
    question = compiler.question("which boat")
    with attach(lm, place(lm, [compiler.prefix, *records], bias=[0.0, float("-inf")]).memory):
        read = logits(lm, question)
    nothing = replace(
        records[1], key=records[1].key[:0], value=records[1].value[:0], token=records[1].token[:0],
        counts=torch.zeros_like(records[1].counts),
    )  # fmt: skip
    with attach(lm, place(lm, [compiler.prefix, records[0], nothing]).memory):
        torch.testing.assert_close(read, logits(lm, question), atol=1e-4, rtol=0)


def test_moved_memory_reads_the_same_from_as_far_on(compiler: Compiler) -> None:
    lm, question = compiler.lm, compiler.question("which boat")
    memory = compiler.place(compiled(compiler)[:2]).memory
    with attach(lm, memory):
        here = logits(lm, question)
    with attach(lm, moved(lm, memory, 29)):
        torch.testing.assert_close(logits(lm, question, first=29), here, atol=2e-4, rtol=0)


def test_temperature_divides_the_logits_of_references_and_not_of_the_prefix(compiler: Compiler) -> None:
    record, lm = compiled(compiler)[0], compiler.lm
    question = compiler.question("which boat")
    with attach(lm, compiler.place([replace(record, key=record.key / 0.8)]).memory):
        sharper = logits(lm, question)
    with attach(lm, compiler.place([record], ReadConfig(temperature=0.8)).memory):
        torch.testing.assert_close(logits(lm, question), sharper, atol=1e-4, rtol=0)
    with attach(lm, compiler.place([record]).memory):
        assert not torch.allclose(logits(lm, question), sharper, atol=1e-3)


def test_with_a_mass_what_is_read_twice_counts_once(compiler: Compiler) -> None:
    record, lm = compiled(compiler)[2], compiler.lm
    question = compiler.question("which boat")
    read = []
    for records in ([record], [record, record]):
        with attach(lm, compiler.place(records, ReadConfig(layout="parallel", mass=6.0)).memory):
            read.append(logits(lm, question))
    torch.testing.assert_close(read[0], read[1], atol=1e-4, rtol=0)
    with attach(lm, compiler.place([record], ReadConfig(layout="parallel", mass=float(record.tokens))).memory):
        as_many = logits(lm, question)
    with attach(lm, compiler.place([record], ReadConfig(layout="parallel")).memory):
        torch.testing.assert_close(logits(lm, question), as_many, atol=1e-4, rtol=0)
    assert not torch.allclose(as_many, read[0], atol=1e-3)
