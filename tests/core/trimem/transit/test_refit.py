"""A codec fitted anew to what a bank holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.contracts.bank import BOAT, PUMP
from tests.letters import CODE, DIM, Letters, Open, read
from trimem import (
    FingerprintMismatch,
    InvalidInputError,
    TransitBank,
    TransitConfig,
)
from trimem.transit.idrp import Idrp


def unlike(texts: Sequence[str]) -> tuple[Idrp, float]:
    """Return a codec fitted to other things than texts, and how far off it is."""
    noise = torch.randn(200, DIM, generator=torch.Generator().manual_seed(5)) * torch.logspace(2, -2, DIM)
    codec = Idrp.principal(noise, TransitConfig(CODE, layers=0, predictor_hidden=8))
    whole = torch.from_numpy(Letters().encode_documents(texts))
    return codec, float((codec.expand(codec.compress(whole)) - whole).square().mean())


def test_refitting_loses_no_slot_and_keeps_the_bound(small: Open) -> None:
    texts = [f"text number {i}" for i in range(80)]
    codec, lost = unlike(texts)
    bank, other = small(codec=codec, max_error=0.05), small()
    ids = bank.remember([*texts, "Two sentences. In one text."], namespace="a")
    read(bank, texts[7])
    other.recall(texts[3], 1, namespace="a")
    before = bank.stats()
    report = bank.refit()
    assert report.kept
    assert (report.slots, report.after < 0.8 * report.before) == (81, True)
    assert bank.codec.fingerprint != codec.fingerprint
    whole = torch.from_numpy(Letters().encode_documents(texts))
    assert (bank.codec.expand(bank.codec.compress(whole)) - whole).square().mean() < 0.8 * lost
    for each in (bank, other, small()):
        assert (each.vectors(ids[:80]) - whole).abs().max() <= 0.05
        assert each.recall(texts[3], 1, namespace="a")[0].id == ids[3]
        assert each.verify().ok
    after = other.stats()
    assert (after.slots, after.compiled, after.documents) == (before.slots, before.compiled, before.documents)
    bank.remember("Another.", namespace="a")
    assert other.recall("Another.", 1, namespace="a")[0].text == "Another."
    assert not bank.refit().kept, "it cannot become better by the same again"
    with pytest.raises(FingerprintMismatch):
        small(codec=codec)


def test_refitting_takes_in_what_others_write_meanwhile(small: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"text number {i}" for i in range(80)]
    bank, other = small(codec=unlike(texts)[0]), small()
    bank.remember(texts, namespace="a")
    recode = bank._store.recode
    tried: list[int] = []

    def overtaken(*arguments: Any) -> list[str]:
        if not tried:
            other.remember(PUMP, namespace="a")
        tried.append(len(arguments[0]))
        return recode(*arguments)

    monkeypatch.setattr(bank._store, "recode", overtaken)
    assert bank.refit().slots == 81
    assert tried == [80, 81]
    assert other.recall(PUMP, 1, namespace="a")[0].text == PUMP
    assert bank.verify().ok


def test_what_is_written_while_others_refit_is_stored_by_the_new_codec(small: Open, tmp_path: Path) -> None:
    class Interrupted(Letters):
        refits = 0

        def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
            vectors = super().encode_documents(texts)
            if PUMP in texts and not self.refits:
                self.refits += 1
                assert other.refit().kept
            return vectors

    texts = [f"text number {i}" for i in range(80)]
    other = small(codec=unlike(texts)[0], max_error=0.05)
    other.remember(texts, namespace="a")
    with TransitBank.open(tmp_path / "small", encoder=Interrupted()) as bank:
        ids = bank.remember([PUMP, BOAT], namespace="a")
        assert bank.codec.fingerprint == other.codec.fingerprint
    whole = torch.from_numpy(Letters().encode_documents([PUMP, BOAT]))
    assert (other.vectors(ids) - whole).abs().max() <= 0.05
    rows = other._store.reader.codes(ids)
    packed = [other._store.reader.vectors.pack(vector) for vector in whole.numpy()]
    assert [rows[slot] for slot in ids] == packed


def test_a_refit_that_fails_changes_nothing(small: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"text number {i}" for i in range(80)]
    codec, _ = unlike(texts)
    bank = small(codec=codec)
    ids = bank.remember(texts, namespace="a")
    before = bank.vectors(ids)

    def full(*_: Any) -> None:
        raise OSError("on purpose")

    with monkeypatch.context() as patch:
        patch.setattr("trimem.store.shards.ShardChange.enter", full)
        with pytest.raises(OSError, match="on purpose"):
            bank.refit()
    again = small()
    assert again.codec.fingerprint == codec.fingerprint
    assert torch.equal(again.vectors(ids), before)
    assert again.verify().ok
    bank.forget(namespace="a")
    with pytest.raises(InvalidInputError, match="at least 3 texts, the bank holds 0"):
        bank.refit()
