"""``trimem advise`` and ``calibrate``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.commands import json_of, trimem


def test_advise_says_where_a_text_is_cheapest(model: str, tmp_path: Path) -> None:
    advised = json_of("advise", "--uses", "100")
    assert list(advised) == ["model", "uses", "parameters", "explicit_memory", "rag", "best", "interval"]
    assert (advised["model"], advised["uses"], advised["best"]) == ("SmolLM2-135M-Instruct", 100, "explicit memory")
    assert advised["explicit_memory"] < advised["parameters"] < advised["rag"]
    assert advised["interval"] == pytest.approx([0.49, 6.6e3], rel=5e-3)
    assert json_of("advise", "--uses", "0.1")["best"] == "RAG"
    said = trimem("advise", "--uses", "1000000").stdout
    assert "cheapest at 1,000,000 uses: parameters" in said
    assert "explicit memory is the cheapest from 0.49 to 6,611 uses" in said

    plot = tmp_path / "plot.png"
    assert json_of("advise", "--uses", "1", "--model", model, "--plot", str(plot))["model"] == model
    assert plot.read_bytes().startswith(b"\x89PNG")
    weightless = tmp_path / "weightless"
    weightless.mkdir()
    (weightless / "config.json").write_bytes((Path(model) / "config.json").read_bytes())
    assert str(weightless) in trimem("advise", "--uses", "1", "--model", str(weightless)).stdout


def test_advise_refuses_what_it_cannot_judge(model: str, tmp_path: Path) -> None:
    for uses in ("-1", "nan"):
        assert "InvalidInputError" in trimem("advise", "--uses", uses, "--model", model, code=1).stderr
    trimem("advise", "--uses", "often", code=2)
    trimem("advise", code=2)
    assert "no configuration" in trimem("advise", "--uses", "1", "--model", str(tmp_path), code=1).stderr
    (tmp_path / "config.json").write_text('{"model_type": "mixtral"}')
    assert "mixture of experts" in trimem("advise", "--uses", "1", "--model", str(tmp_path), code=1).stderr
    nowhere = str(tmp_path / "absent" / "plot.png")
    assert "cannot be drawn" in trimem("advise", "--uses", "1", "--model", model, "--plot", nowhere, code=1).stderr


def test_calibrate_is_found_by_banks(
    docs: Path, bank: str, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIMEM_CACHE", str(tmp_path / "cache"))
    made = json_of("calibrate", "--model", model, "--samples", "1")
    assert (len(made["ablation"]), made["samples"]) == (3, 1)
    shown = trimem("calibrate", "--model", model, "--samples", "1", "--out", str(tmp_path / "own.json")).stdout
    assert "layer" in shown
    assert json.loads((tmp_path / "own.json").read_text())["copy_score"] == made["copy_score"]
