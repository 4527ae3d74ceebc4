"""What the tests of commands share."""

from __future__ import annotations

import pytest

from trimem import LanguageModel


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_llama: LanguageModel) -> str:
    """The tiny Llama in a folder, as a user would name it."""
    folder = tmp_path_factory.mktemp("model")
    tiny_llama.model.save_pretrained(folder)
    tiny_llama.tokenizer.save_pretrained(folder)
    return str(folder)
