"""Heads learn how much to heed memory."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests import tiny
from trimem import CalibrationNotFoundError, ExplicitConfig, InvalidInputError, LanguageModel, ReadConfig
from trimem.explicit.calibrate import calibrate, facts
from trimem.explicit.calibration import Calibration, own_calibration, save
from trimem.explicit.compiler import Compiler
from trimem.explicit.head_bias import _nll, fit_head_bias
from trimem.explicit.read import place
from trimem.lm.attach import attach


@pytest.fixture
def lm() -> LanguageModel:
    return tiny.build("llama")


def test_what_is_learned_makes_the_answers_likelier(lm: LanguageModel) -> None:
    flags = [parameter.requires_grad for parameter in lm.model.parameters()]
    bias = fit_head_bias(lm, samples=4, epochs=4, progress=False)
    assert bias.shape == (len(lm.layers), lm.layers[0].num_kv_heads)
    assert [parameter.requires_grad for parameter in lm.model.parameters()] == flags
    assert all(parameter.grad is None for parameter in lm.model.parameters())
    compiler = Compiler(lm, ExplicitConfig(reference_tokens=lm.context_length))
    made = facts(7, 0)
    records = {i: r for batch in compiler.compile([[fact.passage] for fact in made]) for i, r in batch.items()}
    nll = []
    for learned in (torch.zeros_like(bias), bias):
        placements = [compiler.place([records[i], records[i + 1], records[i + 2], records[i + 3]]) for i in range(4)]
        with torch.no_grad():
            nll.append(sum(float(_nll(lm, compiler, made[i], placements[i], learned)) for i in range(4)))
    assert nll[1] < nll[0]


@torch.no_grad()
def test_a_head_that_is_held_back_reads_nothing(lm: LanguageModel) -> None:
    compiler = Compiler(lm, ExplicitConfig(codec="float32", reference_tokens=64))
    (records,) = compiler.compile([["the grey boat leaves on tuesday"]])
    bias = torch.zeros(len(lm.layers), lm.layers[0].num_kv_heads)
    bias[0, 1] = -1e4
    most = torch.full(bias.shape, 64)
    most[0, 1] = 0
    ids = torch.tensor([compiler.question("which boat")])
    with attach(lm, place(lm, [compiler.prefix, records[0]], head_bias=bias).memory):
        held_back = lm.model(ids, attention_mask=torch.ones_like(ids)).logits
    with attach(lm, place(lm, [compiler.prefix, records[0].limited(most)]).memory):
        wanted = lm.model(ids, attention_mask=torch.ones_like(ids)).logits
    torch.testing.assert_close(held_back, wanted, atol=1e-4, rtol=0)


def test_a_bias_is_read_from_the_calibration(
    lm: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIMEM_CACHE", str(tmp_path))
    compiler = Compiler(lm, ExplicitConfig(reference_tokens=64))
    (records,) = compiler.compile([["the grey boat leaves on tuesday"]])
    calibration = calibrate(lm, samples=1, progress=False)
    save(calibration, own_calibration(lm))
    with pytest.raises(CalibrationNotFoundError, match="--head-bias"):
        compiler.place([records[0]], ReadConfig(head_bias=True))
    fitted = [[0.5] * len(scores) for scores in calibration.ablation]
    save(replace(calibration, head_bias=fitted), own_calibration(lm))
    with_bias = compiler.place([records[0]], ReadConfig(head_bias=True)).memory
    by_hand = compiler.place([records[0]], ReadConfig(bias=0.5)).memory
    for layer_idx, layer in with_bias.layers.items():
        one, other = layer.bias, by_hand.layers[layer_idx].bias
        assert one is not None
        assert other is not None
        torch.testing.assert_close(one, other)


def test_calibrations_without_a_bias_are_read(lm: LanguageModel) -> None:
    data = json.loads(calibrate(lm, samples=1, progress=False).to_json())
    del data["head_bias"]
    assert Calibration.from_json(json.dumps(data)).head_bias is None


def test_too_few_passages_are_refused(lm: LanguageModel) -> None:
    with pytest.raises(InvalidInputError, match="at least 1 and distractors 2"):
        fit_head_bias(lm, distractors=1)
