"""A bank of transit memory brought to another encoder or codec."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from typer.testing import CliRunner

from tests.letters import CODEC, Letters, small_codec
from trimem import FingerprintMismatch, InvalidInputError, TransitBank, TransitConfig
from trimem.cli import app
from trimem.transit.idrp import Idrp

TEXTS = [f"text number {i}" for i in range(12)]


class Longer(Letters):
    """Another encoder, of more numbers."""

    fingerprint = "longer"

    def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        seeds = [int.from_bytes(hashlib.sha256(f"longer {text}".encode()).digest()[:4], "big") for text in texts]
        rows = np.array([np.random.default_rng(seed).normal(size=24) for seed in seeds], np.float32)
        unit: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return unit


LONGER = Idrp.principal(
    torch.from_numpy(Longer().encode_documents([f"{i}" for i in range(200)])),
    TransitConfig(12, layers=0, predictor_hidden=8),
)


def test_another_encoder_finds_the_same_slots_by_its_own_vectors(tmp_path: Path) -> None:
    with TransitBank.open(
        tmp_path, encoder=Letters(), codec=CODEC, slots=12, max_error=0.05, surprise=0.05, policy="lru"
    ) as bank:
        ids = bank.remember(TEXTS, namespace="a", metadata=[{"n": i} for i in range(12)])
        bank.recall(TEXTS[3], 1, namespace="a")
        report = bank.recompile(encoder=Longer(), codec=LONGER)
        assert (report.documents, report.slots_before, report.slots, report.encoder) == (12, 12, 12, "longer")
        assert bank.verify().ok
        assert bank.stats().compiled == 12
        whole = torch.from_numpy(Longer().encode_documents(TEXTS))
        assert (bank.vectors(ids) - whole).abs().max() <= 0.05, "the bound is kept by the new codec"
        assert [hit.id for hit in bank.recall(TEXTS[7], 1, namespace="a", by="meaning")] == [ids[7]]
        bank.remember("one more", namespace="a")
        assert bank.get(TEXTS[0], namespace="a") == []
        assert ids[0] not in bank._store.ids(("a",), None), "what was read stays, the oldest goes"
        assert ids[3] in bank._store.ids(("a",), None)
    with TransitBank.open(tmp_path, encoder=Longer()) as bank:
        assert (bank.config.slots, bank.config.surprise, bank.config.policy) == (12, 0.05, "lru")
        assert bank.codec.fingerprint == LONGER.fingerprint
        assert bank.recall(TEXTS[7], 1, namespace="a")[0].slot.metadata == {"n": 7}
    with TransitBank.open(tmp_path, encoder=Letters()) as bank, pytest.raises(FingerprintMismatch):
        bank.recall(TEXTS[7], namespace="a")


def test_another_codec_alone_stores_the_same_vectors_otherwise(tmp_path: Path) -> None:
    other = small_codec(seed=1)
    with (
        TransitBank.open(tmp_path, encoder=Letters(), codec=CODEC) as bank,
        TransitBank.open(tmp_path, encoder=Letters()) as elsewhere,
    ):
        ids = bank.remember(TEXTS, namespace="a")
        assert len(elsewhere.recall(TEXTS[2], 12, namespace="a")) == 12
        other.save(tmp_path / "other.safetensors")
        bank.recompile(codec=tmp_path / "other.safetensors")
        assert bank.codec.fingerprint == other.fingerprint
        made = other.expand(other.compress(torch.from_numpy(Letters().encode_documents(TEXTS))))
        torch.testing.assert_close(bank.vectors(ids), made)
        assert elsewhere.recall(TEXTS[2], 1, namespace="a")[0].id == ids[2], "who has it open follows"
        torch.testing.assert_close(elsewhere.vectors(ids), made)
        bank.recompile(codec=other)
        assert bank.verify().ok


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "give encoder, codec or both"),
        ({"model": "some-model"}, "give encoder, codec or both"),
        ({"encoder": Longer()}, "no codec for the encoder longer"),
        ({"encoder": Longer(), "codec": CODEC}, "the codec is that of the encoder letters"),
        ({"codec": 7}, "codec must be one of transit memory"),
    ],
)
def test_what_no_bank_can_be_brought_to_changes_nothing(tmp_path: Path, given: dict[str, object], message: str) -> None:
    with TransitBank.open(tmp_path, encoder=Letters(), codec=CODEC) as bank:
        ids = bank.remember(TEXTS, namespace="a")
        before = bank.vectors(ids)
        with pytest.raises(InvalidInputError, match=message):
            bank.recompile(**given)  # type: ignore[arg-type]
        assert torch.equal(bank.vectors(ids), before)
        assert not (tmp_path / "recompiling").exists()


def test_the_command(tmp_path: Path) -> None:
    with TransitBank.open(tmp_path / "bank") as bank:
        ids = bank.remember(TEXTS[:3], namespace="a")
        vectors = bank.vectors(ids)
    noise = torch.randn(300, vectors.shape[1], generator=torch.Generator().manual_seed(0))
    codec = Idrp.principal(noise, TransitConfig(32, layers=0, predictor_hidden=8))
    codec.save(tmp_path / "codec.safetensors")
    args = ["recompile", "--bank", str(tmp_path / "bank"), "--codec", str(tmp_path / "codec.safetensors")]
    run = CliRunner().invoke(app, args)
    assert run.exit_code == 0, run.output
    with TransitBank.open(tmp_path / "bank") as bank:
        assert bank.codec.fingerprint == codec.fingerprint
        assert len(bank.recall("number", 3, namespace="a")) == 3
