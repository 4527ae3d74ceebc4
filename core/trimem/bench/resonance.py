"""What ``trimem bench resonance`` runs: finding by ear, storing and decoding a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trimem.bench.environment import environment
from trimem.bench.resonance_search import SYSTEMS, device_name, measure
from trimem.errors import InvalidInputError
from trimem.resonance.lexicon import lexicon
from trimem.resonance.phonemes import phonemizer


def read_text(path: Path) -> str:
    """Return the text of a file.

    Raises:
        InvalidInputError: There is no such file, or it is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"a UTF-8 text file was expected, {path} cannot be read: {error}") from error


def run(
    path: Path,
    *,
    words: Sequence[int] = (),
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
        words: Lengths to search it at, in words; where it is shorter, made-up words follow. Its own by default.
        n: Queries of each kind.
        seed: Of places and errors.
        language: Of the text.
        systems: What to compare, of :data:`trimem.bench.resonance_search.SYSTEMS`.
        device: Where resonance search runs; the GPU by default, where there is one.
        progress: Whether to show bars.

    Returns:
        What ``--json`` writes.

    Raises:
        InvalidInputError: An argument or the text does not fit.
    """
    text = read_text(path)
    known = lexicon(phonemizer(language))
    where = device or device_name()
    rows = [
        row
        for length in words or (None,)
        for row in measure(text, known, words=length, n=n, seed=seed, systems=systems, device=where, progress=progress)
    ]
    return {
        "benchmark": "resonance",
        "data": path.name,
        "language": language,
        "n": n,
        "seed": seed,
        "search": [asdict(row) for row in rows],
        "environment": environment(),
    }
