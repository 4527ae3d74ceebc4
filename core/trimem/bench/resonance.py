"""What ``trimem bench resonance`` runs: finding by ear, storing and decoding a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trimem.bench.environment import environment
from trimem.bench.resonance_codec import measure_codec, measure_consensus, measure_sizes
from trimem.bench.resonance_dialogue import measure_dialogues
from trimem.bench.resonance_search import SYSTEMS, device_name, measure
from trimem.errors import InvalidInputError
from trimem.lm.load import load_model
from trimem.resonance.lexicon import lexicon
from trimem.resonance.phonemes import phonemizer

PARTS = ("codec", "consensus", "search")
FORMATS = ("text", "locomo")


def read_text(path: Path) -> str:
    """Return the text of a file.

    Raises:
        InvalidInputError: There is no such file, or it is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"a UTF-8 text file was expected, {path} cannot be read: {error}") from error


def run_dialogues(
    path: Path, *, n: int = 100, seed: int = 0, language: str = "en", progress: bool | None = None
) -> dict[str, Any]:
    """Ask about dialogues in LoCoMo's format with names misheard.

    Args:
        path: The file.
        n: Questions of each kind.
        seed: Of their draw and of what is misheard.
        language: Of the dialogues.
        progress: Whether to show bars.

    Returns:
        What ``--json`` writes.

    Raises:
        InvalidInputError: n is below 1, or the file is not in that format.
    """
    if n < 1:
        raise InvalidInputError(f"n must be at least 1, got {n}")
    rows = measure_dialogues(path, lexicon(phonemizer(language)), n=n, seed=seed, progress=progress)
    return {
        "benchmark": "resonance",
        "format": "locomo",
        "data": path.name,
        "language": language,
        "n": n,
        "seed": seed,
        "dialogue": [asdict(row) for row in rows],
        "environment": environment(),
    }


def run(
    path: Path,
    *,
    parts: Sequence[str] = PARTS,
    words: Sequence[int] = (),
    tokens: int = 4096,
    model: str | None = None,
    n: int = 100,
    seed: int = 0,
    language: str = "en",
    systems: Sequence[str] = SYSTEMS,
    device: str | None = None,
    progress: bool | None = None,
) -> dict[str, Any]:
    """Measure resonance memory on a text.

    Args:
        path: The text.
        parts: Which of :data:`PARTS` to measure.
        words: Lengths to search it at, in words; where it is shorter, made-up words follow. Its own by default.
        tokens: How many the language model decodes of each code, and hears through noise.
        model: The language model; None for the default one.
        n: Queries of each kind.
        seed: Of places, errors and noise.
        language: Of the text.
        systems: What to compare, of :data:`trimem.bench.resonance_search.SYSTEMS`.
        device: Where resonance search runs; the GPU by default, where there is one.
        progress: Whether to show bars.

    Returns:
        What ``--json`` writes.

    Raises:
        InvalidInputError: An argument or the text does not fit.
    """
    if unknown := [part for part in parts if part not in PARTS]:
        raise InvalidInputError(f"parts are {', '.join(PARTS)}; got {', '.join(unknown)}")
    if tokens < 1:
        raise InvalidInputError(f"tokens must be at least 1, got {tokens}")
    text = read_text(path)
    known = lexicon(phonemizer(language))
    where = device or device_name()
    result: dict[str, Any] = {
        "benchmark": "resonance",
        "data": path.name,
        "language": language,
        "n": n,
        "tokens": tokens,
        "seed": seed,
        "environment": environment(),
    }
    if {"codec", "consensus"} & set(parts):
        lm = load_model(model)
        result["model"] = lm.name
        if "codec" in parts:
            result["sizes"] = measure_sizes(text, lm, tokens)
            result["codec"] = [asdict(row) for row in measure_codec(text, known, lm, tokens)]
        if "consensus" in parts:
            rows = measure_consensus(text, known, lm, tokens, seed, where)
            result["consensus"] = [asdict(row) for row in rows]
    if "search" in parts:
        result["search"] = [
            asdict(row)
            for length in words or (None,)
            for row in measure(
                text, known, words=length, n=n, seed=seed, systems=systems, device=where, progress=progress
            )
        ]
    return result
