"""Codes of attention keys and values: what every codec of explicit memory keeps, and frames of heads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.contracts.bank import BOAT, CAKE, PUMP
from trimem import ExplicitBank, FingerprintMismatch, LanguageModel
from trimem.errors import InvalidInputError
from trimem.explicit.codec import Codec
from trimem.explicit.record import Record, rows
from trimem.explicit.records import pack, unpack
from trimem.text.encoders import Encoder
from trimem.transit.config import TransitConfig
from trimem.transit.key_values import HeadFrames, KeyValueCodec

HEADS, DIM = 6, 16
CONFIG = TransitConfig(12, numbers="int4", layers=0, predictor_hidden=8)


def key_values(seed: int, count: int = 300) -> tuple[Tensor, Tensor, Tensor]:
    """Return rows of heads that are far from one another, of other sizes and turned other ways."""
    of_heads, generator = torch.Generator().manual_seed(99), torch.Generator().manual_seed(seed)
    mean = 5 * torch.randn(HEADS, DIM, generator=of_heads)
    turn = torch.linalg.qr(torch.randn(HEADS, DIM, DIM, generator=of_heads)).Q
    size = torch.rand(HEADS, generator=of_heads) * 3 + 0.01
    head = torch.arange(count) % HEADS
    drawn = torch.randn(2, count, DIM, generator=generator) * 0.8 ** torch.arange(DIM)
    key, value = ((x[:, None] @ turn[head])[:, 0] * size[head, None] + mean[head] for x in drawn)
    return key, value, head


@pytest.fixture(scope="module")
def codec() -> KeyValueCodec:
    return KeyValueCodec.fit(*key_values(seed=0, count=900), HEADS, CONFIG, progress=False)


def test_rows_come_out_of_their_frames_as_they_went_in() -> None:
    key, _, head = key_values(seed=1)
    frames = HeadFrames.fit(key, head, HEADS + 1)  # the last has no rows
    entered = frames.enter(key, head)
    torch.testing.assert_close(frames.leave(entered, head), key, atol=1e-4, rtol=1e-4)
    for i in range(HEADS):
        rows_of = entered[head == i]
        torch.testing.assert_close(rows_of.mean(0), torch.zeros(DIM), atol=1e-4, rtol=0)
        assert rows_of.square().mean() == pytest.approx(1, rel=1e-3)


def test_it_is_a_codec_of_explicit_memory(codec: KeyValueCodec) -> None:
    key, value, _ = key_values(seed=2, count=HEADS * 7)
    record = Record(key, value, torch.arange(7).repeat_interleave(HEADS), torch.full((2, 3), 7), tokens=7)
    used: Codec = codec
    packed = pack(record, used)
    head, _ = rows(record.counts)
    assert sum(packed[name].nbytes for name in ("key", "value")) == len(head) * used.row_bytes(DIM, DIM)
    whole = unpack(packed, used, torch.float32)
    assert (whole.key - key).square().mean() < 0.05 * (key - key.mean(0)).square().mean()
    few = unpack(packed, used, torch.float16, most=2)
    torch.testing.assert_close(few.key.float(), whole.first(2).key, atol=1e-2, rtol=1e-2)
    assert few.value.dtype == torch.float16
    with pytest.raises(IndexError, match="are stored"):
        used.decode({name: tensor[:3] for name, tensor in packed.items()}, head, torch.float32)


def test_a_frame_for_each_head_keeps_more_than_one_for_all(codec: KeyValueCodec) -> None:
    key, value, head = key_values(seed=3)
    lone = KeyValueCodec.fit(*key_values(seed=0, count=900)[:2], torch.zeros(900).long(), 1, CONFIG, progress=False)
    lost = []
    for each, at, heads in ((codec, head, HEADS), (lone, torch.zeros_like(head), 1)):
        back, _ = each.decode(each.encode(key, value, at, heads), at, torch.float32)
        lost.append(float((back - key).square().mean()))
    assert lost[0] < 0.5 * lost[1]


def test_another_model_is_refused(codec: KeyValueCodec) -> None:
    key, value, head = key_values(seed=4)
    with pytest.raises(InvalidInputError, match="a model of 6 KV heads, got rows of 8"):
        codec.encode(key, value, head, 8)
    assert codec.fingerprint != KeyValueCodec.fit(key, value, head, HEADS, CONFIG, progress=False).fingerprint


def test_a_bank_of_explicit_memory_is_opened_with_it(
    tmp_path: Path, tiny_llama: LanguageModel, encoder: Encoder
) -> None:
    def opened(**options: Any) -> ExplicitBank:
        return ExplicitBank.open(tmp_path / "bank", model=tiny_llama, encoder=encoder, **options)

    texts = [PUMP, BOAT, CAKE]
    with ExplicitBank.open(tmp_path / "whole", model=tiny_llama, encoder=encoder) as whole:
        whole.remember(texts, namespace="a")
        ids = whole._store.ids(("a",), None)
        records = whole._records.read(whole.compiler, ids, [None] * 3)
        size = whole.stats().tensor_bytes
    key, value = (torch.cat([getattr(record, part) for record in records]).float() for part in ("key", "value"))
    head = torch.cat([rows(record.counts)[0] for record in records])
    codec = KeyValueCodec.fit(key, value, head, records[0].counts.numel(), CONFIG, progress=False)
    with opened(codec=codec) as bank:
        bank.remember(texts, namespace="a")
        assert bank.config.codec == f"given:{codec.fingerprint}"
        assert bank.stats().tensor_bytes < size
    with opened(codec=codec) as bank:
        back = bank._records.read(bank.compiler, bank._store.ids(("a",), None), [None] * 3)
        for one, other in zip(back, records, strict=True):
            assert 0 < (one.value - other.value).square().mean() < 0.2 * other.value.var()
        with bank.attach(hits=bank.recall("boat", 1, namespace="a")) as reading:
            assert reading.tokens > 0
    for wrong in (None, KeyValueCodec.fit(key[9:], value[9:], head[9:], 6, CONFIG, progress=False)):
        with pytest.raises(FingerprintMismatch, match="codec="):
            opened(codec=wrong)
    with pytest.raises(FingerprintMismatch, match="float16"):
        ExplicitBank.open(tmp_path / "whole", model=tiny_llama, encoder=encoder, codec=codec)
