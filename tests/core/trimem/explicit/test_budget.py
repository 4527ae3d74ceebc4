"""What fits into a number of bytes, and which heads keep any tokens."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests import tiny
from trimem import ExplicitBank, ExplicitConfig, InvalidInputError, LanguageModel
from trimem.errors import CalibrationNotFoundError
from trimem.explicit.budget import fitted, most_tokens, record_bytes
from trimem.explicit.calibrate import calibrate, facts
from trimem.explicit.calibration import Calibration, calibration_of, own_calibration, save
from trimem.text.encoders import Encoder

TEXT = "the grey boat leaves on tuesday and the pump in the mill runs at nine bar of pressure"


@pytest.fixture
def calibrated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> LanguageModel:
    """A tiny model that has been calibrated on this machine."""
    monkeypatch.setenv("TRIMEM_CACHE", str(tmp_path / "cache"))
    lm = tiny.build("llama")
    save(calibrate(lm, samples=1, distractors=1), own_calibration(lm))
    return lm


@pytest.mark.parametrize(
    ("heads", "kept"),
    [
        ("all", [1, 1, 1]),
        ("first_half", [1, 0, 0]),
        ("middle_half", [1, 1, 1]),
        ("second_half", [0, 1, 1]),
    ],
)
def test_heads_by_depth(tiny_llama: LanguageModel, heads: str, kept: list[int]) -> None:
    most = most_tokens(tiny_llama, ExplicitConfig(heads=heads, tokens=8))
    assert most.tolist() == [[8 * keep] * 2 for keep in kept]


def test_calibrated_heads_need_a_calibration(
    tiny_llama: LanguageModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TRIMEM_CACHE", str(tmp_path))
    with pytest.raises(CalibrationNotFoundError, match="trimem calibrate"):
        most_tokens(tiny_llama, ExplicitConfig(heads="calibrated"))


def test_calibration_finds_every_head_and_comes_back_from_its_file(calibrated: LanguageModel) -> None:
    found = calibration_of(calibrated)
    assert sorted(found.ranking()) == [(layer, head) for layer in range(3) for head in range(2)]
    assert bool((torch.tensor(found.copy_score) >= 0).all())
    assert float(torch.tensor(found.copy_score).max()) > 0
    assert any(loss != 0 for losses in found.ablation for loss in losses)
    missed = [found.ablation[layer][head] for layer, head in found.ranking()]
    assert missed == sorted(missed, reverse=True)
    assert missed[0] > missed[-1]
    assert int(found.best(4).sum()) == 4
    assert bool((found.best(5) | ~found.best(4)).all()), "more heads are a superset"
    assert found.fingerprint == calibrated.fingerprint
    with pytest.raises(InvalidInputError, match="no calibration"):
        Calibration.from_json('{"version": 99}')


def test_a_calibration_of_other_heads_is_named(calibrated: LanguageModel) -> None:
    found = calibration_of(calibrated)
    save(replace(found, ablation=found.ablation[:-1]), own_calibration(calibrated))
    with pytest.raises(InvalidInputError, match="delete it and run trimem calibrate"):
        calibration_of(calibrated)


def test_facts_are_made_by_seed_and_hold_their_answers() -> None:
    assert facts(20, 1) == facts(20, 1) != facts(20, 2)
    assert all(f"{fact.lead} {fact.answer}." in fact.passage for fact in facts(50, 3))


@pytest.mark.parametrize("codec", ["float16", "int8", "int4", "float32"])
@pytest.mark.parametrize("tokens", [None, 5])
def test_records_take_the_bytes_that_were_said(
    tmp_path: Path, tiny_llama: LanguageModel, encoder: Encoder, codec: str, tokens: int | None
) -> None:
    config = ExplicitConfig(codec=codec, tokens=tokens, reference_tokens=64)
    with ExplicitBank.open(tmp_path / "bank", model=tiny_llama, encoder=encoder, config=config) as bank:
        bank.remember(TEXT, namespace="a")
        stats = bank.stats()
    longest = record_bytes(tiny_llama, config)
    assert stats.tensor_bytes <= stats.slots * longest
    assert stats.tensor_bytes == sum(file.stat().st_size for file in tmp_path.rglob("*.safetensors"))


def test_a_budget_is_kept_and_used(calibrated: LanguageModel) -> None:
    dense = record_bytes(calibrated, ExplicitConfig())
    before = dense + 1
    for share in (1.0, 0.7, 0.45, 0.35, 0.2, 0.1, 0.05):
        budget = int(share * dense)
        config = fitted(calibrated, ExplicitConfig(bytes_per_ref=budget))
        size = record_bytes(calibrated, config)
        assert size <= budget
        assert size < before
        before = size
    assert fitted(calibrated, ExplicitConfig(bytes_per_ref=dense)).codec == "float16"
    assert config.codec == "int4"
    with pytest.raises(InvalidInputError, match="is less than"):
        fitted(calibrated, ExplicitConfig(bytes_per_ref=100))


def test_a_bank_keeps_its_budget(tmp_path: Path, calibrated: LanguageModel, encoder: Encoder) -> None:
    budget = record_bytes(calibrated, ExplicitConfig(reference_tokens=64)) // 5
    config = ExplicitConfig(reference_tokens=64, bytes_per_ref=budget)
    with ExplicitBank.open(tmp_path / "bank", model=calibrated, encoder=encoder, config=config) as bank:
        bank.remember(TEXT, namespace="a")
        assert bank.ask("which boat", namespace="a", max_new_tokens=2).hits
        assert 0 < bank.stats().tensor_bytes <= bank.stats().compiled * budget
